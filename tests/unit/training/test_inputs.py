"""What the data layer hands to the model agrees with itself."""

from pathlib import Path

import numpy as np
import pytest

from prepared_fixture import FEATURES
from tiny_run import tiny_run
from twotower.core.errors import ConfigError
from twotower.core.loading import with_overrides
from twotower.training.inputs import require_trainable, train_inputs


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


def test_values_are_counted_over_train_pairs(tmp_path: Path) -> None:
    """By loops: an id's counts are its pairs, a shared value's those of items and of queries."""
    config, prepared = tiny_run(tmp_path)
    item = config.data.features.item
    owners = {f.share for f in config.data.features.query.values() if f.share}
    chosen = {name: {"kind": "mgqe"} for name, f in item.items() if f.kind != "dense"}
    config = with_overrides(config, {"model.embeddings.item": chosen})
    found = train_inputs(config, prepared)
    assert owners & chosen.keys(), "a table is shared"
    assert found.value_counts.keys() == {f"item.{name}" for name in chosen}
    pairs = prepared.pairs("train")
    for table, counts in found.value_counts.items():
        slow = np.zeros_like(counts)
        for side, rows in ((found.item, pairs.item), (found.query, pairs.query)):
            for feature in side.features:
                if feature.table == table:
                    for row in rows:
                        for value in feature.values.row(row):  # pyright: ignore[reportAttributeAccessIssue]
                            slow[value] += 1
        assert counts.tolist() == slow.tolist()
        assert counts.any()


def test_a_history_with_a_table_of_its_own_counts_as_its_items_do(tmp_path: Path) -> None:
    config, prepared = tiny_run(
        tmp_path,
        model__shared_tables=False,
        model__embeddings={
            "query": {"past": {"kind": "mgqe"}},
            "item": {"item_id": {"kind": "mgqe"}},
        },
    )
    counts = train_inputs(config, prepared).value_counts
    assert counts["query.past"].any()
    assert counts["query.past"].tolist() == counts["item.item_id"].tolist()


def test_a_warm_up_of_the_learning_rate_as_long_as_the_run_is_refused(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path, train__warmup_steps=25)
    require_trainable(config, prepared)
    config = with_overrides(config, {"train.warmup_steps": 26})
    told = "train.warmup_steps: the learning rate warms up for 26 steps, the run has 26; set fewer"
    with pytest.raises(ConfigError, match=told):
        require_trainable(config, prepared)
