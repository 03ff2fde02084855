"""Comparisons that runs which diverged leave without a number, and where they are told."""

import re
from pathlib import Path
from typing import Any

import pytest

from small_study import small_study
from twotower.core.seeding import derive
from twotower.core.storage import Store
from twotower.study.book import Book
from twotower.study.cells import RunSpec
from twotower.study.console import print_study
from twotower.study.document import Document
from twotower.study.headline import notes
from twotower.study.ledger import Ledger
from twotower.study.load import load_study
from twotower.study.uncompared import not_compared

Lost = set[tuple[str, float, int]]


def silent(folder: Path, lost: Lost, most: int = 1000, **plan: Any) -> list[dict[str, Any]]:
    """What is not compared where these final runs (method, fraction, seed) diverged."""
    study = load_study(small_study(folder, references=False, **plan))
    ledger = Ledger(Store(folder / "ledger"))
    book = Book(study, ledger)
    while (ready := list(book.ready())) and len(ledger.runs()) < most:
        for spec in ready:
            ledger.add(ended(spec, lost))
    return not_compared(study, book)


def ended(spec: RunSpec, lost: Lost) -> dict[str, Any]:
    value = (derive(0, spec.id) % 1000) / 1000
    line = {"id": spec.id, "kind": spec.kind, "value": value, "seed": spec.config.seed}
    where = spec.key.method, spec.key.fraction, spec.config.seed
    return {**line, "status": "diverged" if where in lost else "done"}


def pair(fraction: float, grows_from: float | None = None) -> dict[str, Any]:
    where = {"dataset": "small", "fraction": fraction, "method": "cfm", "against": "baseline"}
    return {**where, "grows_from": grows_from}


GROWTH = (0.5, 1.0)
"""The small study's second claim."""


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        (set[tuple[str, float, int]](), []),
        ({("cfm", 1.0, 5)}, []),
        ({("cfm", 1.0, 5), ("baseline", 1.0, 6)}, [pair(1.0), pair(*GROWTH)]),
        ({("cfm", 0.5, 5), ("baseline", 0.5, 6)}, [pair(0.5), pair(*GROWTH)]),
        ({("cfm", 0.5, 5), ("cfm", 0.5, 6)}, [pair(0.5), pair(*GROWTH)]),
        ({("cfm", 0.5, 5), ("baseline", 1.0, 6)}, [pair(*GROWTH)]),
        ({("weight=0.1", 1.0, 5)}, []),
    ],
)
def test_pairs_without_a_common_seed_are_named(
    tmp_path: Path, lost: Lost, told: list[dict[str, Any]]
) -> None:
    found = silent(tmp_path, lost)
    assert sorted(found, key=str) == sorted(told, key=str)


def test_what_has_not_ended_is_not_told(tmp_path: Path) -> None:
    assert silent(tmp_path, {("cfm", 1.0, 5), ("baseline", 1.0, 6)}, most=4) == []


def test_page_and_console_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = [pair(1.0), pair(0.005, 1.0)]
    tables: dict[str, Any] = {
        "complete": True,
        "methods": [{"name": "cfm", "title": "CFM"}, {"name": "baseline", "title": "Baseline"}],
        "not_compared": told,
    }
    said = notes(Document(tables))
    assert len(said) == 2
    for note, place in zip(said, ("on small:", "on small 0.5 % and small:"), strict=True):
        assert re.search(f"CFM and Baseline .*{place} runs diverged", note)
    row = {"method": "cfm", "dataset": "small", "fraction": 0.005, "metrics": {}, "seeds": [5]}
    found = {"seeds": [5], "contrasts": [], "baseline": "baseline", "primary": ["recall@10"]}
    found |= {"rows": [row], "claims": [], "runs_done": 20, "runs_total": 20, "folder": "out"}
    print_study({**tables, **found})
    printed = " ".join(capsys.readouterr().out.split())
    assert "small at 0.5% of the train pairs" in printed
    assert "not compared: cfm and baseline on small at 100%; runs diverged" in printed
    assert "on small at 0.5% less that at 100%; runs diverged" in printed
