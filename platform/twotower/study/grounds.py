"""What claims rest on, beside their rows: the task and the marks of their runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from twotower.study import marks
from twotower.study.schema import Claim, StudyPlan

Row = Mapping[str, Any]


def grounded(plan: StudyPlan, tables: Row, claims: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of `claims.json` with what each rests on.

    Args:
        plan: whose claims they are.
        tables: `tables.json`.
        claims: as `claims.hold` gives them, each with its `method` and `against`.

    Returns:
        The rows with `task` (of the dataset), `untrained_above` (which of popularity, content and
        item-kNN finds more than both methods; None = none does) and each mark: how many runs of the
        method and of the one it is held against have it, out of how many a side. A claim about two
        gains rests on the runs of both.
    """
    tasks = {(d["name"], d["fraction"]): d["task"] for d in tables["datasets"]}
    known = {_key(contrast): contrast for contrast in tables["contrasts"]}
    planned = {(c.claim, c.method, c.against, c.metric): c for c in plan.claims}
    rows: list[dict[str, Any]] = []
    for claim in claims:
        own = planned[claim["claim"], claim["method"], claim["against"], claim["metric"]]
        found = [known[key] for key in _keys(own, claim) if key in known]
        rows.append(
            {
                **claim,
                "task": tasks.get((claim["dataset"], claim["fraction"])),
                "untrained_above": _untrained_above(tables["rows"], claim),
                **marks.added(found),
            }
        )
    return rows


def _untrained_above(rows: Sequence[Row], claim: Row) -> str | None:
    place, metric = (claim["dataset"], claim["fraction"]), claim["metric"]
    here = [row for row in rows if (row["dataset"], row["fraction"]) == place]
    found = {row["method"]: row["metrics"].get(metric, {}).get("value") for row in here}
    references = [row["method"] for row in here if row["kind"] == "reference"]
    pair = [found.get(claim[key]) for key in ("method", "against")]
    best = max(references, key=lambda name: found[name] or 0.0, default=None)
    if best is None or None in pair or (found[best] or 0.0) <= max(filter(None, pair), default=0.0):
        return None
    return best


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("dataset", "fraction", "method", "against", "metric"))


def _keys(own: Claim, claim: Row) -> list[tuple[Any, ...]]:
    """Differences that a claim is about; one in another metric has the same runs."""
    keys = [_key(claim)]
    if own.grows_from is not None:
        keys.append(_key({**claim, "fraction": own.grows_from}))
    return keys
