import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from twotower.data.hashing import hash_strings
from twotower.serving.strings import Strings

TEXTS = st.lists(st.text(max_size=12), unique=True, max_size=30)


@given(TEXTS, st.lists(st.text(max_size=12), max_size=20))
def test_find_equals_a_dictionary(texts: list[str], others: list[str]) -> None:
    strings = Strings.of(texts)
    places = {text: n for n, text in enumerate(texts)}
    asked = [*others, *texts[::-1]]
    assert strings.find(asked).tolist() == [places.get(text, -1) for text in asked]
    assert list(strings) == texts
    assert strings[1:3] == texts[1:3]


@given(TEXTS)
def test_they_come_back_from_tensors_and_hash_as_prepared_data_does(texts: list[str]) -> None:
    again = Strings.from_tensors(Strings.of(texts).tensors("ids"), "ids")
    assert list(again) == texts
    assert again.hashes().tolist() == hash_strings(pa.array(texts, pa.string())).tolist()


def test_two_strings_of_one_hash_are_told_apart() -> None:
    strings = Strings.of(["a", "b", "c"])
    strings.__dict__["_sorted"] = (np.full(3, strings.hashes()[1]), np.array([0, 1, 2]))
    assert strings.find(["b"]).tolist() == [1]


def test_what_is_no_unicode_is_not_among_them() -> None:
    assert Strings.of(["a", "\ufffd"]).find(["\ud800", "a", "a\udfff"]).tolist() == [-1, 0, -1]
