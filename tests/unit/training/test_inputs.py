"""What the data layer hands to the model agrees with itself."""

from pathlib import Path

import numpy as np
import pytest

from prepared_fixture import FEATURES
from tiny_run import tiny_run
from twotower.core.loading import with_overrides
from twotower.training.inputs import train_inputs


@pytest.mark.parametrize("reverse", [False, True])
def test_mutual_information_is_in_the_order_of_the_item_side(tmp_path: Path, reverse: bool) -> None:
    config, prepared = tiny_run(tmp_path, ssl__weight=1)
    names = sorted(FEATURES["item"], reverse=reverse)
    written = {name: FEATURES["item"][name] for name in names}
    config = with_overrides(config, {"data.features.item": written})
    found = train_inputs(config, prepared)
    measured = prepared.mutual_information("raw")
    assert found.mutual_information is not None
    assert list(config.data.features.item) == names
    for row, one in enumerate(found.item.features):
        for column, other in enumerate(found.item.features):
            place = measured.features.index(one.name), measured.features.index(other.name)
            assert found.mutual_information[row, column] == measured.matrix[place]
    assert not np.allclose(measured.matrix[0], measured.matrix[-1]), "an order can be told"
