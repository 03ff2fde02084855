"""What serving makes of raw values, against what preparing made of the same column."""

from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower.core.data_config import Feature
from twotower.core.errors import InputError
from twotower.data import features as prepared
from twotower.serving.features import FeatureSpec, Vocabulary, require_columns
from twotower.serving.strings import Strings

WORDS = st.sampled_from(["", "a", "b", "bb", "ünter", "a longer word of more than eight bytes"])
COLUMNS = {
    "text": (pa.string(), WORDS),
    "integers": (pa.int32(), st.integers(-3, 3)),
    "booleans": (pa.bool_(), st.booleans()),
    "dates": (pa.date32(), st.dates(date(2020, 1, 1), date(2020, 1, 4))),
}


@pytest.mark.parametrize("name", COLUMNS)
@given(st.data(), st.integers(1, 3), st.sampled_from([0, 1, 5]), st.booleans())
def test_ids_equal_those_of_prepared_data(
    name: str, data: st.DataObject, min_count: int, hash_buckets: int, multi: bool
) -> None:
    kind, values = COLUMNS[name]
    if multi and name == "dates":
        multi = False
    one = st.one_of(st.none(), values)
    row = st.one_of(st.none(), st.lists(one, max_size=5)) if multi else one
    column: list[Any] = data.draw(st.lists(row, min_size=1, max_size=30))
    feature = Feature(
        kind="multi" if multi else "categorical",
        min_count=min_count,
        hash_buckets=hash_buckets,
        max_values=3,
    )
    rows = np.arange(len(column))
    arrow = pa.chunked_array([pa.array(column, pa.list_(kind) if multi else kind)])
    raw = prepared.raw_of(arrow, feature, rows)
    known = prepared.fit(raw, feature, np.ones(len(column), dtype=np.int64))
    expected = prepared.encode(raw, known).ids

    spec = FeatureSpec("f", feature.kind, "c", "t", "v", feature.max_values)  # pyright: ignore[reportArgumentType]
    vocabulary = Vocabulary(Strings.of(known.values.to_pylist()), hash_buckets)
    found = spec.ids([{"c": value} for value in column], vocabulary)
    for r in range(len(column)):
        assert found.row(r).tolist() == (expected.row(r).tolist() or [0])


@given(st.lists(st.one_of(st.none(), st.floats(width=32)), min_size=1, max_size=20))
def test_numbers_equal_those_of_prepared_data(column: list[float | None]) -> None:
    raw = prepared.raw_of(
        pa.chunked_array([pa.array(column, pa.float32())]),
        Feature(kind="dense"),
        np.arange(len(column)),
    )
    encoded = prepared.standardise(raw, np.ones(len(column), dtype=np.int64))
    about = encoded.summary
    spec = FeatureSpec("f", "dense", "c", mean=about["mean"], deviation=about["deviation"])
    found = spec.numbers([{"c": value} for value in column])
    assert found.tobytes() == encoded.column("dense").to_numpy().tobytes()


def test_ids_of_a_table_sorted_by_frequency_come_with_the_vocabulary() -> None:
    known = Vocabulary(Strings.of(["x", "y"]), 1, np.array([2, 4, 3], dtype=np.int32))
    assert known.encode(["y", "other", "x"]).tolist() == [4, 3, 2]


def test_values_of_the_wrong_type_are_named() -> None:
    known = Vocabulary(Strings.of(["x"]), 0)
    for value in (1.5, b"x", datetime(2020, 1, 1), ["x"]):
        with pytest.raises(InputError, match="column 'c'"):
            FeatureSpec("f", "categorical", "c").ids([{"c": value}], known)
    with pytest.raises(InputError, match="must be a list"):
        FeatureSpec("f", "multi", "c").ids([{"c": "x"}], known)
    with pytest.raises(InputError, match="must be a number"):
        FeatureSpec("f", "dense", "c").numbers([{"c": "many"}])
    with pytest.raises(InputError, match=r"record 1: has none of the columns a, b; it has z"):
        require_columns([{"a": 1}, {"z": 1}], ["a", "b"])


def test_values_that_nothing_holds_are_refused_in_one_line() -> None:
    known = Vocabulary(Strings.of(["x"]), 3)
    number = FeatureSpec("f", "dense", "c", mean=1.0, deviation=2.0)
    category, bag = FeatureSpec("f", "categorical", "c"), FeatureSpec("f", "multi", "c")
    for value in (10**400, 10**5000, -(10**400), {}, [1.0], 1e39, -3e38 * 10, complex(1, 1)):
        with pytest.raises(InputError, match="column 'c'") as caught:
            number.numbers([{"c": value}])
        assert len(str(caught.value)) < 300
    for value in ("\ud800", 10**5000, float("nan"), {}, b"x" * 9999):
        with pytest.raises(InputError, match="column 'c'") as caught:
            category.ids([{"c": value}], known)
        assert str(caught.value).isascii()
        assert len(str(caught.value)) < 300
    for value in (np.zeros((2, 2)), np.array("x"), {"x"}, ["\ud800"], 5, bytearray(b"x")):
        with pytest.raises(InputError, match="column 'c'"):
            bag.ids([{"c": value}], known)
    assert category.ids([{"c": 10**400}], known).lengths().tolist() == [1]
    assert number.numbers([{"c": float("inf")}, {"c": None}, {"c": 5}]).tolist() == [0, 0, 2]
    for record in (5, "x", None, ["c"]):
        with pytest.raises(InputError, match=r"record 0: .* must be a mapping"):
            require_columns([record], ["c"])  # pyright: ignore[reportArgumentType]
