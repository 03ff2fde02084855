"""Files of lines: torn ends, cutting back, following from outside."""

from pathlib import Path
from typing import Any

import pytest

from twotower.core.storage import Store
from twotower.runtime.follow import Tail
from twotower.runtime.json_lines import JsonLines

LINE = {"step": 1, "loss": 0.1 + 0.2}


def test_lines_come_back_exactly(tmp_path: Path) -> None:
    lines = JsonLines(Store(tmp_path), "m.jsonl")
    assert lines.lines() == []
    lines.append(LINE)
    lines.append({"step": 2, "loss": None})
    lines.sync()
    assert lines.lines() == [LINE, {"step": 2, "loss": None}]


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_torn_end_is_no_line_and_is_dropped(tmp_path: Path, cut: int) -> None:
    lines = JsonLines(Store(tmp_path), "m.jsonl")
    lines.append(LINE)
    lines.append({"step": 2, "loss": 0.25})
    path = tmp_path / "m.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert lines.lines() == [LINE]
    lines.keep(lambda line: line["step"] < 9)
    lines.append({"step": 3})
    assert lines.lines() == [LINE, {"step": 3}]


@pytest.mark.parametrize("garbage", [bytes(30), b"\0" * 9 + b'": 2}', b"7", b'"x"', b"\xff\xfe"])
def test_what_a_crash_left_behind_the_last_sync_is_no_line_and_is_counted(
    tmp_path: Path, garbage: bytes
) -> None:
    lines = JsonLines(Store(tmp_path), "m.jsonl")
    lines.append({"step": 1})
    with (tmp_path / "m.jsonl").open("ab") as stream:
        stream.write(garbage + b"\n" + b'{"step": 3}\n{"ste')
    assert lines.lines() == [{"step": 1}, {"step": 3}]
    assert lines.keep(lambda line: line["step"] < 3) == 1
    assert lines.lines() == [{"step": 1}]
    assert lines.keep(lambda line: True) == 0


def test_keep_cuts_back(tmp_path: Path) -> None:
    lines = JsonLines(Store(tmp_path), "m.jsonl")
    for step in range(5):
        lines.append({"step": step})
    lines.keep(lambda line: line["step"] <= 2)
    assert [line["step"] for line in lines.lines()] == [0, 1, 2]


def test_an_object_store_gets_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "is_local", property(lambda _: False))  # same files, no appending
    lines = JsonLines(Store(tmp_path), "m.jsonl")
    lines.append(LINE)
    assert not (tmp_path / "m.jsonl").exists()
    lines.sync()
    again = JsonLines(Store(tmp_path), "m.jsonl")
    again.append({"step": 2})
    again.sync()
    assert again.lines() == [LINE, {"step": 2}]
    again.keep(lambda line: line["step"] == 2)
    again.append({"step": 3})
    again.sync()
    assert again.lines() == [{"step": 2}, {"step": 3}]


def test_a_tail_passes_on_whole_new_lines_once(tmp_path: Path) -> None:
    store, seen = Store(tmp_path), list[dict[str, Any]]()
    lines = JsonLines(store, "m.jsonl")
    lines.append({"step": 1})
    tail = Tail(store, "m.jsonl", seen.append)
    tail.look()
    assert seen == [], "what stood before is not new"
    lines.append({"step": 2})
    with (tmp_path / "m.jsonl").open("a") as stream:
        stream.write('{"step": 3')
    tail.look()
    assert seen == [{"step": 2}]
    with (tmp_path / "m.jsonl").open("a") as stream:
        stream.write("}\n")
    tail.look()
    tail.look()
    assert seen == [{"step": 2}, {"step": 3}]


def test_a_tail_outlives_a_file_that_is_cut_back(tmp_path: Path) -> None:
    store, seen = Store(tmp_path), list[dict[str, Any]]()
    lines = JsonLines(store, "m.jsonl")
    tail = Tail(store, "m.jsonl", seen.append)
    for step in (1, 2, 3):
        lines.append({"step": step})
    tail.look()
    lines.keep(lambda line: line["step"] == 1)
    tail.look()
    lines.append({"step": 2})
    tail.look()
    assert [line["step"] for line in seen] == [1, 2, 3, 2]
