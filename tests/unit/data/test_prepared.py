import json
from pathlib import Path

import numpy as np
import pytest

from prepared_fixture import FEATURES, Shape, write_prepared
from twotower.core.errors import DataError
from twotower.core.types import EncodedFeature, Ragged, Side
from twotower.data.prepared import Prepared


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_prepared(folder)
    return folder


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Prepared:
    return Prepared.open(folder, verify=True)


def feature(side: Side, name: str) -> EncodedFeature:
    return next(found for found in side.features if found.name == name)


def ragged(found: EncodedFeature) -> Ragged:
    assert isinstance(found.values, Ragged)
    return found.values


def test_counts_come_from_the_manifest(prepared: Prepared) -> None:
    assert (prepared.num_items, prepared.num_queries, prepared.num_train) == (40, 30, 200)
    assert prepared.lanes == 4
    assert [bucket.rows for bucket in prepared.buckets] == [60, 60, 60, 20]


def test_item_side_keeps_the_order_and_kinds_of_the_config(prepared: Prepared) -> None:
    side = prepared.item_side()
    assert [f.name for f in side.features] == list(FEATURES["item"])
    assert [f.kind for f in side.features] == ["categorical", "multi", "dense"]
    assert [f.table for f in side.features] == ["item.item_id", "item.words", ""]
    assert [f.vocab_size for f in side.features] == [42, 12, 0]
    ids = ragged(feature(side, "item_id"))
    assert ids.values.dtype == np.int32
    assert ids.lengths().tolist() == [1] * 40
    assert ragged(feature(side, "words")).num_rows == 40
    size = feature(side, "size").values
    assert isinstance(size, np.ndarray)
    assert size.dtype == np.float32
    assert size.flags.writeable


def test_query_side_shares_tables_or_owns_them(prepared: Prepared) -> None:
    shared, own = prepared.query_side(), prepared.query_side(shared_tables=False)
    assert [f.table for f in shared.features] == ["item.item_id", "item.words", "query.home"]
    assert [f.table for f in own.features] == ["query.item_id", "query.words", "query.home"]
    assert [f.vocab_size for f in shared.features] == [f.vocab_size for f in own.features]
    assert ragged(feature(shared, "words")).lengths().tolist() == [n % 3 for n in range(30)]


def test_tables_are_listed_with_their_sizes(prepared: Prepared) -> None:
    shared = {"item.item_id": 42, "item.words": 12, "query.home": 5, "context.device": 4}
    assert prepared.tables() == shared
    own = {"query.item_id": 42, "query.words": 12, "query.past": 42}
    assert prepared.tables(shared_tables=False) == shared | own
    assert prepared.context_tables() == {"device": "context.device"}
    assert prepared.history_tables() == {"past": "item.item_id"}
    assert prepared.history_tables(shared_tables=False) == {"past": "query.past"}


def test_pairs_and_positives_agree(prepared: Prepared) -> None:
    pairs, positives = prepared.pairs("train"), prepared.positives("train")
    assert len(pairs.query) == 200
    assert pairs.time is not None
    assert positives.row_ids().tolist() == pairs.query.tolist()
    assert positives.values.tolist() == pairs.item.tolist()
    for query in range(prepared.num_queries):
        times = pairs.time[pairs.query == query].tolist()
        assert times == sorted(times, reverse=True)
    assert pairs.context["device"].dtype == np.int64
    assert len(prepared.pairs("validation").query) == len(prepared.pairs("test").query) == 10


def test_a_log_without_time_has_pairs_without_time(tmp_path: Path) -> None:
    write_prepared(tmp_path, Shape(time=False))
    assert Prepared.open(tmp_path).pairs("train").time is None


def test_columns_of_the_catalogue(prepared: Prepared) -> None:
    assert prepared.item_counts().tolist() == list(range(40))
    assert prepared.item_full_counts().tolist() == list(range(10, 50))
    assert prepared.query_items()[:4].tolist() == [-1, 1, -1, 3]
    assert prepared.item_ids()[3] == "i0003"
    assert prepared.query_ids()[29] == "q0029"
    groups = prepared.groups()
    assert groups is not None
    assert groups[:3].tolist() == [None, "g1", "g2"]


def test_mutual_information_by_kind(prepared: Prepared) -> None:
    raw, normalised = prepared.mutual_information("raw"), prepared.mutual_information("normalised")
    assert raw.features == ("item_id", "words", "size")
    assert raw.matrix.dtype == np.float64
    assert raw.matrix[0].tolist() == [2, 1, 0]
    assert normalised.matrix[0].tolist() == [1, 0.5, 0]
    assert prepared.profile() == {"rows": 200}


def test_a_folder_without_manifest_says_prepare(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no manifest\.json.*run `twotower prepare`"):
        Prepared.open(tmp_path / "nothing")


def test_another_layout_is_refused(tmp_path: Path) -> None:
    write_prepared(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 2}))
    with pytest.raises(DataError, match=r"layout 2, .* reads layout 1; run `twotower prepare`"):
        Prepared.open(tmp_path)


@pytest.mark.parametrize("name", ["items.parquet", "train/bucket-00001.parquet", "mi.json"])
def test_a_missing_cut_or_flipped_file_is_named(tmp_path: Path, name: str) -> None:
    write_prepared(tmp_path)
    whole = (tmp_path / name).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1

    (tmp_path / name).write_bytes(bytes(flipped))
    with pytest.raises(DataError, match=rf"{name}: damaged .*SHA-256"):
        Prepared.open(tmp_path, verify=True)
    (tmp_path / name).write_bytes(whole[:-1])
    with pytest.raises(DataError, match=rf"{name}: damaged .*bytes"):
        Prepared.open(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: missing; delete the folder and run"):
        Prepared.open(tmp_path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    write_prepared(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["data"]["features"]["item"]["colour"] = {"kind": "categorical"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"items\.parquet: .*'f\.colour'"):
        Prepared.open(tmp_path).item_side()
