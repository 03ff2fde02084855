from typing import Any

import pytest

from twotower.core.errors import InputError
from twotower.core.model_config import Model
from twotower.export.contents import _check_served


@pytest.mark.parametrize(
    "changes",
    [
        {"scorer": "gmf"},
        {"towers": "identity"},
        {"history": "attention", "history_blocks": 2},
        {"history": "attention", "history_heads": 2},
    ],
)
def test_a_model_that_serving_cannot_compute_is_refused_by_its_key(changes: dict[str, Any]) -> None:
    _check_served(Model(history="attention", history_dropout=0.2))
    key = list(changes)[-1]
    with pytest.raises(InputError, match=rf"model\.{key}: "):
        _check_served(Model.model_validate(changes))
