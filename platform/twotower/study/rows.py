"""Parts of the rows of `tables.json`, from lines of the ledger."""

from collections.abc import Mapping, Sequence
from typing import Any

from twotower.study.cells import Cell, Key
from twotower.study.ledger import Line
from twotower.study.load import Study


def measure(metric: str) -> str:
    """``recall`` of ``tail_recall@50``."""
    return metric.partition("@")[0].rpartition("_")[2]


def seeds_of(lines: Sequence[Line]) -> list[int]:
    """Training seeds of final runs."""
    return [line["seed"] for line in lines]


def done(lines: Sequence[Line]) -> list[Line]:
    """Runs that ended with finite numbers."""
    return [line for line in lines if line["status"] == "done"]


def sizes_of(lines: Sequence[Line]) -> dict[str, Any] | None:
    """What a cell's model is served with; None where its runs are older than such figures."""
    return next((line["sizes"] for line in lines if "sizes" in line), None)


def reference_lines(line: Line) -> list[Line]:
    """A line for each of popularity, content and item-kNN."""
    return [
        {**one, "id": f"{line['id']} {name}", "data": line["data"]}
        for name, one in line["references"].items()
    ]


def method_of(study: Study, name: str) -> dict[str, Any]:
    """An entry of `methods`."""
    method = study.plan.methods[name]
    return {
        "name": name,
        "title": study.plan.title_of(name),
        "set": dict(method.set),
        "curve": method.curve,
        "tuned": [] if method.settings_from else list({**study.plan.space, **method.space}),
        "from": method.settings_from,
    }


def validation(cell: Cell, trials: Sequence[Line]) -> dict[str, Any] | None:
    """The best of a cell's trials; None where it has none."""
    if not cell.trials:
        return None
    values = [line["value"] for line in trials]
    return {
        "metric": cell.config.eval.select,
        "value": max((value for value in values if value is not None), default=None),
        "values": values,
        "done": len(trials),
        "planned": cell.trials,
    }


def lender(cell: Cell) -> str | None:
    """The dataset or the method that settings come from."""
    if cell.lender is None:
        return None
    lender: Key = cell.lender
    return lender.dataset if lender.dataset != cell.key.dataset else lender.method


def reference_row(
    at: tuple[str, float], name: str, means: Mapping[str, Any], line: Line
) -> dict[str, Any]:
    """A row of a method that isn't trained."""
    return {
        "dataset": at[0],
        "fraction": at[1],
        "method": name,
        "kind": "reference",
        "settings_from": None,
        "settings": {},
        "seeds": [],
        "missing": 0,
        "metrics": dict(means),
        "undertrained": 0,
        "core_seconds": round(line["core_seconds"] / len(line["references"]), 1),
        "trial_core_seconds": 0.0,
    }
