"""W1 straight from its generator's files, without `prepare`: for tables and workers of many sizes.

Batches are rows of the log in a shuffled order, repeats and all.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from twotower.bench.workload import RECORD
from twotower.core.storage import Store
from twotower.core.types import FIRST_ID, Batch, EncodedFeature, Int64, Ragged, Side
from twotower.objectives.group import parts
from twotower.training.state import TrainInputs

_CONTEXT = "country"


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of every global batch is read."""

    batch: int
    """Rows of the global batch."""

    rank: int = 0
    world: int = 1


class InMemory:
    """A workload that `workload` wrote, its features encoded: id i of a feature is row i + 2."""

    def __init__(self, folder: Path, *, seed: int = 0) -> None:
        """Read items, queries and log below a folder."""
        sizes = Store(folder).read_json(RECORD)["features"]
        home = folder / "w1"
        items, queries = (pq.read_table(home / f"{side}.parquet") for side in ("items", "queries"))
        log = pq.read_table(home / "log", columns=["query_id", "item_id", _CONTEXT])
        self._columns = {
            name: log[name].to_numpy().astype(np.int64)
            for name in ("query_id", "item_id", _CONTEXT)
        }
        self._order = np.random.default_rng(seed).permutation(len(log))
        distinct = {side: {name: n for name, n, _ in of} for side, of in sizes.items()}
        countries = distinct["query"].pop(_CONTEXT)
        self.inputs = TrainInputs(
            item=_side("item", items, distinct["item"]),
            query=_side("query", queries, distinct["query"]),
            query_items=np.full(len(queries), -1, dtype=np.int64),
            item_counts=np.ones(len(items), dtype=np.int64),
            context={_CONTEXT: (f"context.{_CONTEXT}", countries + FIRST_ID)},
        )

    def batch(self, step: int, share: Share, *, distinct: bool = False) -> Batch:
        """One rank's rows of the global batch of a step; the log is walked round and round.

        Args:
            step: from 0.
            share: batch size and rank.
            distinct: take as many different items, uniform over the catalogue, for the log's own.
        """
        sizes = parts(share.batch, share.world)
        first = sum(sizes[: share.rank])
        position = np.arange(first, first + sizes[share.rank], dtype=np.int64)
        rows = self._order[(step * share.batch + position) % len(self._order)]
        item = self._columns["item_id"][rows]
        if distinct:
            item = self._distinct(step, share.batch)[position]
        return Batch(
            query=self._columns["query_id"][rows],
            item=item,
            weight=np.ones(len(rows), dtype=np.float32),
            position=position,
            epoch=0,
            step=step,
            context={_CONTEXT: self._columns[_CONTEXT][rows] + FIRST_ID},
        )

    def _distinct(self, step: int, count: int) -> Int64:
        rng = np.random.default_rng(step)
        return rng.choice(self.inputs.item.num_rows, count, replace=False, shuffle=False)


def _side(side: str, table: pa.Table, distinct: dict[str, int]) -> Side:
    features = tuple(
        _feature(side, name, count, table[name].combine_chunks())
        for name, count in distinct.items()
    )
    return Side(len(table), features)


def _feature(side: str, name: str, distinct: int, column: pa.Array) -> EncodedFeature:
    table, rows = f"{side}.{name}", distinct + FIRST_ID
    if isinstance(column, pa.ListArray):
        values = column.flatten().to_numpy() + np.int32(FIRST_ID)
        ragged = Ragged(column.offsets.to_numpy().astype(np.int64), values)
        return EncodedFeature(name, "multi", table, rows, ragged)
    values = column.to_numpy() + np.int32(FIRST_ID)
    ragged = Ragged.from_lengths(np.ones(len(values), dtype=np.int64), values)
    return EncodedFeature(name, "categorical", table, rows, ragged)
