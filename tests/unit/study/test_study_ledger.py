"""The ledger: packed ranks, notes that stand once, torn ends."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower.core.errors import DataError
from twotower.core.storage import Store
from twotower.study.ledger import FILE, Ledger, pack, unpack


@given(st.lists(st.integers(0, 65535), max_size=300))
def test_ranks_come_back(ranks: list[int]) -> None:
    packed = np.array(ranks, dtype=np.int32)
    assert np.array_equal(unpack(pack(packed)), packed)


def test_damaged_ranks_are_refused() -> None:
    text = pack(np.arange(100, dtype=np.int32))
    with pytest.raises(DataError, match="damaged"):
        unpack(text[:-7] + "0000000")


def test_shared_documents_stand_once(tmp_path: Path) -> None:
    ledger = Ledger(Store(tmp_path))
    first, again = ledger.note({"a": 1}), ledger.note({"a": 1})
    ledger.add({"id": "x", "config": first})
    assert first == again
    assert len((tmp_path / FILE).read_text().splitlines()) == 2
    reread = Ledger(Store(tmp_path))
    assert reread.noted(first) == {"a": 1}
    assert reread.run("x") == {"id": "x", "config": first}
    with pytest.raises(DataError, match="missing"):
        reread.noted("0" * 12)


def test_a_torn_end_is_dropped_before_the_next_line(tmp_path: Path) -> None:
    ledger = Ledger(Store(tmp_path))
    ledger.add({"id": "x"})
    with (tmp_path / FILE).open("a") as stream:
        stream.write('{"id": "y", "val')
    ledger = Ledger(Store(tmp_path))
    ledger.take_over()
    ledger.add({"id": "z"})
    assert [line["id"] for line in Ledger(Store(tmp_path)).runs()] == ["x", "z"]
