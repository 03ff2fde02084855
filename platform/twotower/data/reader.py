"""Batches of one rank, read bucket by bucket from prepared data in the order of `order`.

One thread reads and shuffles the next bucket while this one is served, so memory holds two buckets
and what the lanes carry over, whatever the size of the data.

Shape letters:
    R lanes of this rank    M rows a lane gives to a step    b = R * M rows of a local batch
    K rows of one bucket in this rank's lanes
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower.core.errors import DataError
from twotower.core.types import Batch, Int64, Ragged
from twotower.data import order
from twotower.data.prepared import Prepared

CACHE_BYTES = 64 << 20
"""Most bytes of train rows that a reader keeps in memory between epochs. Chosen, not tuned."""

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of this rank's lanes, lane after lane."""

    columns: Columns
    lengths: Int64
    """int64 ``(R,)``: rows of each lane."""


class BatchReader:
    """Batches of one rank. Any rank of any world cuts the same global batches."""

    def __init__(
        self,
        prepared: Prepared,
        *,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        history: int | None = None,
    ) -> None:
        """Plan the reading; rows are read by `batches`.

        Args:
            prepared: the dataset.
            batch_size: rows of the GLOBAL batch, a multiple of the dataset's lanes.
            rank: this worker, in ``0 .. world - 1``.
            world: workers, at most as many as lanes.
            history: most items of a row's history (`max_values` of the feature); None = no history.

        Raises:
            ConfigError: batch size or workers don't fit the lanes.
            DataError: a history is asked for and the data was prepared without.
        """
        self._prepared = prepared
        self._rows_per_lane = order.rows_per_lane(prepared.lanes, batch_size)
        self._lanes = order.rank_lanes(prepared.lanes, rank, world)
        self.steps_per_epoch = order.steps_per_epoch(prepared.num_train, prepared.lanes, batch_size)
        """Steps of every epoch, the same on all ranks."""
        counts = [order.lane_rows(b.first, b.rows, prepared.lanes) for b in prepared.buckets]
        self._counts = np.array(counts, dtype=np.int64).reshape(-1, prepared.lanes)[:, self._lanes]
        self._history = None if history is None else _History(prepared, history)
        self._cache: dict[int, Columns] | None = None
        if prepared.num_train * _row_bytes(prepared) // world <= CACHE_BYTES:
            self._cache = {}

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Batches of one epoch, from a step of it on; earlier buckets are not read.

        Closing the iterator ends its thread.

        Args:
            epoch: from 0; fixes the order.
            first_step: step inside the epoch to begin with, at most `steps_per_epoch`.

        Raises:
            DataError: (while iterating) a file is missing or damaged; it is named.
        """
        if epoch < 0 or not 0 <= first_step <= self.steps_per_epoch:
            raise ValueError(
                f"no step {first_step} in epoch {epoch}: an epoch has {self.steps_per_epoch} steps"
            )
        return self._batches(epoch, first_step)

    def _batches(self, epoch: int, step: int) -> Iterator[Batch]:
        if step == self.steps_per_epoch:
            return
        size = self._rows_per_lane
        buckets = order.bucket_order(self._prepared.seed, epoch, len(self._counts))
        ends = self._counts[buckets].cumsum(axis=0)  # rows of each lane once a bucket is read
        # The last bucket is always read: a rank whose lanes are all one row short owes the others
        # a last batch even where it holds padding only.
        first = int((ends[:-1] <= step * size).all(axis=1).sum())
        begin = ends[first - 1] if first else np.zeros_like(self._lanes)
        held = _Rows({}, np.zeros_like(self._lanes))
        for place, rows in enumerate(self._read_ahead(epoch, buckets[first:]), first):
            ready = _join(held, rows)
            last = place == len(buckets) - 1
            until = self.steps_per_epoch if last else int(ends[place].min()) // size
            starts = np.cumsum(ready.lengths) - ready.lengths
            while step < until:
                yield self._cut(ready, starts, step * size - begin, epoch, step)
                step += 1
            used = np.clip(step * size - begin, 0, ready.lengths)
            held, begin = _drop(ready, starts, used), begin + used

    def _read_ahead(self, epoch: int, buckets: Int64) -> Iterator[_Rows]:
        """Shuffled rows of the buckets, each read while the one before is used."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as thread:
            coming: Future[_Rows] | None = None
            for bucket in [*buckets.tolist(), None]:
                ready = coming
                coming = None if bucket is None else thread.submit(self._read, epoch, bucket)
                if ready is not None:
                    yield ready.result()

    def _read(self, epoch: int, index: int) -> _Rows:
        """This rank's rows of one bucket, every partition shuffled for the epoch."""
        bucket = self._prepared.buckets[index]
        columns = self._cache.get(index) if self._cache is not None else None
        if columns is None:
            columns = self._prepared.read_bucket(bucket, self._lanes)
            if self._cache is not None:
                self._cache[index] = columns
        key = order.partition_key(self._prepared.seed, epoch, index)
        shuffle = order.partition_orders(
            key, bucket.first, bucket.rows, self._prepared.lanes, self._lanes
        )
        lengths = self._counts[index]
        shuffle += np.repeat(np.cumsum(lengths) - lengths, lengths)
        return _Rows({name: column[shuffle] for name, column in columns.items()}, lengths)

    def _cut(self, rows: _Rows, starts: Int64, offset: Int64, epoch: int, step: int) -> Batch:
        """One batch: rows ``offset .. offset + M - 1`` of every lane, padded past a lane's end."""
        size = self._rows_per_lane
        place = offset[:, None] + np.arange(size)  # (R, M)
        is_row = (place < rows.lengths[:, None]).ravel()
        index = (starts[:, None] + place).ravel()
        taken = {name: _take(column, index, is_row) for name, column in rows.columns.items()}
        query, item = taken["query"].astype(np.int64), taken["item"].astype(np.int64)
        return Batch(
            query=query,
            item=item,
            weight=taken["weight"],
            position=(self._lanes[:, None] * size + np.arange(size)).ravel(),
            epoch=epoch,
            step=epoch * self.steps_per_epoch + step,
            context={
                name: taken[f"c.{name}"].astype(np.int64)
                for name in self._prepared.features.context
            },
            history=self._history.of(query, item, taken["history_from"], is_row)
            if self._history is not None
            else None,
        )


class _History:
    """Train positives by query, cut to what each row may know."""

    def __init__(self, prepared: Prepared, max_values: int) -> None:
        if not prepared.history_tables():
            raise DataError(
                f"{prepared.store.uri}: prepared without a history feature; "
                "add one to data.features.query and prepare again"
            )
        self._positives = prepared.positives("train", np.int32)
        self._max_values = max_values

    def of(
        self, query: Int64, item: Int64, history_from: NDArray[np.int32], is_row: NDArray[np.bool_]
    ) -> Ragged:
        """Histories of a batch's rows.

        Args:
            query: int64 ``(b,)``.
            item: int64 ``(b,)``: the row's own item, never in its history.
            history_from: int32 ``(b,)``: place in the query's positives where the older ones begin.
            is_row: bool ``(b,)``: false where the row is padding, whose history is empty.

        Returns:
            Item rows int64, newest first, at most ``max_values`` a row.
        """
        starts = self._positives.offsets[query] + history_from
        # Pairs are distinct, so one value more than wanted makes up for the own item.
        lengths = np.minimum(self._positives.offsets[query + 1] - starts, self._max_values + 1)
        lengths = np.where(is_row, lengths, 0)
        offsets = Ragged.from_lengths(lengths, lengths[:0]).offsets
        values = self._positives.values[_ranges(starts, lengths)]
        keep = values != np.repeat(item, lengths)
        kept = np.concatenate([[0], np.cumsum(keep)])
        rank = kept[:-1] - np.repeat(kept[offsets[:-1]], lengths)
        keep &= rank < self._max_values
        kept = np.concatenate([[0], np.cumsum(keep)])
        return Ragged(kept[offsets], values[keep].astype(np.int64))


def _join(held: _Rows, new: _Rows) -> _Rows:
    """Each lane's held rows, then its new ones."""
    if not held.lengths.any():
        return new
    lengths = held.lengths + new.lengths
    starts = np.cumsum(lengths) - lengths
    to_held, to_new = _ranges(starts, held.lengths), _ranges(starts + held.lengths, new.lengths)
    columns: Columns = {}
    for name, column in new.columns.items():
        columns[name] = np.empty(len(to_held) + len(to_new), dtype=column.dtype)
        columns[name][to_held] = held.columns[name]
        columns[name][to_new] = column
    return _Rows(columns, lengths)


def _drop(rows: _Rows, starts: Int64, used: Int64) -> _Rows:
    """What each lane has left past its first ``used`` rows; a copy, so that the rest is freed."""
    left = rows.lengths - used
    index = _ranges(starts + used, left)
    return _Rows({name: column[index] for name, column in rows.columns.items()}, left)


def _take(column: NDArray[Any], index: Int64, is_row: NDArray[np.bool_]) -> NDArray[Any]:
    """Values at an index, 0 where there is no row."""
    if is_row.all():
        return column[index]
    taken = np.zeros(len(index), dtype=column.dtype)
    taken[is_row] = column[index[is_row]]
    return taken


def _ranges(starts: Int64, lengths: Int64) -> Int64:
    """``arange(starts[i], starts[i] + lengths[i])`` for each i, one after the other."""
    shift = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return shift + np.arange(len(shift), dtype=np.int64)


def _row_bytes(prepared: Prepared) -> int:
    """Bytes of one train row in memory: query, item, weight, context and history_from."""
    return 4 * (3 + len(prepared.features.context) + bool(prepared.history_tables()))
