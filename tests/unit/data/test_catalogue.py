import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower.core.errors import DataError
from twotower.data.catalogue import Catalogue, build_catalogue, group_hashes
from twotower.data.hashing import hash_strings


@given(st.lists(st.text(max_size=12), unique=True), st.lists(st.text(max_size=12)))
def test_lookup_equals_a_dict(ids: list[str], wanted: list[str]) -> None:
    catalogue = build_catalogue(pa.chunked_array([pa.array(ids, pa.string())]), "items")
    rows = {text: row for row, text in enumerate(catalogue.ids.to_pylist())}
    assert list(rows) == sorted(ids, key=str.encode)
    assert [ids[n] for n in catalogue.source_rows] == list(rows)
    values = pa.array(wanted + ids, pa.string())
    found = catalogue.lookup(values, hash_strings(values))
    assert found.tolist() == [rows.get(text, -1) for text in wanted + ids]


def test_ids_that_share_a_hash_are_told_apart() -> None:
    ids = pa.array(["a", "b", "c", "d"])
    hashes = np.array([5, 5, 5, 9], dtype=np.uint64)
    same = Catalogue(ids, hashes, hashes, np.arange(4, dtype=np.int32), np.arange(4), 3)
    wanted = pa.array(["c", "b", "x", "a", "d"])
    found = same.lookup(wanted, np.array([5, 5, 5, 5, 9], dtype=np.uint64))
    assert found.tolist() == [2, 1, -1, 0, 3]


def test_double_ids_are_named() -> None:
    with pytest.raises(DataError, match="2 ids stand more than once \\('b', 'a'\\)"):
        build_catalogue(pa.chunked_array([["b", "a", "b", "c", "a"]]), "items")


def test_an_item_without_a_group_is_alone() -> None:
    catalogue = build_catalogue(pa.chunked_array([["i3", "i1", "i2", "i0"]]), "items")
    hashes, names = group_hashes(catalogue, pa.chunked_array([["g", None, "g", None]]))
    assert names.to_pylist() == [None, None, "g", "g"]
    assert hashes[2] == hashes[3]
    assert len(set(hashes.tolist())) == 3
