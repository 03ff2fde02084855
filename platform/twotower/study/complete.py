"""A study from its file to its page: what `twotower study` and jobs/study.py call."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twotower.core.errors import RunError, StoppedError, TwotowerError
from twotower.core.storage import Store
from twotower.runtime.prepare import prepare
from twotower.study.asked import part_of
from twotower.study.book import Book
from twotower.study.claims import hold
from twotower.study.document import Document
from twotower.study.execute import StudyProgress, Tell, run_study
from twotower.study.grounds import grounded
from twotower.study.ledger import Ledger
from twotower.study.load import Study, load_study
from twotower.study.overview import overview, standing_alone
from twotower.study.page import write_page
from twotower.study.rules import require_todays
from twotower.study.tables import build

TABLES, CLAIMS, PAGE = "tables.json", "claims.json", "index.html"
PICTURE = "gains.svg"
"""The overview of gains by itself, for a README."""

_WRITE_EVERY_S = 600.0
"""Seconds between pages while a study goes on."""


def complete(
    path: Path,
    tell: Tell,
    *,
    only: Sequence[str] = (),
    most: int | None = None,
    run: bool = True,
    verbose: bool = False,
) -> dict[str, Any]:
    """Run what a study lacks, then write its tables, claims and page beside the ledger.

    They are written now and then while it goes on, and at the end however it ends.

    Args:
        path: the study's file.
        tell: hears of its progress.
        only: names of what may be started now, as `part_of` takes them; none = all. Tables, claims
            and page are of the whole plan whatever is started.
        most: runs at once; None = as many as fit.
        run: false only writes the page of what the ledger holds.
        verbose: let Ray's own messages reach the console.

    Returns:
        `tables.json` with `claims` and `folder` beside.

    Raises:
        InputError: the study's file, a name or the ledger can't be used, or another process has it.
        RunError, StoppedError: as `run_study`.
    """
    plan = load_study(path)
    asked = part_of(plan, only) if only else None
    store = Store(plan.plan.folder)
    store.require_writable("folder")
    ledger = Ledger(store)
    require_todays(plan, ledger, Book(plan, ledger))
    if run:
        heard = _written_meanwhile(tell, lambda: _write(plan, ledger, store, resamples=0))
        try:
            run_study(plan, ledger, heard, asked=asked, most=most, verbose=verbose)
        except (RunError, StoppedError):
            with suppress(TwotowerError):
                _write(plan, ledger, store, resamples=0)
            raise
        measured = {(line["dataset"], line["fraction"]) for line in ledger.runs()}
        for place, config in plan.places().items():
            if place in measured:  # perhaps elsewhere: a ledger may come from another machine
                prepare(config, verbose=verbose)
    return _write(plan, ledger, store)


def _written_meanwhile(tell: Tell, write: Callable[[], object]) -> Tell:
    """Pass on what is told, and write the page when the last one is old."""
    written = time.monotonic()

    def heard(progress: StudyProgress) -> None:
        nonlocal written
        tell(progress)
        if time.monotonic() > written + _WRITE_EVERY_S:
            with suppress(TwotowerError):  # told at the end, where it matters
                write()
            written = time.monotonic()

    return heard


def _write(
    study: Study, ledger: Ledger, store: Store, *, resamples: int = 10_000
) -> dict[str, Any]:
    """Write tables, claims and page of what the ledger holds."""
    tables, contrasts = build(study, ledger, resamples)
    claims = grounded(study.plan, tables, hold(study, contrasts))
    store.write_json(TABLES, tables)
    store.write_json(CLAIMS, claims)
    write_page(tables, claims, f"{study.plan.folder}/{PAGE}")
    if (picture := overview(Document(tables))) is not None:
        store.write_bytes(PICTURE, standing_alone(picture).encode())
    return {**tables, "claims": claims, "folder": study.plan.folder}
