"""summary.json: the numbers of a report for programs."""

from pathlib import Path
from typing import Any

from twotower.core.config import Eval
from twotower.core.storage import Store
from twotower.report.compare import display_metrics
from twotower.report.content import Interval, Report
from twotower.report.sizes import summarised


def write_summary(report: Report, out: str | Path) -> dict[str, Any]:
    """Write the summary, whole or not at all, and return it.

    Args:
        report: What `collect` found.
        out: The file, a local path or a URI; its folder is made.
    """
    document = summarise(report)
    place = str(out) if "://" in str(out) else str(Path(out).absolute())
    folder, _, name = place.rpartition("/")
    Store(folder).write_json(name, document)
    return document


def summarise(report: Report) -> dict[str, Any]:
    """The summary as JSON values.

    `methods` maps each method to its metrics on `part`, each ``{"value", "low", "high", "n"}``;
    those that a method doesn't have are absent. `differences` are the best method less each other
    one, paired over queries. `sizes` maps each run that has them to the bytes of its embedding
    tables as served, in all and by table. `note` is what the numbers don't show.
    """
    rules = next((run.config.eval for run in report.runs if run.config is not None), Eval())
    methods = {
        method.name: {
            key: _cell(method.evaluation.summary[key])
            for key in display_metrics(rules)
            if key in method.evaluation.summary
        }
        for method in report.methods
    }
    return {
        "title": report.title,
        "part": report.part,
        "metric": report.metric,
        "confidence": report.confidence,
        "headline": report.headline.sentence,
        "exceptions": report.headline.exceptions,
        "verdict": report.headline.verdict,
        "best": report.headline.best,
        "note": " ".join(report.notes),
        "methods": methods,
        "differences": [
            {
                "method": gap.method,
                "other": gap.other,
                "metric": gap.metric,
                "value": gap.value,
                "low": gap.low,
                "high": gap.high,
                "n": gap.n,
                "distinguishable": gap.distinguishable,
            }
            for gap in report.differences
        ],
        "runs": {run.label: run.location for run in report.runs},
        "sizes": {run.label: summarised(run.sizes) for run in report.runs if run.sizes is not None},
        "search": report.search.location if report.search is not None else None,
        "missing": list(report.missing),
    }


def _cell(interval: Interval) -> dict[str, float | int | None]:
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
    }
