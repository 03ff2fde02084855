"""The order of training rows: every batch is a pure function of (data.seed, epoch, step).

Row p of the keyed permutation (the order of the files) belongs to lane p mod L. A bucket is a range
of p and one file; a partition is one lane of one bucket. In an epoch every lane reads its
partitions in the same keyed order of the buckets, each partition shuffled by itself. Step s takes
rows [s*B/L, (s+1)*B/L) of every lane, so only the last step of an epoch can lack rows.

Shape letters:
    L lanes    R lanes of one rank    B rows of a global batch    H rows of the longest partition
"""

import numpy as np

from twotower.core.errors import ConfigError
from twotower.core.seeding import derive, permutation
from twotower.core.types import Int64


def lane_rows(first: int, rows: int, lanes: int) -> Int64:
    """Rows of each lane among positions ``first .. first + rows - 1``: int64 ``(L,)``."""
    lane = np.arange(lanes, dtype=np.int64)
    return (first + rows - lane + lanes - 1) // lanes - (first - lane + lanes - 1) // lanes


def rows_per_lane(lanes: int, batch_size: int) -> int:
    """B / L, the rows that every lane gives to a step; ConfigError unless it is a whole number."""
    if batch_size < lanes or batch_size % lanes:
        low = max(batch_size // lanes * lanes, lanes)
        raise ConfigError(
            f"train.batch_size: {batch_size} is not a multiple of the prepared data's lanes "
            f"({lanes}); take {low} or {low + lanes}"
        )
    return batch_size // lanes


def steps_per_epoch(num_rows: int, lanes: int, batch_size: int) -> int:
    """Steps in which the longest lane gives all of its rows."""
    longest = -(-num_rows // lanes)
    return -(-longest // rows_per_lane(lanes, batch_size))


def rank_lanes(lanes: int, rank: int, world: int) -> Int64:
    """Lanes that a rank serves, rising: those equal to ``rank`` modulo ``world``.

    Raises:
        ConfigError: there are more ranks than lanes, so that one would have none.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank must be in 0..{world - 1}, got {rank}")
    if world > lanes:
        raise ConfigError(
            f"train.num_workers: {world} workers, but the prepared data has {lanes} lanes; "
            f"take at most {lanes}"
        )
    return np.arange(rank, lanes, world, dtype=np.int64)


def bucket_order(seed: int, epoch: int, num_buckets: int) -> Int64:
    """Order in which an epoch reads the buckets: a permutation, the same for every lane."""
    return permutation(derive(seed, "bucket order", epoch), "buckets", num_buckets)


def partition_orders(key: int, first: int, rows: int, lanes: int, own: Int64) -> Int64:
    """Shuffles of a bucket's partitions, one after the other.

    The row at place t of the bucket (position ``first + t``) always sorts by the t-th draw, so a
    partition's shuffle doesn't depend on which other lanes are asked for.

    Args:
        key: seed of this bucket in this epoch, of `partition_key`.
        first: position of the bucket's first row.
        rows: rows of the bucket, all lanes together.
        lanes: L.
        own: int64 ``(R,)``, the lanes wanted.

    Returns:
        int64 ``(sum of lane_rows(first, rows, lanes)[own],)``: for each wanted lane in turn, a
        permutation of the row numbers of its partition.
    """
    height = -(-rows // lanes)  # H
    columns = (own - first) % lanes
    # NumPy promises that the raw stream of a bit generator never changes; its shuffles may.
    draws = np.random.Philox(key=key).random_raw(height * lanes)
    keys = np.ascontiguousarray(draws.reshape(height, lanes)[:, columns].T)  # (R, H)

    # The row number takes the low bits of its key: no two keys are equal, so any sorting algorithm
    # gives the same order, and a plain sort is several times faster than an argsort.
    low = np.uint64((1 << height.bit_length()) - 1)
    keys = (keys & ~low) | np.arange(height, dtype=np.uint64)
    lengths = lane_rows(first, rows, lanes)[own]
    is_row = np.arange(height) < lengths[:, None]
    keys[~is_row] = np.iinfo(np.uint64).max  # above every real key: the low bits never are all ones
    keys.sort(axis=1)
    return (keys & low).astype(np.int64)[is_row]


def partition_key(seed: int, epoch: int, bucket: int) -> int:
    """64-bit seed of the shuffles of a bucket's partitions in one epoch."""
    return derive(seed, "row order", epoch, bucket)
