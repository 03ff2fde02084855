import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower.core.errors import DataError
from twotower.data import statistics
from twotower.data.statistics import TimeHistogram, degree_histogram, top_share

TIMES = st.lists(st.lists(st.integers(-(2**40), 2**40), min_size=1), min_size=1, max_size=5)


@given(TIMES)
def test_histograms_of_parts_merge_to_that_of_the_whole(parts: list[list[int]]) -> None:
    arrays = [np.array(part, dtype=np.int64) for part in parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_MOST_BUCKETS", 4)
        whole = TimeHistogram.of(np.concatenate(arrays))
        merged = TimeHistogram.merge([TimeHistogram.of(array) for array in arrays])
    assert merged.shift == whole.shift
    assert merged.buckets.tolist() == whole.buckets.tolist()
    assert merged.counts.tolist() == whole.counts.tolist()
    assert len(whole.buckets) <= 4


def test_instants_leave_the_shares() -> None:
    times = np.random.default_rng(0).integers(1_700_000_000, 1_710_000_000, 200_000)
    validation, test = TimeHistogram.of(times).instants(0.1, 0.2)
    assert abs((times >= test).mean() - 0.2) < 0.001
    assert abs((times >= validation).mean() - 0.3) < 0.001


def test_instants_are_apart_even_for_few_times() -> None:
    histogram = TimeHistogram.of(np.array([5, 5, 5, 6, 7]))
    assert histogram.instants(0.01, 0.01) == (6, 7)
    with pytest.raises(DataError, match="three distinct times"):
        TimeHistogram.of(np.array([5, 6])).instants(0.1, 0.1)


def test_degrees_are_counted_in_bins_that_double() -> None:
    bins = degree_histogram(np.array([0, 1, 1, 2, 3, 4, 7, 8]))
    assert [(b["low"], b["high"], b["count"]) for b in bins] == [
        (0, 1, 1),
        (1, 2, 2),
        (2, 4, 2),
        (4, 8, 2),
        (8, 16, 1),
    ]
    assert top_share(np.array([7, 1, 1, 1]), 0.1) == 0.7
    assert top_share(np.zeros(4, np.int64), 0.1) == 0.0
