"""`twotower study` and `twotower reproduce`: what they take and what they print."""

# `--help` must not wait for Ray and torch, so a command imports what it runs.
# ruff: noqa: PLC0415

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twotower.core.command_line import AsJson, Verbose, emit
from twotower.core.console import plain, show
from twotower.report.console import Display

if TYPE_CHECKING:
    from twotower.runtime.job_command import Subject


def study(
    file: Annotated[Path, typer.Argument(metavar="STUDY", help="YAML of the study.")],
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Start only runs of this method, dataset, sweep or DATASET/METHOD, and the trials "
            "that they take settings from; all else of the plan stays pending. Repeatable.",
        ),
    ] = None,
    most: Annotated[
        int | None, typer.Option("--most", min=1, help="Runs at once; as many as fit otherwise.")
    ] = None,
    run: Annotated[bool, typer.Option(help="No: only write the page of the runs so far.")] = True,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run a plan of methods, data and seeds; write its tables, claims and page."""
    from twotower.study.complete import complete
    from twotower.study.console import print_study

    with Display() as display:
        found = complete(
            file, display.on_study, only=only or (), most=most, run=run, verbose=verbose
        )
    if as_json:
        emit(found)
        return
    print_study(found)


def reproduce(
    ledger: Annotated[Path, typer.Argument(metavar="LEDGER", help="A study's runs.jsonl.")],
    run: Annotated[str, typer.Option(help="Digits of the run, as the page shows them.")],
    as_json: AsJson = False,
) -> None:
    """Run one run of a study again and compare it bit for bit."""
    from twotower.study.reproduce import reproduce as again

    found = again(ledger, run)
    if as_json:
        emit(asdict(found))
    else:
        show(*(plain(f"not the same machine or code: {line}", "dim") for line in found.machine))
        show(f"{found.run}: {found.difference or 'equal, bit for bit'}")
    if found.difference:
        raise typer.Exit(3)


def read_study(file: Path) -> "Subject":
    """A study's file as `submit` looks at it.

    Raises:
        ConfigError: file, key, config or space is wrong; each is named, with its cell.
    """
    from twotower.core.records import identity
    from twotower.runtime.job_command import Subject
    from twotower.study.load import load_study

    study = load_study(file)
    storage = dict.fromkeys(
        (f"storage.{key}", getattr(cell.config.storage, key))
        for cell in study.cells
        for key in ("runs", "prepared")
    )
    data = [identity(config) for config in study.places().values()]
    content = [study.plan.model_dump(mode="json"), data]
    return Subject(study.plan.name, content, (("folder", study.plan.folder), *storage))
