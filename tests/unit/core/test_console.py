"""What is printed is what stands in the data, whatever it looks like and however wide it is."""

import io
import os
import pty
import re
from pathlib import Path

import pytest
from rich.table import Column, Table
from rich.text import Text

from twotower.core.console import console, plain, show

ROOT = Path(__file__).parents[3]
ODD = "runs/[bold]x[/y]:smile:/a [/b]"


def test_text_is_no_markup_wherever_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(f"head {ODD}", title=f"title {ODD}")
    table.add_row(f"cell {ODD}")
    show(table, f"line {ODD}", Text.assemble(("warning", "yellow"), f" {ODD}"))
    shown = capsys.readouterr().out
    for where in ("head", "title", "cell", "line", "warning"):
        assert f"{where} {ODD}" in shown


def test_paths_are_never_broken(capsys: pytest.CaptureFixture[str]) -> None:
    path = f"{'a rather long folder/' * 20}report.html"
    show(path, Text(path), f"next: {path}")
    assert capsys.readouterr().out.splitlines() == [path, path, f"next: {path}"]


def test_a_pipe_has_room_for_tables(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("x" * 60, "y" * 60, box=None)
    show(table)
    assert capsys.readouterr().out.count("\n") == 1


def test_a_terminal_has_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    parent, child = pty.openpty()
    with os.fdopen(child, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        assert console().width == 80
    os.close(parent)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert console().width == 140


def test_what_a_terminal_obeys_is_written_out() -> None:
    found = plain("a\nb\x1b[31m[/b] :smile: ünï\u202e", "dim")
    assert (found.plain, found.style) == ("a\\nb\\x1b[31m[/b] :smile: ünï\\u202e", "dim")
    assert plain("a\nb\x1b", keep="\n").plain == "a\nb\\x1b"


@pytest.mark.parametrize("folder", ["platform", "jobs", "tune"])
def test_consoles_are_made_in_one_place(folder: str) -> None:
    made = [
        path for path in (ROOT / folder).rglob("*.py") if re.search(r"Console\(", path.read_text())
    ]
    assert [path.name for path in made] == (["console.py"] if folder == "platform" else [])


def test_what_a_column_can_not_hold_goes_on_below(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("twotower.core.console._WIDTH", 80)
    key = f"data.features.item.{'architecture' * 9}"
    table = Table("key", Column("name", no_wrap=True, max_width=10), box=None)
    table.add_row(key, "n" * 70)
    show(table)
    _, *lines = capsys.readouterr().out.splitlines()
    assert "".join(line.split()[0] for line in lines) == key
    assert lines[0].rstrip().endswith("…"), "where a table asks for one line, it has one"
    assert "…" not in "".join(lines[1:])
