"""W1's data: a pure function of its sizes, written once, with the lists that the towers look up."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from twotower.bench.workload import RECORD, Sizes, main, write_workload
from twotower.core.errors import DataError

SMALL = Sizes(
    rows=3_000, items=200, queries=150, categories=7, developers=30, tags=40, tokens=90, shards=3
)

PUBLISHED = {
    ("item_id", "items.parquet"): (200_000, 2_666_666_666_600_000),
    ("category", "items.parquet"): (200_000, 5_081_583_591_250),
    ("developer", "items.parquet"): (200_000, 208_496_891_070_871),
    ("tags", "items.parquet"): (600_332, 432_306_282_868_439),
    ("title_tokens", "items.parquet"): (900_831, 6_150_013_415_635_994),
    ("query_id", "log"): (2_000_000, 108_264_803_629_961_378),
    ("country", "log"): (2_000_000, 57_229_061_293_372),
    ("history_tags", "log"): (5_998_083, 49_217_141_446_252_803),
    ("item_id", "log"): (2_000_000, 174_789_462_156_007_350),
    ("ts", "log"): (2_000_000, 687_070_730_145_147_050),
}
"""By column: how many values, and the sum of value times place, modulo 2**64."""


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_equal_sizes_give_equal_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        sizes = Sizes(**{**{k: getattr(SMALL, k) for k in SMALL.__slots__}, "seed": seed})
        write_workload(tmp_path / name, sizes)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert not any(a[name] == c[name] for name in a)


def test_the_default_workload_is_the_published_one(tmp_path: Path) -> None:
    """Its values and their order, by weighted sums of the files that the peers' kit made."""
    write_workload(tmp_path)
    found = {}
    for name in ("items.parquet", "log"):
        table = pq.read_table(tmp_path / "w1" / name)
        for column in table.column_names:
            array = table[column].combine_chunks()
            values = array.values if isinstance(array, pa.ListArray) else array
            numbers = values.to_numpy().astype(np.uint64)
            at = np.arange(1, len(numbers) + 1, dtype=np.uint64)
            found[column, name] = (len(numbers), int((numbers * at).sum()))
    assert found == PUBLISHED


def test_tables_have_the_sizes_and_ids_asked_for(tmp_path: Path) -> None:
    write_workload(tmp_path, SMALL)
    shards = sorted((tmp_path / "w1" / "log").iterdir())
    assert [pq.read_metadata(path).num_rows for path in shards] == [1_000] * 3
    log = pq.read_table(tmp_path / "w1" / "log")
    items = pq.read_table(tmp_path / "w1" / "items.parquet")
    queries = pq.read_table(tmp_path / "w1" / "queries.parquet")
    assert items["item_id"].to_pylist() == list(range(200))
    assert queries["query_id"].to_pylist() == list(range(150))
    assert log["ts"].to_pylist() == sorted(log["ts"].to_pylist())
    for table, column, distinct in (
        (log, "query_id", 150), (log, "item_id", 200), (log, "country", 50),
        (items, "category", 7), (items, "developer", 30),
    ):  # fmt: skip
        values = table[column].to_numpy()
        assert values.min() >= 0
        assert values.max() < distinct
    for table, column, distinct, most in (
        (log, "history_tags", 40, 5), (queries, "history_tags", 40, 5),
        (items, "tags", 40, 5), (items, "title_tokens", 90, 8),
    ):  # fmt: skip
        lists = table[column].to_pylist()
        assert {len(values) for values in lists} == set(range(1, most + 1))
        assert {value for values in lists for value in values} <= set(range(distinct))


def test_query_lists_are_as_long_over_the_rows_as_the_rows_own(tmp_path: Path) -> None:
    mean = write_workload(tmp_path, SMALL)["values_per_example"]
    log = pq.read_table(tmp_path / "w1" / "log").to_pylist()
    queries = pq.read_table(tmp_path / "w1" / "queries.parquet").to_pylist()
    by_query = [len(queries[row["query_id"]]["history_tags"]) for row in log]
    own = [len(row["history_tags"]) for row in log]
    assert np.mean(by_query) == pytest.approx(mean["history_tags of the row's query"], abs=1e-4)
    assert np.mean(own) == pytest.approx(mean["history_tags of the row"], abs=1e-4)
    assert np.mean(by_query) == pytest.approx(np.mean(own), rel=0.01)


def test_ids_follow_zipf_and_frequent_ones_are_scattered(tmp_path: Path) -> None:
    write_workload(tmp_path, SMALL)
    clicks = pq.read_table(tmp_path / "w1" / "log")["item_id"].to_numpy()
    counts = np.bincount(clicks, minlength=200)
    share = 1 / np.sum(np.arange(1, 201) ** -1.05)
    assert counts.max() / 3_000 == pytest.approx(share, rel=0.15)
    assert not np.array_equal(np.argsort(-counts, kind="stable")[:5], np.arange(5))


def test_a_second_call_reuses_a_complete_folder_and_mends_an_incomplete_one(tmp_path: Path) -> None:
    record = write_workload(tmp_path, SMALL)
    whole = contents(tmp_path)
    (tmp_path / "w1" / "items.parquet").write_bytes(b"touched")
    assert write_workload(tmp_path, SMALL) == record
    assert (tmp_path / "w1" / "items.parquet").read_bytes() == b"touched"
    (tmp_path / RECORD).unlink()
    assert write_workload(tmp_path, SMALL) == record
    assert contents(tmp_path) == whole


def test_other_sizes_and_alien_shards_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_workload(tmp_path / "a", SMALL)
    with pytest.raises(DataError, match="another folder"):
        write_workload(tmp_path / "a")
    alien = tmp_path / "b" / "w1" / "log" / "part-003.parquet"
    alien.parent.mkdir(parents=True)
    alien.touch()
    with pytest.raises(DataError, match="part-003"):
        write_workload(tmp_path / "b", SMALL)
    assert main([str(tmp_path / "c"), "--rows", "0"]) == 2
    assert "rows must be >= 1" in capsys.readouterr().err
