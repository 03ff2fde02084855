import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower.core.errors import ConfigError
from twotower.data import order

lanes_of = st.sampled_from([1, 4, 8, 64])


@given(st.integers(0, 500), st.integers(0, 500), lanes_of)
def test_lane_rows_count_positions_by_remainder(first: int, rows: int, lanes: int) -> None:
    expected = [sum(p % lanes == lane for p in range(first, first + rows)) for lane in range(lanes)]
    assert order.lane_rows(first, rows, lanes).tolist() == expected


@given(st.integers(0, 3000), lanes_of, st.integers(1, 5))
def test_steps_cover_the_longest_lane(rows: int, lanes: int, each: int) -> None:
    longest = max(len(range(lane, rows, lanes)) for lane in range(lanes))
    steps = order.steps_per_epoch(rows, lanes, each * lanes)
    assert (steps - 1) * each < longest <= steps * each or rows == steps == 0


@given(st.integers(0, 2**32 - 1), st.integers(0, 300), st.integers(1, 300), lanes_of)
def test_every_partition_is_permuted_by_itself(key: int, first: int, rows: int, lanes: int) -> None:
    every = order.partition_orders(key, first, rows, lanes, np.arange(lanes))
    parts = np.split(every, np.cumsum(order.lane_rows(first, rows, lanes))[:-1])
    for lane, part in enumerate(parts):
        assert sorted(part) == list(range(len(part)))
        alone = order.partition_orders(key, first, rows, lanes, np.array([lane]))
        assert alone.tolist() == part.tolist()


def test_a_partition_sorts_by_the_draws_of_its_rows() -> None:
    first, rows, lanes = 7, 30, 4
    draws = np.random.Philox(key=99).random_raw(32).tolist()
    flat = order.partition_orders(99, first, rows, lanes, np.arange(lanes))
    at = 0
    for lane in range(lanes):
        places = [t for t in range(rows) if (first + t) % lanes == lane]
        wanted = sorted(range(len(places)), key=lambda j, places=places: draws[places[j]])
        assert flat[at : at + len(places)].tolist() == wanted
        at += len(places)


def test_shuffles_differ_between_epochs_buckets_and_seeds() -> None:
    keys = {order.partition_key(s, e, b) for s in range(3) for e in range(3) for b in range(3)}
    assert len(keys) == 27
    orders = {tuple(order.bucket_order(s, e, 20)) for s in range(3) for e in range(3)}
    assert len(orders) == 9
    assert all(sorted(found) == list(range(20)) for found in orders)


def test_shuffle_is_uniform_over_the_orders_of_three_rows() -> None:
    lane = np.array([0])
    found = [tuple(order.partition_orders(key, 0, 3, 1, lane)) for key in range(1200)]
    counts = [found.count(one) for one in set(found)]
    assert len(counts) == 6
    # 200 expected each; chi-squared with 5 degrees of freedom is below 25.7 with p = 0.9999.
    assert sum((n - 200) ** 2 / 200 for n in counts) < 25.7


def test_ranks_share_the_lanes() -> None:
    for world in (1, 2, 3, 4, 7, 8):
        lanes = np.concatenate([order.rank_lanes(8, rank, world) for rank in range(world)])
        assert sorted(lanes) == list(range(8))


def test_more_workers_than_lanes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.num_workers: 5 .* 4 lanes"):
        order.rank_lanes(4, 0, 5)


def test_batch_size_off_the_lanes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size: 100 .*take 64 or 128"):
        order.steps_per_epoch(1000, 64, 100)
    with pytest.raises(ConfigError, match="take 64 or 128"):
        order.rows_per_lane(64, 32)
