"""What was run, on what data, and what it cost, as plain text for the page."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from twotower.report.folder import as_number
from twotower.report.formats import compact, integer, metric_label, percent, plain, rounded, score
from twotower.study.document import Document, Setting, rows_of, setting_of, text_of
from twotower.study.headline import hardware
from twotower.study.marks import MARKS
from twotower.study.views import DASH, Body, Cell, Line, Table, by_dataset, written


@dataclass(frozen=True, slots=True)
class RunLine:
    """One finished run."""

    id: str
    method: str
    what: str
    """``trial 3``, ``seed 101``, or ``reference``."""

    settings: str
    numbers: list[str]
    """Validation value, test metrics, best step of steps, core-seconds, seconds."""

    marks: list[str]
    environment: str
    """Label of an `EnvironmentLine`."""

    commit: str
    command: str
    """Runs it again and compares."""


@dataclass(frozen=True, slots=True)
class EnvironmentLine:
    """A machine with its versions, as many runs share it."""

    label: str
    names: list[str]
    """Its names in `tables.json`, where commits are told apart."""

    hardware: str
    system: str
    versions: str
    commits: int
    runs: int


@dataclass(frozen=True, slots=True)
class RunGroup:
    """The runs of one setting."""

    title: str
    columns: list[str]
    runs: list[RunLine]


def data_rows(document: Document) -> tuple[list[str], list[list[str]], list[int]]:
    """(columns, rows, columns of numbers) of the datasets' facts."""
    datasets = rows_of(document.tables, "datasets", named="name")
    keys = list(dict.fromkeys(key for d in datasets for key in d.get("facts") or {}))
    rows = [
        [setting_of(d).dataset, setting_of(d).share, text_of(d, "task") or DASH]
        + [_fact(key, (d.get("facts") or {}).get(key)) for key in keys]
        for d in datasets
    ]
    columns = ["Dataset", "Fraction", "Task", *(key.replace("_", " ") for key in keys)]
    words = {key for d in datasets for key, v in (d.get("facts") or {}).items() if _is_word(v)}
    return columns, rows, [1, *(i for i, key in enumerate(keys, start=3) if key not in words)]


def feature_rows(document: Document) -> dict[str, list[list[str]]]:
    """Name, kind, distinct values and share of rows with a value of each dataset's features."""
    found: dict[str, list[list[str]]] = {}
    for dataset in rows_of(document.tables, "datasets", named="name"):
        rows = [
            [
                text_of(feature, "name"),
                text_of(feature, "kind"),
                written(feature.get("distinct"), integer),
                written(feature.get("filled"), percent),
            ]
            for feature in rows_of(dataset, "features")
        ]
        if rows:  # all fractions of a dataset have the same features
            found.setdefault(str(dataset["name"]), rows)
    return found


def cost_table(document: Document) -> Table | None:
    """Core-seconds of trials and seeds together: methods against settings, with sums."""
    settings = [s for s in document.settings if _sum(document, [s], document.methods(s))]
    names = [n for n in document.methods(*settings) if _sum(document, settings, [n])]
    if not names:
        return None
    lines = [
        Line(
            document.title(name),
            document.colour(name),
            [
                *(_spent(document, [s], [name]) for s in settings),
                _spent(document, settings, [name]),
            ],
        )
        for name in names
    ]
    ends = [*(_spent(document, [s], names) for s in settings), _spent(document, settings, names)]
    return Table(
        title="Core-seconds",
        aside="",
        groups=[*by_dataset(settings), ("", 1)],
        columns=[*(setting.share for setting in settings), "All"],
        bodies=[Body(lines), Body([Line("All", None, ends)])],
        kind="methods dense",
    )


def cost_rows(document: Document) -> list[list[str]]:
    """Setting, method, and the core-seconds of trials, seeds and both: one row a row of results."""
    return [
        [
            setting.label,
            document.title(name),
            *(written(document.row(setting, name).get(key), integer) for key in _PARTS),
            _spent(document, [setting], [name]).text,
        ]
        for setting in document.settings
        for name in document.methods(setting)
    ]


def run_groups(document: Document, ledger: str) -> list[RunGroup]:
    """All runs by setting, with the command that runs each again; ``ledger`` is its file."""
    runs = rows_of(document.tables, "runs")
    order = list(dict.fromkeys([*document.settings, *(setting_of(run) for run in runs)]))
    runs.sort(key=lambda run: order.index(setting_of(run)))
    metrics = [m for m in document.metrics if any(m in (r.get("metrics") or {}) for r in runs)]
    columns = ["Validation", *map(metric_label, metrics), "Best step", "Core-seconds", "Seconds"]
    labels = {name: line.label for line in environments(document) for name in line.names}
    return [
        RunGroup(
            setting.label, columns, [_run(document, run, metrics, ledger, labels) for run in group]
        )
        for setting, group in groupby(runs, key=setting_of)
    ]


def environments(document: Document) -> list[EnvironmentLine]:
    """Hardware and versions that runs were made with, each once; commits apart, they are many."""
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for one in rows_of(document.tables, "environments", "id"):
        versions = one.get("versions")
        pairs = versions.items() if isinstance(versions, Mapping) else ()
        told = ", ".join(f"{package} {version}" for package, version in pairs if version)
        found.setdefault((hardware(one), text_of(one, "system"), told), []).append(one)
    runs = Counter(text_of(run, "environment") for run in rows_of(document.tables, "runs"))
    return [
        EnvironmentLine(
            label=f"E{number}",
            names=[text_of(one, "id") for one in own],
            hardware=machine or DASH,
            system=system or DASH,
            versions=versions or DASH,
            commits=len({text_of(one, "commit") for one in own}),
            runs=sum(runs[text_of(one, "id")] for one in own),
        )
        for number, ((machine, system, versions), own) in enumerate(found.items(), start=1)
    ]


def reproduce(ledger: str, run: str) -> str:
    """The command that runs a run again and compares."""
    return f"twotower reproduce {shlex.quote(ledger)} --run {shlex.quote(run)}"


_PARTS = ("trial_core_seconds", "core_seconds")


def _run(
    document: Document,
    run: Mapping[str, Any],
    metrics: Sequence[str],
    ledger: str,
    environments: Mapping[str, str],
) -> RunLine:
    name, kind = text_of(run, "id"), text_of(run, "kind")
    which = run.get({"trial": "trial", "seed": "seed"}.get(kind, ""))
    tested = run.get("metrics") or {}
    steps = [written(run.get(key), integer) for key in ("best_step", "steps")]
    settings = run.get("settings") or {}
    return RunLine(
        id=name,
        method=document.title(text_of(run, "method")),
        what=f"{kind} {plain(which)}" if which is not None else kind,
        settings=", ".join(f"{key} {rounded(value)}" for key, value in settings.items()),
        numbers=[
            written(run.get("validation"), score),
            *(written(tested[m], score) if m in tested else "" for m in metrics),
            " of ".join(steps) if as_number(run.get("best_step")) is not None else DASH,
            *(written(run.get(key), integer) for key in ("core_seconds", "seconds")),
        ],
        marks=[mark.word for mark in MARKS if run.get(mark.name)],
        environment=environments.get(text_of(run, "environment"), DASH),
        commit=text_of(run, "commit")[:10],
        command=reproduce(ledger, name),
    )


def _spent(document: Document, settings: Sequence[Setting], methods: Sequence[str]) -> Cell:
    spent = _sum(document, settings, methods)
    return Cell(integer(spent)) if spent else Cell()


def _sum(document: Document, settings: Sequence[Setting], methods: Sequence[str]) -> float:
    rows = [document.row(setting, name) for setting in settings for name in methods]
    return sum(as_number(row.get(key)) or 0.0 for row in rows for key in _PARTS)


def _is_word(value: Any) -> bool:
    return value is not None and as_number(value) is None


def _fact(key: str, value: Any) -> str:
    number = as_number(value)
    if number is None:
        return DASH if value is None else plain(value)
    if "share" in key.split("_"):
        return percent(number)
    return integer(number) if number == round(number) else compact(number)
