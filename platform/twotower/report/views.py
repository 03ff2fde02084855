"""The tables of the page as plain rows of text; the template only lays them out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from twotower.core.config import ExperimentConfig
from twotower.report.compare import protocols_differ, ties
from twotower.report.content import Method, Report, Run, Stage, Trial
from twotower.report.formats import (
    SLICES,
    integer,
    method_label,
    metric_label,
    percent,
    plain,
    rounded,
    score,
    seconds,
    split_metric,
)

_FEATURES = "data.features"
_PROTOCOL_SHORT = {
    "part": "part",
    "split.kind": "split",
    "filter": "filter",
    "pairs": "digest of the pairs",
    "candidates": "digest of the candidates",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of the table of methods."""

    value: str = "–"  # noqa: RUF001 an en dash is meant
    interval: str = ""
    standing: Literal["best", "near", "other"] = "other"
    """`near`: not distinguishable from the best of its column."""


@dataclass(frozen=True, slots=True)
class MethodTable:
    """Methods against metrics."""

    groups: list[tuple[str, int]]
    """Titles over the columns, each with the number of columns it spans."""

    columns: list[str]
    rows: list[tuple[str, int, list[Cell]]]
    """(method, colour, cells)."""

    marks_near: bool
    """Whether some cell is marked as not distinguishable from the best."""


def method_table(report: Report, metrics: Sequence[str]) -> MethodTable:
    """The methods in some metrics; metrics that no method has are left out."""
    known = [k for k in metrics if any(k in m.evaluation.summary for m in report.methods)]
    standing = {
        key: ties(report.methods, key, report.confidence) if _is_graded(key) else (None, set[str]())
        for key in known
    }
    rows = [
        (method_label(m.name), m.colour, [_cell(m, key, *standing[key]) for key in known])
        for m in report.methods
    ]
    marks = any(cell.standing == "near" for _, _, cells in rows for cell in cells)
    groups, columns = _headers(known)
    return MethodTable(groups, columns, rows, marks)


def other_metrics(report: Report, shown: Sequence[str]) -> list[str]:
    """Metric keys that some method has and the main table doesn't show, slices together."""
    found = dict.fromkeys(key for m in report.methods for key in m.evaluation.summary)
    rest = [key for key in found if key not in shown and split_metric(key)]
    order = list(SLICES)
    return sorted(rest, key=lambda key: order.index((split_metric(key) or ("all",))[0]))


@dataclass(frozen=True, slots=True)
class ConfigRow:
    """One key that isn't at its default somewhere."""

    key: str
    default: str
    values: list[str]
    """One a run."""

    varies: bool
    source: str
    """Who set it, where the records say."""

    @property
    def shown(self) -> list[str]:
        """One value where all runs have the same."""
        return self.values if self.varies else self.values[:1]


def config_rows(runs: Sequence[Run]) -> list[ConfigRow]:
    """Keys set away from their defaults; those that differ between runs come first."""
    known = [(run, run.config) for run in runs if run.config is not None]
    changed = [leaves(config.model_dump(mode="json", exclude_defaults=True)) for _, config in known]
    full = [leaves(config.model_dump(mode="json")) for _, config in known]
    defaults = default_leaves(ExperimentConfig)
    rows: list[ConfigRow] = []
    for key in dict.fromkeys(key for document in changed for key in document):
        if key == "name" or key.startswith(_FEATURES):
            continue
        values = [plain(document.get(key)) for document in full]
        sources = dict.fromkeys(
            str(run.record.get("provenance", {}).get(key, "")) for run, _ in known
        )
        told = ", ".join(source for source in sources if source not in ("", "default"))
        varies = len(set(values)) > 1
        rows.append(ConfigRow(key, plain(_default(defaults, key)), values, varies, told))
    return sorted(rows, key=lambda row: not row.varies)


def leaves(document: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """A nested mapping by dotted path; lists and empty mappings are leaves."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        below = f"{path}.{key}" if path else str(key)
        found |= leaves(value, below) if isinstance(value, dict) and value else {below: value}
    return found


def default_leaves(section: type[BaseModel]) -> dict[str, Any]:
    """Defaults of a section by dotted path; keys that must be given are left out."""
    found: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= {f"{name}.{key}": value for key, value in default_leaves(kind).items()}
        elif not field.is_required():
            found[name] = field.default
    return found


def work_rows(runs: Sequence[Run]) -> list[list[str]]:
    """How each run went: epochs, best epoch, speed, waiting for data, restarts, how it ended."""
    rows: list[list[str]] = []
    for run in runs:
        last = max((p["epoch"] for p in (*run.train, *run.validation)), default=None)
        waits = [p["data_wait_s"] for p in run.train if "data_wait_s" in p]
        steps = [p["step_s"] for p in run.train if "step_s" in p]
        speeds = sorted(p["rows_per_s"] for p in run.train if "rows_per_s" in p)
        share = sum(waits) / (sum(waits) + sum(steps)) if waits and sum(steps) else None
        rows.append(
            [
                method_label(run.label),
                f"{last:.3g}" if last is not None else "",
                plain(run.best["epoch"]) if "epoch" in run.best else "",
                f"{integer(speeds[len(speeds) // 2])} rows/s" if speeds else "",
                percent(share) if share is not None else "",
                plain(run.record["restarts"]) if "restarts" in run.record else "",
                str(run.record.get("exit_reason", "")),
            ]
        )
    return rows


def stage_rows(report: Report) -> list[tuple[str, int, Stage]]:
    """(label, colour, stage) of everything that was timed: preparation, runs, search."""
    rows: list[tuple[str, int, Stage]] = []
    prepared = report.dataset.stages if report.dataset is not None else ()
    rows += [(f"data: {stage.name}", 0, stage) for stage in prepared]
    for run in report.runs:
        rows += [
            (f"{method_label(run.label)}: {stage.name}", run.colour, stage)
            for stage in run.stages
            if not (prepared and stage.name == "prepare")  # counted above, stage by stage
        ]
    if report.search is not None and isinstance(report.search.facts.get("seconds"), int | float):
        rows.append(("search", 0, Stage("search", float(report.search.facts["seconds"]))))
    return rows


def certificate_rows(methods: Sequence[Method], which: str) -> list[tuple[str, list[str], bool]]:
    """(key, value in each method that has a certificate, whether all are equal)."""
    documents = [getattr(m.evaluation, which) for m in certified(methods)]
    flat = [leaves(document) for document in documents]
    rows: list[tuple[str, list[str], bool]] = []
    for key in dict.fromkeys(key for document in flat for key in document):
        values = [plain(document[key]) if key in document else "" for document in flat]
        rows.append((key, values, len(set(values)) == 1))
    return rows


def certificate_facts(methods: Sequence[Method]) -> list[tuple[str, str]]:
    """The few protocol fields to see at once, where all methods have the same."""
    documents = [leaves(m.evaluation.protocol) for m in certified(methods)]
    facts: list[tuple[str, str]] = []
    for key, label in _PROTOCOL_SHORT.items():
        values = {plain(document[key]) for document in documents if key in document}
        if len(values) == 1:
            value = values.pop()
            is_digest = key in ("pairs", "candidates")
            facts.append((label, value[:12] if is_digest else value))
    return facts


def certified(methods: Sequence[Method]) -> list[Method]:
    """Methods whose evaluation has a certificate."""
    return [m for m in methods if m.evaluation.protocol]


def certificate_verdict(methods: Sequence[Method]) -> str:
    """One sentence: whether the evaluations can be compared."""
    without = [method_label(m.name) for m in methods if not m.evaluation.protocol]
    if len(without) == len(methods):
        return "No evaluation here has a certificate, so nothing says that they can be compared."
    if keys := protocols_differ(methods):
        return f"The protocols differ in {', '.join(keys)}: these numbers can't be compared."
    told = "All protocols are equal, so the numbers can be compared."
    if len(methods) == 1:
        return "How this was measured; a number of another protocol can't be compared with it."
    return told + (f" Without a certificate: {', '.join(without)}." if without else "")


def trial_rows(trials: Sequence[Trial]) -> tuple[list[str], list[list[str]]]:
    """(parameter names, rows) of the trials, best first, those without a value last."""
    names = list(dict.fromkeys(key for trial in trials for key in trial.params))
    ranked = sorted(trials, key=lambda t: (t.value is None, -(t.value or 0.0), t.number))
    rows = [
        [
            str(t.number),
            score(t.value) if t.value is not None else "",
            *[rounded(t.params.get(name, "")) for name in names],
            plain(t.epochs) if t.epochs is not None else "",
            seconds(t.seconds) if t.seconds is not None else "",
            t.state + (f": {t.error}" if t.error else ""),
        ]
        for t in ranked
    ]
    return names, rows


def fact_rows(document: Mapping[str, Any], leave_out: Sequence[str] = ()) -> list[tuple[str, str]]:
    """A JSON object as (dotted key, value) rows."""
    kept = {key: value for key, value in document.items() if key not in leave_out}
    return [(key, plain(value)) for key, value in leaves(kept).items()]


def _cell(method: Method, key: str, best: str | None, near: set[str]) -> Cell:
    found = method.evaluation.summary.get(key)
    if found is None:
        return Cell()
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f"{score(found.low)}–{score(found.high)}"  # noqa: RUF001 an en dash is meant
    standing = "best" if method.name == best else "near" if method.name in near else "other"
    return Cell(score(found.value), interval, standing)


def _is_graded(key: str) -> bool:
    """Whether more of a metric is better: not so of coverage and mean popularity."""
    return (split_metric(key) or ("", "", 0))[1] in ("recall", "map", "ndcg", "mrr")


def _headers(metrics: Sequence[str]) -> tuple[list[tuple[str, int]], list[str]]:
    """Titles over neighbouring columns with their spans, and the columns' own.

    One metric in many slices stands under the metric's name, many metrics of a slice under the
    slice's.
    """
    parts = [split_metric(key) or ("all", key, 0) for key in metrics]
    sliced = {(name, k) for part, name, k in parts if part != "all"}
    groups: list[tuple[str, int]] = []
    columns: list[str] = []
    for key, (part, name, k) in zip(metrics, parts, strict=True):
        metric = metric_label(f"{name}@{k}") if k else key
        by_metric = part != "all" and len(sliced) == 1
        title = f"{metric} by slice" if by_metric else SLICES[part]
        columns.append(SLICES[part] if by_metric else metric)
        if groups and groups[-1][0] == title:
            groups[-1] = (title, groups[-1][1] + 1)
        else:
            groups.append((title, 1))
    return groups, columns


def _default(defaults: Mapping[str, Any], key: str) -> Any:
    """Default of a key or of the nearest section above it; a word where it must be given."""
    while key:
        if key in defaults:
            return defaults[key]
        key = key.rpartition(".")[0]
    return "required"
