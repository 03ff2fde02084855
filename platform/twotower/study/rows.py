"""Parts of the rows of `tables.json`, from lines of the ledger."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from twotower.core.records import fingerprint
from twotower.study import marks
from twotower.study.cells import Cell, Key
from twotower.study.ledger import Ledger, Line
from twotower.study.load import Study
from twotower.study.schema import StudyPlan


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


def paper_gains(plan: StudyPlan) -> Iterator[dict[str, Any]]:
    """Relative gains of the paper, each once: entries of `paper`."""
    told = set[tuple[Any, ...]]()
    for where, datasets, gain in _told(plan):
        if where not in told:
            told.add(where)
            keys = ("method", "against", "metric", "fraction")
            named = dict(zip(keys, where, strict=True))
            yield {**named, "datasets": datasets, "gain": gain}


def _told(plan: StudyPlan) -> Iterator[tuple[tuple[Any, ...], tuple[str, ...] | None, float]]:
    for claim in plan.claims:
        for fraction in () if claim.compares_gains else claim.fractions:
            gain = claim.paper_gain(fraction)
            if gain is not None:
                yield (claim.method, claim.against, claim.metric, fraction), claim.datasets, gain
    for one in plan.paper:
        for fraction, gain in one.gains.items():
            yield (one.method, plan.baseline, one.metric, float(fraction)), None, gain


def validation(cell: Cell, planned: int, trials: Sequence[Line]) -> dict[str, Any] | None:
    """The best of a cell's trials; None where it has none."""
    if not cell.trials:
        return None
    return {
        "metric": cell.config.eval.select,
        "value": next((line["value"] for line in best_trial(trials)), None),
        "values": [line["value"] for line in trials],
        "done": len(trials),
        "planned": planned,
    }


def best_trial(trials: Sequence[Line]) -> list[Line]:
    """The trial that settings come from; none where none ended with a value."""
    found = [line for line in trials if line["value"] is not None]
    return [max(found, key=lambda line: line["value"])] if found else []


def environments(lines: Sequence[Line], ledger: Ledger) -> tuple[list[dict[str, Any]], list[str]]:
    """Machines and code that runs were made with, each once, and the `id` of each run's."""
    found: dict[str, str] = {}
    listed: list[dict[str, Any]] = []
    names: list[str] = []
    for line in lines:
        one = {key: v for key, v in ledger.noted(line["environment"]).items() if key != "command"}
        digits = fingerprint(one)
        if digits not in found:
            found[digits] = f"e{len(found) + 1}"
            listed.append({"id": found[digits], **one})
        names.append(found[digits])
    return listed, names


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
        **marks.counts([]),
        "core_seconds": round(line["core_seconds"] / len(line["references"]), 1),
        "trial_core_seconds": 0.0,
    }
