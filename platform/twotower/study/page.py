"""The page of a study: one self-contained HTML file, drawn from `tables.json` and `claims.json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from twotower.report import html
from twotower.report.folder import as_number
from twotower.report.formats import SLICE_MEANING, SLICES, core_time, metric_label
from twotower.report.views import fact_rows
from twotower.study import claim_views, figures, grids, headline, run_views, sizes, views
from twotower.study.document import Document, rows_of, text_of, texts_of
from twotower.study.overview import overview
from twotower.study.paper_views import paper_tables

LEDGER = "runs.jsonl"
"""The ledger's name, beside the page."""


def write_page(
    tables: Mapping[str, Any], claims: Sequence[Mapping[str, Any]], path: str | Path
) -> None:
    """Write the page, whole or not at all.

    Args:
        tables: `tables.json`; lists may be empty and numbers null, as while the study goes on.
        claims: `claims.json`.
        path: The file, a local path or a URI; its folder is made. The ledger lies beside it.
    """
    html.write(render(tables, claims, _ledger(path)), path)


_FAMILY = {"place": "a dataset and fraction", "study": "the study"}
"""What Holm's correction of claims is within, in words."""


def render(
    tables: Mapping[str, Any], claims: Sequence[Mapping[str, Any]], ledger: str = LEDGER
) -> str:
    """The page's HTML; ``ledger`` is the file that commands name."""
    document = Document(tables)
    metrics = document.metrics
    context = {
        "title": str(tables.get("title") or tables.get("study") or "study"),
        "eyebrow": _eyebrow(tables),
        "sentence": headline.sentence(document, claims),
        "where": headline.where(document),
        "notes": headline.notes(document),
        "tiles": headline.tiles(document, claims),
        "command": text_of(tables, "command"),
        "facts": fact_rows(tables.get("environment") or {}),
        "claims": claim_views.claim_groups(document, claims),
        "with_paper": any(claim.get("paper") is not None for claim in claims),
        "family": _FAMILY.get(text_of(tables, "claims_corrected"), _FAMILY["place"]),
        "marks": document.all_marks,
        "paper": paper_tables(document),
        "gains": [t for m in document.primary if (t := views.gain_table(document, m))],
        "validation": views.validation_table(document),
        "results": [t for s in document.settings if (t := views.result_table(document, s))],
        "slices": [t for s in document.settings if (t := views.slice_table(document, s))],
        "slice_meanings": [(SLICES[s], SLICE_MEANING[s]) for s in _slices(tables)],
        "baseline": document.title(document.baseline),
        "primary": [metric_label(m) for m in document.primary],
        "primary_shown": [metric_label(m) for m in document.primary if m in metrics],
        "primary_sliced": [metric_label(m) for m in document.primary if m not in metrics],
        "overview": overview(document),
        "forests": figures.forests(document),
        "sizes": sizes.figures(document),
        "sweeps": figures.sweeps(document) + grids.figures(document),
        "data": run_views.data_rows(document),
        "features": run_views.feature_rows(document),
        "cost": run_views.cost_table(document),
        "cost_rows": run_views.cost_rows(document),
        "spent": core_time(spent) if (spent := as_number(tables.get("core_seconds"))) else "",
        "environments": run_views.environments(document),
        "runs": run_views.run_groups(document, ledger),
        "count": len(rows_of(tables, "runs")),
        "reproduce": run_views.reproduce(ledger, "RUN"),
        "ledger": PurePosixPath(ledger).name,
    }
    return html.render("study.html", context, package="twotower.study", style="study.css")


def _eyebrow(tables: Mapping[str, Any]) -> str:
    parts = ("twotower study", tables.get("title") or tables.get("study"), tables.get("date"))
    return " · ".join(str(part) for part in parts if part)


def _slices(tables: Mapping[str, Any]) -> list[str]:
    return [part for part in texts_of(tables, "slices") if part in SLICE_MEANING]


def _ledger(path: str | Path) -> str:
    """The ledger beside the page, relative to where commands are run; its name alone elsewhere."""
    if "://" in str(path):
        return f"{str(path).rpartition('/')[0]}/{LEDGER}"
    place = Path(path).absolute().parent / LEDGER
    here = Path.cwd()
    return place.relative_to(here).as_posix() if place.is_relative_to(here) else LEDGER
