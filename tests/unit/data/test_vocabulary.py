from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from twotower.core.data_config import Feature
from twotower.core.types import FIRST_ID, OOV_ID, Ragged
from twotower.data import features
from twotower.data.vocabulary import Vocabulary

LISTS = st.lists(st.lists(st.sampled_from("abcdefg"), max_size=4), min_size=1, max_size=12)


@given(LISTS, st.integers(1, 3), st.one_of(st.none(), st.integers(1, 4)), st.integers(0, 3))
def test_ids_are_those_of_a_counter(
    lists: list[list[str]], min_count: int, max_size: int | None, buckets: int
) -> None:
    feature = Feature(kind="multi", min_count=min_count, max_size=max_size, hash_buckets=buckets)
    weights = np.arange(1, len(lists) + 1)
    raw = features.raw_of(
        pa.chunked_array([lists], pa.list_(pa.string())), feature, np.arange(len(lists))
    )
    known = features.fit(raw, feature, weights)
    counts: Counter[str] = Counter()
    for row, weight in zip(lists, weights.tolist(), strict=True):
        for text in row:
            counts[text] += weight
    kept = sorted((t for t in counts if counts[t] >= min_count), key=lambda t: (-counts[t], t))
    kept = kept[:max_size]
    assert known.values.to_pylist() == kept
    assert known.counts.tolist() == [counts[text] for text in kept]
    assert known.size == 2 + len(kept) + buckets
    encoded = features.encode(raw, known)
    for row, text_row in enumerate(lists):
        for text, number in zip(text_row, encoded.ids.row(row).tolist(), strict=True):
            if text in kept:
                assert number == FIRST_ID + kept.index(text)
            elif buckets:
                assert FIRST_ID + len(kept) <= number < known.size
            else:
                assert number == OOV_ID
    stored = Vocabulary.from_table(known.to_table(), buckets)
    assert (stored.encode(raw.values) == known.encode(raw.values)).all()


def test_rows_are_taken_from_the_source_and_missing_ones_are_empty() -> None:
    column = pa.chunked_array([["x", None, "y", "unused"]])
    raw = features.raw_of(column, Feature(kind="categorical"), np.array([2, -1, 0, 1, 2]))
    assert raw.values.to_pylist() == ["x", "y"]
    assert [raw.codes.row(row).tolist() for row in range(5)] == [[1], [], [0], [], [1]]
    known = features.fit(raw, Feature(kind="categorical"), np.array([1, 9, 1, 9, 1]))
    encoded = features.encode(raw, known)
    assert encoded.column("categorical").to_pylist() == [2, 0, 3, 0, 2]
    assert encoded.summary["missing_share"] == 0.4


def test_a_value_without_weight_is_out_of_vocabulary() -> None:
    raw = features.raw_of(
        pa.chunked_array([["seen", "test only"]]), Feature(kind="categorical"), np.arange(2)
    )
    known = features.fit(raw, Feature(kind="categorical"), np.array([3, 0]))
    assert features.encode(raw, known).column("categorical").to_pylist() == [2, OOV_ID]


def test_numbers_are_standardised_and_missing_ones_average() -> None:
    column = pa.chunked_array([[1.0, 3.0, None, 100.0]])
    raw = features.raw_of(column, Feature(kind="dense"), np.arange(4))
    encoded = features.standardise(raw, np.array([1, 1, 1, 0]))
    stored = encoded.column("dense").to_pylist()
    assert stored[:3] == [-1.0, 1.0, 0.0]
    assert stored[3] == 98.0
    assert encoded.summary["mean"] == 2.0
    assert features.standardise(raw, np.zeros(4, np.int64)).summary["deviation"] == 1.0


def test_an_empty_bag_is_an_empty_row() -> None:
    raw = features.raw_of(
        pa.chunked_array([[["a"], None, []]], pa.list_(pa.string())),
        Feature(kind="multi"),
        np.arange(3),
    )
    encoded = features.encode(raw, features.fit(raw, Feature(kind="multi"), np.ones(3, np.int64)))
    assert encoded.column("multi").to_pylist() == [[2], [], []]
    assert isinstance(encoded.ids, Ragged)
