"""Runs measured and compared after training: nothing here needs Ray."""

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from twotower.core.config import Eval, ExperimentConfig
from twotower.core.errors import InputError
from twotower.core.lease import Lease
from twotower.core.records import fingerprint
from twotower.core.storage import Store, commit, dump_json, load_commit
from twotower.data.prepared import Prepared
from twotower.evaluation import significance
from twotower.evaluation.protocol import Certificate, require_equal
from twotower.evaluation.significance import Difference
from twotower.runtime.best import open_best, open_store
from twotower.runtime.results import (
    BASELINES,
    Measured,
    by_query,
    read_evaluation,
    write_evaluation,
    write_sizes,
)
from twotower.runtime.run_folder import data_identity, location, read_config
from twotower.training.evaluate import Evaluator
from twotower.training.questions import EvalPart

_CACHE = ".baselines"
"""Baselines depend on data and rules alone: one copy beside the runs serves them all."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs against the first of them, query by query."""

    part: str
    reference: str
    confidence: float
    runs: dict[str, dict[str, Difference]]
    """Run -> metric -> run less reference."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def evaluate(run: str | Path, part: EvalPart = "test", *, device: str = "cpu") -> dict[str, Any]:
    """Evaluate the best checkpoint of a run again, and write it into the run.

    Args:
        run: the run directory.
        part: `validation` or `test`.
        device: where the model computes.

    Returns:
        The document that was written: summary, counts, certificate.

    Raises:
        InputError: no run or no checkpoint stands there, its data has changed, or another process
            writes to it.
    """
    _check_part(part)
    with Lease(open_store(run)):
        opened = open_best(run)
        evaluator = Evaluator(opened.config, opened.prepared)
        model = opened.load_model(device)
        found = evaluator.evaluate(model, part, checkpoint=opened.step)
        questions = evaluator.questions(part)
        write_evaluation(opened.store, part, found, questions, opened.prepared)
        write_sizes(opened.store, model)
    return found.document()


def compare(
    runs: Sequence[str | Path],
    part: EvalPart = "test",
    *,
    metrics: Sequence[str] | None = None,
    confidence: float | None = None,
) -> Comparison:
    """Paired differences of runs to the first, with intervals over queries.

    Args:
        runs: two or more run directories.
        part: what they were evaluated on.
        metrics: null = Recall and MAP at every cut-off, and Recall of the tail at the last.
        confidence: of the intervals; null = that of the first run's config.

    Raises:
        InputError: fewer than two runs, one is not evaluated on the part, they were measured by
            different protocols, or lack a metric.
    """
    _check_part(part)
    stores = [open_store(run) for run in runs]
    if len(stores) < 2:
        raise InputError("compare: needs two or more run directories")
    names = _names(stores)
    found = {n: read_evaluation(s, part) for n, s in zip(names, stores, strict=True)}
    require_equal({n: Certificate.parse(m.document["certificate"]) for n, m in found.items()})
    rules = read_config(stores[0]).eval
    wanted = list(metrics or _usual(rules))
    for name, measured in found.items():
        if missing := [metric for metric in wanted if metric not in measured.values]:
            near = difflib.get_close_matches(missing[0], measured.values, n=3, cutoff=0.3)
            hint = f"; the nearest are {', '.join(near)}" if near else ""
            raise InputError(f"metric {missing[0]!r}: {name} has none of that name{hint}")
    level = confidence or rules.confidence
    first = found[names[0]]
    against = {name: _against(first, found[name], wanted, level) for name in names[1:]}
    return Comparison(part=part, reference=names[0], confidence=level, runs=against)


def write_baselines(config: ExperimentConfig, prepared: Prepared, store: Store) -> None:
    """Write the rows that every table has (popularity, content, item_knn on test) into a run."""
    rules = config.eval.model_dump(mode="json")
    key = fingerprint({"data": data_identity(prepared), "rules": rules})[:16]
    cache = Store(config.storage.runs).child(f"{_CACHE}/{key}")
    try:
        _, files = load_commit(cache)
    except InputError:
        files = _baselines(config, prepared)
        commit(cache, files)
    for name, data in sorted(
        files.items()
    ):  # baselines.json after baselines/*: it makes them count
        store.write_bytes(name, data)


def _baselines(config: ExperimentConfig, prepared: Prepared) -> dict[str, bytes]:
    evaluator = Evaluator(config, prepared)
    found = evaluator.baselines("test")
    asked = evaluator.questions("test")
    files = {
        f"{BASELINES}/{name}.parquet": by_query(one, asked, prepared) for name, one in found.items()
    }
    files[f"{BASELINES}.json"] = dump_json({name: one.document() for name, one in found.items()})
    return files


def _names(stores: Sequence[Store]) -> list[str]:
    """Last parts of the paths, or the whole paths where two of those are equal."""
    names = [location(store).rstrip("/").rpartition("/")[2] for store in stores]
    if len(set(names)) == len(names):
        return names
    whole = [location(store) for store in stores]
    if len(set(whole)) < len(whole):
        raise InputError("compare: the same run is given twice")
    return whole


def _check_part(part: str) -> None:
    if part not in get_args(EvalPart):
        raise InputError(f"part {part!r}: must be one of {', '.join(get_args(EvalPart))}")


def _usual(rules: Eval) -> list[str]:
    metrics = [f"{metric}@{k}" for metric in ("recall", "map") for k in rules.k]
    return metrics + ([f"tail_recall@{rules.k[-1]}"] if "tail" in rules.slices else [])


def _against(
    first: Measured, other: Measured, metrics: Sequence[str], confidence: float
) -> dict[str, Difference]:
    if not np.array_equal(first.queries, other.queries):
        raise InputError("the runs were measured on different queries; evaluate both again")
    options = significance.Comparison(confidence=confidence, groups=first.groups)
    return significance.paired(
        {metric: first.values[metric] for metric in metrics},
        {metric: other.values[metric] for metric in metrics},
        options,
    )
