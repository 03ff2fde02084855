"""The real logs beside the checkout: prepared by their configs, one epoch trained, leaks looked for."""

import os
from pathlib import Path

import numpy as np
import pytest

from twotower.core.config import ExperimentConfig
from twotower.core.errors import DataError
from twotower.core.loading import load_config, with_overrides
from twotower.data.prepared import Prepared
from twotower.runtime.prepare import prepare
from twotower.runtime.reference import train_reference

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("TWOTOWER_SHARED_DATA", ROOT.parent / "shared" / "data"))
LOGS = {
    "completejourney": "completejourney",
    "movietweetings": "movietweetings",
    "wikispeedia": "wikispeedia",
    "musae_facebook": "musae-facebook",
}
pytestmark = [pytest.mark.shared_data, pytest.mark.timeout(600)]


def config_of(name: str, folder: Path) -> ExperimentConfig:
    source = DATA / LOGS[name]
    changes: dict[str, object] = {
        "data.interactions.path": str(source / "interactions.parquet"),
        "data.items.path": str(source / "items.parquet"),
        "storage.prepared": str(folder),
        "train.num_epochs": 1,
    }
    if name == "completejourney":
        changes["data.queries.path"] = str(source / "users.parquet")
    return with_overrides(load_config(ROOT / "configs" / f"{name}.yaml").config, changes)


@pytest.mark.parametrize("name", LOGS)
def test_a_real_log_is_prepared_trained_and_evaluated(name: str, tmp_path: Path) -> None:
    config = config_of(name, tmp_path)
    prepared = Prepared.open(prepare(config).path, verify=True)
    train, test = prepared.pairs("train"), prepared.pairs("test")
    seen = set(zip(train.query.tolist(), train.item.tolist(), strict=True))
    assert not seen & set(zip(test.query.tolist(), test.item.tolist(), strict=True))
    if train.time is not None and test.time is not None:
        assert train.time.max() < test.time.min()
    outcome = train_reference(config, prepared)
    assert outcome.evaluations["test"].summary["recall@50"]["value"]


def test_no_test_pair_has_its_reverse_in_train_where_edges_are_undirected(tmp_path: Path) -> None:
    prepared = Prepared.open(prepare(config_of("musae_facebook", tmp_path)).path)
    own = prepared.query_items()
    ends = [
        np.stack([own[pairs.query], pairs.item], axis=1)
        for pairs in (prepared.pairs("train"), prepared.pairs("test"))
    ]
    train = {tuple(row) for row in ends[0].tolist()}
    assert not [row for row in ends[1].tolist() if (row[1], row[0]) in train]


def test_a_missing_folder_is_one_clear_line(tmp_path: Path) -> None:
    config = with_overrides(
        config_of("wikispeedia", tmp_path), {"data.items.path": str(tmp_path / "nowhere.parquet")}
    )
    with pytest.raises(DataError, match=r"data\.items\.path: .*nowhere\.parquet"):
        prepare(config)
