import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower.data.columns import Values, bags, factorize, integers, numbers, sort_values

TEXTS = st.lists(st.one_of(st.none(), st.sampled_from(["", "a", "b", "äö", "long text"])))


def decode(codes: Any, values: pa.Array) -> list[str | None]:
    texts = values.to_pylist()
    return [None if code < 0 else texts[code] for code in codes]


@given(TEXTS, st.integers(0, 4))
def test_factorize_is_reversible(texts: list[str | None], start: int) -> None:
    for array in (
        pa.array(texts, pa.string())[start:],
        pa.array(texts, pa.string()).dictionary_encode()[start:],
        pa.chunked_array([pa.array(texts, pa.string()).dictionary_encode()[start:]] * 2),
    ):
        coded = factorize(array)
        assert decode(coded.codes, coded.values) == array.to_pylist()
        assert sorted(set(coded.codes.tolist()) - {-1}) == list(range(len(coded.values)))
        ordered = sort_values(coded)
        assert decode(ordered.codes, ordered.values) == array.to_pylist()
        assert ordered.values.to_pylist() == sorted({t for t in array.to_pylist() if t is not None})


def test_a_null_in_the_dictionary_is_null() -> None:
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["x", None]))
    assert factorize(array).codes.tolist() == [0, -1, -1]


@pytest.mark.parametrize(
    ("values", "texts"),
    [([7, None, 3], ["7", None, "3"]), ([True, False], ["true", "false"]), ([None], [None])],
)
def test_other_types_become_text(values: list[Any], texts: list[str | None]) -> None:
    coded = factorize(pa.array(values))
    assert decode(coded.codes, coded.values) == texts


@given(st.lists(st.one_of(st.none(), TEXTS)), st.integers(1, 3))
def test_bags_keep_the_first_values(lists: list[list[str | None] | None], most: int) -> None:
    lengths, coded = bags(pa.array(lists, pa.list_(pa.string())), most)
    expected = [[t for t in row or [] if t is not None][:most] for row in lists]
    assert lengths.tolist() == [len(row) for row in expected]
    assert decode(coded.codes, coded.values) == [text for row in expected for text in row]


@given(st.lists(TEXTS))
def test_codes_of_known_values_never_change(batches: list[list[str | None]]) -> None:
    known = Values()
    encoded = [known.encode(factorize(pa.array(texts, pa.string()))) for texts in batches]
    assert len(set(known.known.to_pylist())) == len(known.known)
    for codes, texts in zip(encoded, batches, strict=True):
        assert decode(codes, known.known) == texts


def test_numbers_and_instants() -> None:
    assert np.isnan(numbers(pa.array([1.0, None, float("inf")]))).tolist() == [False, True, True]
    day = datetime.date(1970, 1, 3)
    assert integers(pa.array([day])).tolist() == [2]
    moment = datetime.datetime(1970, 1, 1, 0, 0, 1)
    assert integers(pa.array([moment], pa.timestamp("ms"))).tolist() == [1000]
