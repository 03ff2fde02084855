"""The page: one self-contained HTML file, no resource from outside, every name escaped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twotower.core.config import Eval
from twotower.report import data_views, figures, formats, html, sizes, views
from twotower.report.compare import display_metrics
from twotower.report.content import Dataset, Report, Search

_SEARCH_HIDDEN = ("config", "environment", "counts", "total")  # shown elsewhere, or by the runs
_RECORD_HIDDEN = ("provenance", "stages", "command", "attempts")


def write_report(report: Report, out: str | Path) -> str:
    """Write the page, whole or not at all.

    Args:
        report: What `collect` found.
        out: The file, a local path or a URI; its folder is made.

    Returns:
        The page's place.
    """
    html.write(render(report), out)
    return str(out)


def render(report: Report) -> str:
    """The page's HTML."""
    config = next((run.config for run in report.runs if run.config is not None), None)
    context = {
        "report": report,
        "tiles": _tiles(report),
        "result": _result(report),
        "setup": _setup(report),
        "curves": figures.curves(report),
        "search": _search(report.search) if report.search is not None else None,
        "data": _data(report.dataset) if report.dataset is not None else None,
        "features": data_views.feature_rows(config, report.dataset),
        "work": views.work_rows(report.runs),
        "spent": figures.spent(views.stage_rows(report)),
        "sizes": _sizes(report),
        "certificate": _certificate(report),
    }
    return html.render("page.html", context)


def _rules(report: Report) -> Eval:
    """The evaluation section of the first run that has a config."""
    return next((run.config.eval for run in report.runs if run.config is not None), Eval())


def _tiles(report: Report) -> list[tuple[str, str, str]]:
    """(label, number, remark) of the few numbers to see first."""
    best = next((m for m in report.methods if m.name == report.headline.best), None)
    if best is None:
        return []
    tiles: list[tuple[str, str, str]] = []
    for key in (report.metric, f"tail_{report.metric}"):
        if cell := best.evaluation.summary.get(key):
            span = ""
            if cell.low is not None and cell.high is not None:
                span = f"interval {formats.score(cell.low)} to {formats.score(cell.high)}"
            label = f"{formats.metric_label(key)}, {formats.method_label(best.name)}"
            tiles.append((label, formats.score(cell.value), span))
    trained = [m for m in report.methods if m.run is not None and m is not best]
    first = next((d for d in report.differences if trained and d.other == trained[0].name), None)
    if first is not None:
        label = f"Lead over {formats.method_label(first.other)}"
        span = f"interval {formats.score(first.low, True)} to {formats.score(first.high, True)}"
        tiles.append((label, formats.score(first.value, True), span))
    total = sum(stage.seconds for _, _, stage in views.stage_rows(report))
    if total:
        tiles.append(("Time in all", formats.seconds(total), "sum of the stages below"))
    return tiles


def _result(report: Report) -> Mapping[str, Any]:
    shown = display_metrics(_rules(report))
    rest = views.other_metrics(report, shown)
    return {
        "standings": figures.standings(report),
        "slices": figures.slices(report),
        "table": views.method_table(report, shown),
        "rest": views.method_table(report, rest) if rest else None,
        "meanings": [(formats.SLICES[s], formats.SLICE_MEANING[s]) for s in _rules(report).slices],
    }


def _setup(report: Report) -> Mapping[str, Any]:
    rows = views.config_rows(report.runs)
    record = next((run.record for run in report.runs if run.record), {})
    return {
        "runs": [run.label for run in report.runs if run.config is not None],
        "varying": [row for row in rows if row.varies],
        "fixed": [row for row in rows if not row.varies],
        "facts": views.fact_rows(record, _RECORD_HIDDEN),
        "commit": str((record.get("git") or {}).get("commit") or ""),
        "configs": [(run.label, run.location, run.config_text) for run in report.runs],
    }


def _search(search: Search) -> Mapping[str, Any]:
    names, rows = views.trial_rows(search.trials)
    best = next((trial for trial in search.trials if trial.number == search.best), None)
    counts: dict[str, int] = {}
    for trial in search.trials:
        counts[trial.state] = counts.get(trial.state, 0) + 1
    return {
        "history": figures.search_history(search),
        "parameters": figures.search_parameters(search),
        "names": names,
        "rows": rows,
        "best": best,
        "counts": counts,
        "facts": views.fact_rows(search.facts, _SEARCH_HIDDEN),
    }


def _data(dataset: Dataset) -> Mapping[str, Any]:
    return {
        "location": dataset.location,
        "head": data_views.head_sentence(dataset),
        "counts": data_views.count_facts(dataset),
        "parts": data_views.part_rows(dataset),
        "quality": data_views.quality_facts(dataset),
        "popularity": figures.popularity(dataset),
        "information": figures.information(dataset),
    }


def _sizes(report: Report) -> Mapping[str, Any] | None:
    """None where no run has any: the page then has no such section."""
    totals = sizes.total_rows(report.runs)
    if not totals:
        return None
    return {
        "columns": [*sizes.TOTALS],
        "totals": totals,
        "table_columns": [*sizes.COLUMNS],
        "tables": sizes.table_rows(report.runs),
    }


def _certificate(report: Report) -> Mapping[str, Any]:
    return {
        "verdict": views.certificate_verdict(report.methods),
        "short": views.certificate_facts(report.methods),
        "methods": [m.name for m in views.certified(report.methods)],
        "protocol": views.certificate_rows(report.methods, "protocol"),
        "subject": views.certificate_rows(report.methods, "subject"),
    }
