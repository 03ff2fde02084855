"""A study from its file to its page: what `twotower study` and jobs/study.py call."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from twotower.core.errors import RunError, StoppedError, TwotowerError
from twotower.core.storage import Store
from twotower.runtime.prepare import prepare
from twotower.study.claims import hold
from twotower.study.document import Document
from twotower.study.execute import StudyProgress, Tell, run_study
from twotower.study.ledger import Ledger
from twotower.study.load import load_study
from twotower.study.overview import overview, standing_alone
from twotower.study.page import write_page
from twotower.study.tables import build

TABLES, CLAIMS, PAGE = "tables.json", "claims.json", "index.html"
PICTURE = "gains.svg"
"""The overview of gains by itself, for a README."""

_WRITE_EVERY_S = 600.0
"""Seconds between pages while a study goes on."""


def complete(
    path: Path, tell: Tell, *, most: int | None = None, run: bool = True, verbose: bool = False
) -> dict[str, Any]:
    """Run what a study lacks, then write its tables, claims and page beside the ledger.

    They are written now and then while it goes on, and at the end however it ends.

    Args:
        path: the study's file.
        tell: hears of its progress.
        most: runs at once; None = as many as fit.
        run: false only writes the page of what the ledger holds.
        verbose: let Ray's own messages reach the console.

    Returns:
        `tables.json` with `claims` and `folder` beside.
    """
    plan = load_study(path)
    store = Store(plan.plan.folder)
    store.require_writable("folder")
    ledger = Ledger(store)
    written = time.monotonic()

    def heard(progress: StudyProgress) -> None:
        nonlocal written
        tell(progress)
        if time.monotonic() > written + _WRITE_EVERY_S:
            with suppress(TwotowerError):  # told at the end, where it matters
                write(resamples=0)
            written = time.monotonic()

    def write(resamples: int = 10_000) -> dict[str, Any]:
        tables, contrasts = build(plan, ledger, resamples)
        claims = hold(plan, contrasts)
        store.write_json(TABLES, tables)
        store.write_json(CLAIMS, claims)
        write_page(tables, claims, f"{plan.plan.folder}/{PAGE}")
        if (picture := overview(Document(tables))) is not None:
            store.write_bytes(PICTURE, standing_alone(picture).encode())
        return {**tables, "claims": claims, "folder": plan.plan.folder}

    if run:
        try:
            run_study(plan, ledger, heard, most=most, verbose=verbose)
        except (RunError, StoppedError):
            with suppress(TwotowerError):
                write(resamples=0)
            raise
        for config in plan.places().values():
            prepare(config, verbose=verbose)  # a whole ledger may have come from elsewhere
    return write()
