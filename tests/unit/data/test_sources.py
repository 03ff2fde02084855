"""Columns of several shards whose types differ: joined where nothing is lost, else refused by name."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prepare_serial import make_config, make_log, open_prepared, prepare_serially
from twotower.core.errors import DataError
from twotower.data.schema import Need, Role, check_shards
from twotower.data.shards import list_shards
from twotower.data.sources import Inspected, inspect, read_column

TEXT, LARGE = pa.array(["a", None]), pa.array(["b"], pa.large_string())


def shards_of(folder: Path, *arrays: pa.Array, texts: bool = True) -> list[Inspected]:
    """A Parquet file for each array, its column `x`."""
    folder.mkdir(exist_ok=True)
    for n, array in enumerate(arrays):
        pq.write_table(pa.table({"x": array}), folder / f"{n}.parquet")
    listed = list_shards(str(folder), "parquet", frozenset({"x"} if texts else ()))
    return [inspect(shard) for shard in listed]


@pytest.mark.parametrize(
    ("role", "arrays"),
    [
        ("category", [TEXT, pa.nulls(2)]),
        ("category", [pa.nulls(2), TEXT, pa.nulls(1)]),
        ("id", [TEXT, LARGE, TEXT]),
        ("id", [LARGE, TEXT]),
        ("category", [TEXT.dictionary_encode(), TEXT, LARGE]),
        ("id", [pa.array([1, 2], pa.int32()), pa.array([2**40], pa.int64())]),
        ("id", [pa.array([-1], pa.int32()), pa.array([7], pa.uint64())]),
        ("number", [pa.array([1.5], pa.float32()), pa.array([0.1, None])]),
        ("number", [pa.array([1.5], pa.float16()), pa.array([0.25], pa.float32())]),
        ("number", [pa.array([1.5], pa.float32()), pa.nulls(3)]),
        (
            "number",
            [
                pa.array([Decimal("1.25")], pa.decimal128(21, 2)),
                pa.array([Decimal("2.125")], pa.decimal128(22, 3)),
            ],
        ),
        ("bag", [pa.array([["a"], []]), pa.array([["b"]], pa.large_list(pa.string()))]),
        ("bag", [pa.array([[]], pa.list_(pa.null())), pa.array([["b"], None])]),
        ("bag", [pa.array([[1]], pa.list_(pa.int32())), pa.array([[2**40]])]),
        ("bag", [pa.nulls(1), pa.array([["b"]])]),
    ],
)
def test_what_the_check_accepts_is_read(tmp_path: Path, role: Role, arrays: list[pa.Array]) -> None:
    shards = shards_of(tmp_path / "t", *arrays, texts=role in ("id", "category"))
    assert check_shards(shards, [Need("x", role, "k")]) == []
    wanted = [value for array in arrays for value in array.to_pylist()]
    assert read_column(shards, "x").to_pylist() == wanted


def test_dictionaries_stay_where_types_agree(tmp_path: Path) -> None:
    shards = shards_of(tmp_path / "t", TEXT, TEXT)
    column = read_column(shards, "x")
    assert pa.types.is_dictionary(column.type)
    assert column.to_pylist() == ["a", None, "a", None]


def test_integers_without_a_common_type_are_refused_by_file_and_column(tmp_path: Path) -> None:
    large = pa.array([2**63 + 1], pa.uint64())
    shards = shards_of(tmp_path / "t", pa.array([-1, 2], pa.int32()), large)
    with pytest.raises(
        DataError, match=r"1\.parquet: column 'x' can't be joined .*9223372036854775809"
    ):
        read_column(shards, "x")
    assert read_column(shards[1:], "x").to_pylist() == [2**63 + 1]


@pytest.mark.parametrize("role", ["time", "category"])
def test_instants_with_and_without_a_zone_are_not_mixed(tmp_path: Path, role: Role) -> None:
    naive, aware = pa.array([1], pa.timestamp("us")), pa.array([1], pa.timestamp("us", "UTC"))
    shards = shards_of(tmp_path / "t", naive, aware, texts=False)
    assert check_shards(shards, [Need("x", role, "k")]) == [
        f"{tmp_path}/t/1.parquet: column 'x' is timestamp[us, with a zone], but timestamp[us] in "
        f"{tmp_path}/t/0.parquet"
    ]


def test_instants_of_different_zones_are_instants(tmp_path: Path) -> None:
    kinds = [pa.timestamp("us", zone) for zone in ("UTC", "Asia/Tokyo")]
    shards = shards_of(tmp_path / "t", *(pa.array([1], kind) for kind in kinds), texts=False)
    assert check_shards(shards, [Need("x", "time", "k")]) == []
    with pytest.raises(DataError, match=r"1\.parquet: column 'x' can't be joined"):
        read_column(shards, "x")  # of a category the text would differ


def test_a_log_with_and_without_zones_is_refused(tmp_path: Path) -> None:
    paths = make_log(tmp_path)
    for path, zone in zip(paths, (None, "UTC", None), strict=True):
        table = pq.read_table(path)
        times = table["ts"].cast(pa.timestamp("s", zone))
        pq.write_table(table.set_column(2, "ts", times), path)
    with pytest.raises(DataError, match=r"part-1\.parquet: column 'ts' is timestamp\[\w+, with a"):
        prepare_serially(make_config(tmp_path))


def test_a_catalogue_in_shards_that_drift_is_the_whole_one(tmp_path: Path) -> None:
    make_log(tmp_path)
    items = pq.read_table(tmp_path / "items.parquet")
    wanted = open_prepared(make_config(tmp_path)).manifest["files"]
    folder = tmp_path / "catalogue"
    folder.mkdir()
    drifted: list[dict[str, Any]] = [
        {"item_id": pa.large_string(), "size": pa.float32(), "words": pa.large_list(pa.string())},
        {},
        {"brand": pa.large_string()},
    ]
    for n, kinds in enumerate(drifted):
        part = items.slice(20 * n, 20)
        fields = [field.with_type(kinds.get(field.name, field.type)) for field in part.schema]
        pq.write_table(part.cast(pa.schema(fields)), folder / f"{n}.parquet")
    found = open_prepared(make_config(tmp_path, items={"path": str(folder)})).manifest["files"]
    names = [name for name in wanted if name not in ("profile.json", "manifest.json")]
    assert {n: found[n]["sha256"] for n in names} == {n: wanted[n]["sha256"] for n in names}


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("item_id,size,size\n1,2,3\n")
    listed = list_shards(str(tmp_path), "csv", frozenset({"item_id"}), numbers=frozenset({"size"}))
    shards = [inspect(shard) for shard in listed]
    needs = [Need("item_id", "id", "i"), Need("size", "number", "k")]
    assert check_shards(shards, needs) == [f"{tmp_path}/a.csv: two columns are named 'size' (k)"]
    assert read_column(shards, "item_id").to_pylist() == ["1"]
