"""`twotower study` and `twotower reproduce`: what they take and what they print."""

# `--help` must not wait for Ray and torch, so a command imports what it runs.
# ruff: noqa: PLC0415

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from twotower.core.command_line import AsJson, Verbose, emit
from twotower.report.console import Display

_WIDTH = 130
"""Of tables that no terminal wraps."""


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
    plain = Console(highlight=False)
    print_study(found, plain if plain.is_terminal else Console(highlight=False, width=_WIDTH))


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
        out = Console(highlight=False)
        for line in found.machine:
            out.print(f"not the same machine or code: {line}", style="dim", soft_wrap=True)
        out.print(f"{found.run}: {found.difference or 'equal, bit for bit'}", soft_wrap=True)
    if found.difference:
        raise typer.Exit(3)
