"""Runs a run of a ledger again and compares it bit for bit."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twotower.core.config import ExperimentConfig
from twotower.core.errors import InputError
from twotower.core.loading import build_config
from twotower.core.storage import Store
from twotower.runtime.prepare import prepare
from twotower.study.ledger import FILE, Ledger, Line
from twotower.study.run import RunTask, execute

_HERE = ("versions", "commit", "cpu", "cpus")
"""What is told of this machine where a run differs."""


@dataclass(frozen=True, slots=True)
class Reproduced:
    """What came of it."""

    run: str
    difference: str | None
    """The first thing that differs, with both values; None where all is equal, bit for bit."""

    machine: tuple[str, ...]
    """What differs between that machine and this one."""


def reproduce(ledger_file: str | Path, run_id: str) -> Reproduced:
    """Run one run of a ledger again.

    Args:
        ledger_file: `runs.jsonl` of a study.
        run_id: the run's digits, or their beginning.

    Raises:
        InputError: no such ledger or run.
        TwotowerError: the run itself failed.
    """
    file = Path(ledger_file)
    if not file.is_file():
        raise InputError(f"{file}: no such ledger")
    if file.name != FILE:
        raise InputError(f"{file}: a ledger is named {FILE}")
    ledger = Ledger(Store(file.parent))
    line = _find(ledger, run_id, file)
    config = build_config(ledger.noted(line["config"]), f"{file}: run {line['id']}")
    found = _again(line, config)
    difference = next(_differences(ledger, line, found), None)
    before, now = ledger.noted(line["environment"]), found["environment"]
    changed = tuple(
        f"{name}: {before.get(name)} there, {now.get(name)} here"
        for name in _HERE
        if before.get(name) != now.get(name)
    )
    if difference:
        difference += _commits(before.get("commit"), now.get("commit"))
    return Reproduced(line["id"], difference, changed)


def _commits(made: str | None, here: str | None) -> str:
    """What to add of the code to a difference; nothing where it is the same, or not known."""
    if made is None or made == here:
        return ""
    this = f"this is {here or 'no checkout'}"
    if made.endswith("+"):
        return f"; the line was made at commit {made[:-1]} with uncommitted changes, {this}"
    return f"; the line was made at commit {made}, {this}: check that commit out for the same bits"


def _find(ledger: Ledger, run_id: str, file: Path) -> Line:
    found = [line for line in ledger.runs() if run_id and line["id"].startswith(run_id)]
    if len(found) != 1:
        what = "no run begins" if not found else f"{len(found)} runs begin"
        raise InputError(f"{file}: {what} with {run_id!r}")
    return found[0]


def _again(line: Line, config: ExperimentConfig) -> dict[str, Any]:
    prepared = prepare(config).path
    with TemporaryDirectory(prefix="twotower-") as folder:
        return execute(
            RunTask(
                kind=line["kind"],
                config=config.model_dump_json(),
                prepared=prepared,
                store=f"{folder}/run",
                threads=config.train.threads,
            )
        )


def _differences(ledger: Ledger, line: Line, found: Mapping[str, Any]) -> Iterator[str]:
    """What differs, in the order in which a run comes by it."""
    if ledger.noted(line["data"]) != found["data"]:
        yield "the prepared data"
    for (epoch, before), (_, now) in zip(
        line.get("curve", ()), found.get("curve", ()), strict=False
    ):
        if before != now:
            yield f"validation after epoch {epoch}: {before} there, {now} here"
    if line["kind"] == "reference":
        for name, one in line["references"].items():
            yield from _measured(ledger, name, one, found["references"].get(name, {}))
        return
    for name in ("status", "steps", "best", "value", "weights"):
        if line.get(name) != found.get(name):
            yield f"{name}: {line.get(name)} there, {found.get(name)} here"
    yield from _measured(ledger, "test", line, found)


def _measured(
    ledger: Ledger, what: str, line: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[str]:
    if "protocol" in line and ledger.noted(line["protocol"]) != found.get("protocol"):
        yield f"{what}: the protocol of the evaluation"
    if line.get("ranks") != found.get("ranks"):
        yield f"{what}: the ranks of the true items"
    for name, value in line.get("test", {}).items():
        if value != found["test"].get(name):
            yield f"{what}: {name} {value} there, {found['test'].get(name)} here"
