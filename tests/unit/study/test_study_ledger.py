"""The ledger: packed ranks, notes that stand once, torn ends."""

import json
from pathlib import Path
from typing import Any

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
    with pytest.raises(DataError, match=r"note 0{12} is missing.*version control, or delete"):
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


SEED: dict[str, Any] = {
    "id": "x",
    "kind": "seed",
    "method": "cfm",
    "status": "done",
    "value": 0.5,
    "curve": [[1, 0.5]],
    "test": {"recall@10": 0.4},
    "seconds": 3.1,
}


def written(folder: Path, *lines: dict[str, Any]) -> Ledger:
    (folder / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Ledger(Store(folder))


def test_a_run_that_stands_twice_alike_is_one(tmp_path: Path) -> None:
    elsewhere = {**SEED, "method": "same", "seconds": 9.0, "environment": "e"}
    older = {name: value for name, value in SEED.items() if name != "test"}
    ledger = written(tmp_path, SEED, SEED, elsewhere, older)
    assert ledger.runs() == [SEED]
    ledger.take_over()
    assert ledger.runs() == [SEED]


@pytest.mark.parametrize(
    ("name", "value"),
    [("value", 0.6), ("test", {"recall@10": 0.41}), ("curve", [[1, 0.4]]), ("status", "diverged")],
)
def test_a_run_with_two_results_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    other = {"id": "y", "value": 0.1}
    told = f"lines 2 and 4 are both of run x, and differ in {name};"
    with pytest.raises(DataError, match=told):
        written(tmp_path, {"note": "n", "value": 1}, SEED, other, {**SEED, name: value})


def test_a_line_that_lacks_a_key_is_named(tmp_path: Path) -> None:
    reference = {"id": "r", "references": {"popularity": {"test": {}}}}
    ledger = written(tmp_path, {"note": "n", "value": 1}, SEED, reference)
    told = rf"{FILE}, line 2 has no 'core_seconds'; put the line back from version control, or"
    line = ledger.run("x")
    assert line is not None
    with pytest.raises(DataError, match=told):
        line["core_seconds"]
    assert line.get("core_seconds") is None
    found = ledger.run("r")
    assert found is not None
    with pytest.raises(DataError, match="line 3, popularity has no 'ranks'"):
        found["references"]["popularity"]["ranks"]
    with pytest.raises(DataError, match="line 2 has no 'id'"):
        written(tmp_path, SEED, {"kind": "seed"})
    with pytest.raises(DataError, match="line 1 has no 'value'"):
        written(tmp_path, {"note": "n"})


def test_places_count_lines_that_are_no_lines(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"id": "a"}\n\0\0garbage\n{"kind": "seed"}\n')
    with pytest.raises(DataError, match="line 3 has no 'id'"):
        Ledger(Store(tmp_path))
