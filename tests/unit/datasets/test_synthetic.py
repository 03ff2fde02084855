"""The synthetic generator: bytes are a function of the arguments; the structure is there."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from twotower.core.errors import DataError
from twotower.datasets import synthetic
from twotower.datasets.synthetic import (
    LOG_SCHEMA,
    SPAN_S,
    START_S,
    SyntheticSpec,
    SyntheticWorld,
    write_shard,
    write_synthetic,
    write_table_blocks,
)
from twotower.datasets.synthetic_features import (
    COUNTRIES,
    ITEM_SCHEMA,
    QUERY_SCHEMA,
    draws,
    item_features,
)

SMALL = {"rows": 3_000, "queries": 200, "items": 150, "shards": 3, "clusters": 8}


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def spec() -> SyntheticSpec:
    return SyntheticSpec(rows=200_000, queries=4_000, items=2_000, shards=2, seed=7, clusters=16)


@pytest.fixture(scope="module")
def world(spec: SyntheticSpec) -> SyntheticWorld:
    return SyntheticWorld.build(spec)


@pytest.fixture(scope="module")
def log(spec: SyntheticSpec, world: SyntheticWorld, tmp_path_factory: pytest.TempPathFactory):
    """The whole log of ``spec``, with item and query numbers as columns ``i`` and ``q``."""
    root = tmp_path_factory.mktemp("log")
    for shard in range(spec.shards):
        write_shard(root / f"{shard}.parquet", spec, world, shard)
    return pl.read_parquet(root / "*.parquet").with_columns(
        i=pl.col("item_id").str.slice(1).cast(pl.Int64),
        q=pl.col("query_id").str.slice(1).cast(pl.Int64),
    )


def test_equal_seeds_give_equal_bytes_and_other_seeds_other_bytes(tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_synthetic(tmp_path / name, seed=seed, **SMALL)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert sorted(a) == [
        *(f"interactions/part-0000{n}.parquet" for n in range(3)),
        "items.parquet",
        "queries.parquet",
    ]
    assert a == b
    assert a.keys() == c.keys()
    assert not [name for name in a if a[name] == c[name]]
    assert len(set(a.values())) == len(a)


def test_a_shard_written_alone_has_the_bytes_it_has_in_the_whole(tmp_path: Path):
    write_synthetic(tmp_path, seed=5, **SMALL)
    spec = SyntheticSpec(seed=5, **SMALL)
    alone = tmp_path / "alone.parquet"
    write_shard(alone, spec, SyntheticWorld.build(spec), 1)
    assert alone.read_bytes() == (tmp_path / "interactions/part-00001.parquet").read_bytes()


def test_files_have_the_rows_ids_and_types_that_are_documented(tmp_path: Path):
    write_synthetic(tmp_path, seed=0, **SMALL)
    items, queries = (
        pq.read_table(tmp_path / "items.parquet"),
        pq.read_table(tmp_path / "queries.parquet"),
    )
    assert items.schema.equals(ITEM_SCHEMA)
    assert queries.schema.equals(QUERY_SCHEMA)
    assert items["item_id"].to_pylist() == [f"i{n}" for n in range(150)]
    assert queries["query_id"].to_pylist() == [f"q{n}" for n in range(200)]
    rows = 0
    for shard in sorted((tmp_path / "interactions").iterdir()):
        table = pq.read_table(shard)
        assert table.schema.equals(LOG_SCHEMA)
        rows += table.num_rows
        assert set(table["item_id"].to_pylist()) <= set(items["item_id"].to_pylist())
        assert set(table["query_id"].to_pylist()) <= set(queries["query_id"].to_pylist())
        assert set(table["country"].to_pylist()) <= set(COUNTRIES)
    assert rows == 3_000


def test_time_never_falls_and_spans_the_year(log: pl.DataFrame):
    assert log["ts"].is_sorted()
    ts = log["ts"].to_numpy()
    assert START_S <= ts[0] < START_S + 3600
    assert START_S + SPAN_S - 3600 < ts[-1] < START_S + SPAN_S


def test_rows_fall_in_the_cluster_of_their_query_far_above_chance(
    world: SyntheticWorld, log: pl.DataFrame
):
    same = world.query_cluster[log["q"].to_numpy()] == world.item_cluster[log["i"].to_numpy()]
    share = np.diff(world.cluster_bounds) / world.cluster_bounds[-1]
    chance = float((share**2).sum())
    assert chance < 0.3
    # 0.8 of rows are drawn inside; of the others a chance share falls inside too.
    assert same.mean() == pytest.approx(0.8 + 0.2 * chance, abs=0.02)


def test_features_alone_tell_the_cluster(log: pl.DataFrame, world: SyntheticWorld, tmp_path: Path):
    write_synthetic(tmp_path, rows=1, queries=4_000, items=2_000, shards=1, seed=7, clusters=16)
    items, queries = (pl.read_parquet(tmp_path / f"{n}.parquet") for n in ("items", "queries"))
    category = items["category"].str.slice(1).cast(pl.Int64).to_numpy()
    assert (category == world.item_cluster // 2).mean() > 0.85
    segment = queries["segment"].str.slice(1).cast(pl.Int64).to_numpy()
    assert (segment == world.query_cluster // 2).mean() > 0.75
    matched = (category[log["i"].to_numpy()] == segment[log["q"].to_numpy()]).mean()
    shuffled = (
        category[log["i"].to_numpy()] == segment[log["q"].shuffle(seed=0).to_numpy()]
    ).mean()
    assert matched > 2 * shuffled


def test_brand_tells_category_and_lists_hold_distinct_values():
    clusters = np.arange(5_000, dtype=np.int32) % 20
    items = item_features(draws(3, 1), 0, clusters, 20)
    frame = pl.DataFrame(items.to_pydict()).drop_nulls("brand")
    brand = frame["brand"].str.slice(1).cast(pl.Int64) // 6
    category = frame["category"].str.slice(1).cast(pl.Int64)
    assert (brand == category).to_numpy().mean() > 0.75
    for column in ("tags", "words"):
        assert (frame[column].list.len() == frame[column].list.n_unique()).all()
    assert (frame["words"].list.len() >= 3).all()
    assert (frame["tags"].list.len() == 0).any()
    assert (frame["price"] > 0).all()
    assert 0.01 < items["brand"].null_count / 5_000 < 0.04


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_popularity_falls_as_the_power_of_the_rank(tmp_path: Path, exponent: float):
    spec = SyntheticSpec(
        rows=150_000, queries=20_000, items=500, shards=1, seed=1, clusters=4, exponent=exponent
    )
    write_shard(tmp_path / "log.parquet", spec, SyntheticWorld.build(spec), 0)
    counts = pl.read_parquet(tmp_path / "log.parquet")["item_id"].value_counts()["count"]
    ranked = np.sort(counts.to_numpy())[::-1][:200]
    slope = np.polyfit(np.log(np.arange(1, len(ranked) + 1)), np.log(ranked), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.08)


def test_one_row_group_at_a_time_is_drawn_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(synthetic, "ROWS_PER_GROUP", 100)
    events: list[str] = []
    write = pq.ParquetWriter.write_table

    def noted_write(self, table, *args, **kwargs):
        events.append(f"write {table.num_rows}")
        return write(self, table, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", noted_write)
    spec = SyntheticSpec(rows=250, queries=9, items=9, shards=1, seed=0)
    world = SyntheticWorld.build(spec)
    draw = synthetic._log_rows

    def noted_draw(*args):
        events.append("draw")
        return draw(*args)

    monkeypatch.setattr(synthetic, "_log_rows", noted_draw)
    write_shard(tmp_path / "log.parquet", spec, world, 0)
    assert events == ["draw", "write 100", "draw", "write 100", "draw", "write 50"]
    assert pq.read_metadata(tmp_path / "log.parquet").num_row_groups == 3


def test_fewer_rows_than_shards_leave_legal_empty_shards(tmp_path: Path):
    write_synthetic(tmp_path, rows=2, queries=1, items=1, shards=5, seed=2**64 - 1, clusters=50)
    tables = [pq.read_table(p) for p in sorted((tmp_path / "interactions").iterdir())]
    assert [t.num_rows for t in tables] == [0, 0, 1, 0, 1]
    assert all(t.schema.equals(LOG_SCHEMA) for t in tables)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, "rows must be >= 1, got 0"),
        ({"clusters": 0}, "clusters"),
        ({"shards": 100_001}, "shards"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"exponent": -0.1}, "exponent"),
        ({"exponent": float("nan")}, "exponent"),
    ],
)
def test_sizes_out_of_range_are_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, int], message: str
):
    with pytest.raises(DataError, match=message):
        write_synthetic(tmp_path / "out", **({"seed": 0, **SMALL} | change))
    assert not (tmp_path / "out").exists()


def test_shards_of_another_data_set_are_not_mixed_in(tmp_path: Path):
    write_synthetic(tmp_path, seed=0, **SMALL)
    with pytest.raises(DataError, match=r"part-00002\.parquet"):
        write_synthetic(tmp_path, seed=0, **(SMALL | {"shards": 2}))


def test_a_write_that_fails_leaves_no_file_under_the_final_name(tmp_path: Path):
    def blocks():
        yield item_features(draws(0, 0), 0, np.zeros(3, dtype=np.int32), 1)
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        write_table_blocks(tmp_path / "items.parquet", blocks())
    assert not (tmp_path / "items.parquet").exists()


def test_command_writes_a_data_set_or_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    sizes = ["--queries", "5", "--items", "4", "--shards", "2", "--seed", "1"]
    assert synthetic.main([str(tmp_path), "--rows", "10", *sizes]) == 0
    assert pl.read_parquet(tmp_path / "interactions" / "*.parquet").height == 10
    assert synthetic.main([str(tmp_path), "--rows", "0", *sizes]) == 2
    assert "rows must be >= 1" in capsys.readouterr().err
