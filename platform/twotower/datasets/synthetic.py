"""Seeded synthetic interaction logs of any size, with a structure that a model can learn.

Every item and query belongs to a planted cluster. A row takes its query by activity, then its item
by popularity: mostly among the items of the query's cluster, else among all. Popularity falls as a
power of the rank. Item and query features follow the cluster, with noise. Run::

    python -m twotower.datasets.synthetic OUT --rows 1000000 --queries 50000 --items 20000 \
        --shards 8 --seed 1

The log is never in memory: a shard is written in row groups, and its bytes are a pure function of
the arguments and its number (and of the versions of numpy and pyarrow). What stays in memory is
20 bytes an item and 16 bytes a query, twice that for a moment at the start.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from twotower.core.errors import DataError
from twotower.datasets.synthetic_features import (
    COUNTRIES,
    countries,
    draws,
    item_features,
    query_features,
    strings,
)

ROWS_PER_GROUP = 1 << 17
"""Rows held at once, and rows of a Parquet row group."""

START_S = 1_704_067_200
"""First second of the log: 2024-01-01T00:00:00Z."""
SPAN_S = 366 * 86_400
"""Length of the log in seconds: the year 2024."""

LOG_SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("item_id", pa.string()),
        ("ts", pa.int64()),
        ("country", pa.string()),
    ]
)
"""``ts`` is in Unix seconds and never falls within a shard, nor from one shard to the next."""

_IN_CLUSTER = 0.8  # share of rows whose item is drawn in the query's cluster; chosen, not tuned
_AT_HOME = 0.9  # share of rows from the query's home country; chosen, not tuned
_ACTIVITY_EXPONENT = 0.5  # queries are skewed too, but less than items; chosen, not tuned

# Streams of random numbers: the second word of the Philox key. Shard numbers are the low ones.
_STREAM_WORLD, _STREAM_ITEMS, _STREAM_QUERIES = 1 << 61, 2 << 61, 3 << 61


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticSpec:
    """Sizes of a synthetic data set; equal specs give equal files."""

    rows: int
    """Interactions over all shards, >= 1. A pair may come more than once."""
    queries: int
    """Queries in the query table, >= 1; the least active may have no row."""
    items: int
    """Items in the catalogue, >= 1; the least popular may have no row."""
    shards: int
    """Files of the log, 1 to 100,000; with fewer rows than shards some are empty."""
    seed: int
    """0 to 2**64 - 1."""
    clusters: int = 64
    """Planted clusters, >= 1; 1 means no structure but popularity."""
    exponent: float = 1.0
    """Popularity of the item of rank r is proportional to r ** -exponent; >= 0, 0 is uniform."""

    def __post_init__(self) -> None:
        for name in ("rows", "queries", "items", "shards", "clusters"):
            if getattr(self, name) < 1:
                raise DataError(f"synthetic data: {name} must be >= 1, got {getattr(self, name)}")
        if self.shards > 100_000:
            raise DataError(f"synthetic data: shards must be <= 100000, got {self.shards}")
        if not 0 <= self.seed < 1 << 64:
            raise DataError(f"synthetic data: seed must be in [0, 2**64), got {self.seed}")
        if not 0 <= self.exponent < float("inf"):
            raise DataError(f"synthetic data: exponent must be >= 0, got {self.exponent}")


@dataclass(frozen=True, slots=True)
class SyntheticWorld:
    """The planted structure: what the features show with noise and the log follows.

    Shape letters: Q queries, I items, C clusters.
    """

    query_cluster: NDArray[np.int32]
    """(Q,)"""
    query_country: NDArray[np.int32]
    """(Q,), index into `COUNTRIES`."""
    activity: NDArray[np.float64]
    """(Q,), running sum of the queries' weights."""
    item_cluster: NDArray[np.int32]
    """(I,)"""
    item_order: NDArray[np.int64]
    """(I,), item numbers grouped by cluster."""
    popularity: NDArray[np.float64]
    """(I,), running sum of the items' weights, in ``item_order``."""
    cluster_bounds: NDArray[np.float64]
    """(C + 1,), ``popularity`` where each cluster begins; the last is the sum of all."""

    @classmethod
    def build(cls, spec: SyntheticSpec) -> "SyntheticWorld":
        """Plant the clusters and weights of ``spec``; takes O(queries + items) time and memory."""
        rng = draws(spec.seed, _STREAM_WORLD)
        item_cluster = rng.integers(spec.clusters, size=spec.items, dtype=np.int32)
        weight = _power_law(rng, spec.items, spec.exponent)
        item_order = np.argsort(item_cluster, kind="stable")
        popularity = np.cumsum(weight[item_order])
        ends = np.cumsum(np.bincount(item_cluster, minlength=spec.clusters))
        bounds = np.concatenate([[0.0], np.concatenate([[0.0], popularity])[ends]])
        # Queries choose a cluster by its weight, so items keep their power law over the whole log,
        # and nobody prefers a cluster without items.
        chosen = _pick(bounds[1:], rng.random(spec.queries) * bounds[-1])
        return cls(
            query_cluster=chosen.astype(np.int32),
            query_country=countries(rng, spec.queries),
            activity=np.cumsum(_power_law(rng, spec.queries, _ACTIVITY_EXPONENT)),
            item_cluster=item_cluster,
            item_order=item_order,
            popularity=popularity,
            cluster_bounds=bounds,
        )


def _power_law(rng: np.random.Generator, size: int, exponent: float) -> NDArray[np.float64]:
    """Give ranks 1..size to positions at random, return rank ** -exponent, shape (size,)."""
    ranks = rng.permutation(size).astype(np.float64) + 1.0
    return np.power(ranks, -exponent)


def _pick(running_sum: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.int64]:
    """Find for each point of [0, total) the entry whose share of the running sum holds it."""
    found = np.searchsorted(running_sum, at, side="right")
    return np.minimum(found, len(running_sum) - 1)  # a point may round up to the total


def write_synthetic(  # noqa: PLR0913 - the sizes are the interface; SyntheticSpec documents them
    out: Path,
    *,
    rows: int,
    queries: int,
    items: int,
    shards: int,
    seed: int,
    clusters: int = 64,
    exponent: float = 1.0,
) -> None:
    """Write ``interactions/part-NNNNN.parquet``, ``items.parquet`` and ``queries.parquet``.

    Arguments are those of `SyntheticSpec`. Files of the same names are replaced.

    Raises:
        DataError: a size is out of range, or ``out`` holds shards that this data set lacks.
    """
    sizes = {"rows": rows, "queries": queries, "items": items, "shards": shards}
    spec = SyntheticSpec(**sizes, seed=seed, clusters=clusters, exponent=exponent)
    log = out / "interactions"
    paths = [log / f"part-{shard:05d}.parquet" for shard in range(shards)]
    if alien := sorted(set(log.glob("*.parquet")) - set(paths)):
        raise DataError(f"{alien[0]}: not of this data set: choose an empty folder")
    log.mkdir(parents=True, exist_ok=True)
    world = SyntheticWorld.build(spec)
    write_table_blocks(out / "items.parquet", _item_blocks(spec, world))
    write_table_blocks(out / "queries.parquet", _query_blocks(spec, world))
    for shard, path in enumerate(paths):
        write_shard(path, spec, world, shard)


def _item_blocks(spec: SyntheticSpec, world: SyntheticWorld) -> Iterator[pa.Table]:
    for block, (start, stop) in enumerate(_blocks(spec.items)):
        rng = draws(spec.seed, _STREAM_ITEMS + block)
        yield item_features(rng, start, world.item_cluster[start:stop], spec.clusters)


def _query_blocks(spec: SyntheticSpec, world: SyntheticWorld) -> Iterator[pa.Table]:
    for block, (start, stop) in enumerate(_blocks(spec.queries)):
        rng = draws(spec.seed, _STREAM_QUERIES + block)
        cluster, country = world.query_cluster[start:stop], world.query_country[start:stop]
        yield query_features(rng, start, cluster, country, spec.clusters)


def write_shard(path: Path, spec: SyntheticSpec, world: SyntheticWorld, shard: int) -> None:
    """Write one shard of the log; shards may be written in any order, or by many processes.

    Args:
        path: file to write or replace; its folder exists.
        spec: the whole data set.
        world: `SyntheticWorld.build` of ``spec``.
        shard: from 0 to ``spec.shards`` - 1.
    """
    first, last = (spec.rows * edge // spec.shards for edge in (shard, shard + 1))
    rng = draws(spec.seed, shard)
    write_table_blocks(
        path,
        (
            _log_rows(rng, spec, world, first + start, first + stop)
            for start, stop in _blocks(last - first)
        ),
    )


def _log_rows(
    rng: np.random.Generator, spec: SyntheticSpec, world: SyntheticWorld, first: int, last: int
) -> pa.Table:
    """Draw rows [first, last) of the log, columns `LOG_SCHEMA`."""
    size = last - first
    query = _pick(world.activity, rng.random(size) * world.activity[-1])
    cluster = world.query_cluster[query]
    is_inside = rng.random(size) < _IN_CLUSTER
    low = np.where(is_inside, world.cluster_bounds[cluster], 0.0)
    high = np.where(is_inside, world.cluster_bounds[cluster + 1], world.cluster_bounds[-1])
    item = world.item_order[_pick(world.popularity, low + rng.random(size) * (high - low))]
    # Each block has its own slice of the span, so sorting it sorts the whole log.
    at = np.sort(first + rng.random(size) * size)
    ts = START_S + (at * (SPAN_S / spec.rows)).astype(np.int64)
    is_home = rng.random(size) < _AT_HOME
    country = np.where(is_home, world.query_country[query], countries(rng, size))
    names = pa.array(COUNTRIES).take(pa.array(country))
    columns = [strings("q", query), strings("i", item), pa.array(ts), names]
    return pa.table(columns, schema=LOG_SCHEMA)


def _blocks(rows: int) -> list[tuple[int, int]]:
    """Cut ``rows`` into [start, stop) of at most `ROWS_PER_GROUP`; no rows are one empty block."""
    starts = range(0, max(rows, 1), ROWS_PER_GROUP)
    return [(start, min(start + ROWS_PER_GROUP, rows)) for start in starts]


def write_table_blocks(path: Path, blocks: Iterable[pa.Table]) -> None:
    """Write tables of one schema as the row groups of one Parquet file, one in memory at a time.

    The file appears whole under its name: it is written beside it and renamed.
    """
    partial = path.with_name(path.name + ".partial")
    stream = iter(blocks)
    block = next(stream)
    with closing(pq.ParquetWriter(partial, block.schema, compression="zstd")) as writer:
        writer.write_table(block, row_group_size=ROWS_PER_GROUP)
        for block in stream:
            writer.write_table(block, row_group_size=ROWS_PER_GROUP)
    partial.replace(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Write a data set from the command line; returns the exit code, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m twotower.datasets.synthetic")
    parser.add_argument("out", type=Path, help="folder to write")
    for size in ("rows", "queries", "items", "shards", "seed"):
        parser.add_argument(f"--{size}", type=int, required=True)
    parser.add_argument("--clusters", type=int, default=64)
    parser.add_argument("--exponent", type=float, default=1.0)
    try:
        write_synthetic(**vars(parser.parse_args(argv)))
    except DataError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
