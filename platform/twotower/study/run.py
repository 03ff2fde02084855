"""One run of a study, inside a worker process: a config in, plain JSON out."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from twotower.core.config import ExperimentConfig
from twotower.core.errors import DivergedError
from twotower.core.storage import Store
from twotower.data.prepared import Prepared
from twotower.evaluation.evaluate import Evaluation
from twotower.runtime.json_lines import JsonLines
from twotower.runtime.recorder import METRICS, Watch
from twotower.runtime.reference import Machine, train_reference
from twotower.runtime.run_folder import data_identity
from twotower.runtime.session import Outcome
from twotower.study.cells import Kind
from twotower.study.ledger import pack
from twotower.training.evaluate import Evaluator

LATE = 0.9
"""A best validation after this share of the steps: more steps might have done better."""


@dataclass(frozen=True, slots=True)
class RunTask:
    """A run as it travels to its process."""

    kind: Kind
    config: str
    """The whole config, JSON."""

    prepared: str
    store: str
    """Where a final run keeps its checkpoints until it is done; it goes on from there."""

    threads: int


def execute(task: RunTask) -> dict[str, Any]:
    """Run it.

    Returns:
        What the ledger keeps of it: `status` (done or diverged), `value`, `curve`, `test`...

    Raises:
        TwotowerError: data or training failed.
    """
    wall, cpu = time.monotonic(), time.process_time()
    config = ExperimentConfig.model_validate_json(task.config)
    prepared = Prepared.open(Store(task.prepared))
    try:
        found = _run(task, config, prepared)
    except DivergedError as error:
        found = {"status": "diverged", "error": str(error), "value": None}
    return {
        **found,
        "data": data_identity(prepared),
        "core_seconds": round(time.process_time() - cpu, 2),
        "seconds": round(time.monotonic() - wall, 2),
    }


def _run(task: RunTask, config: ExperimentConfig, prepared: Prepared) -> dict[str, Any]:
    if task.kind == "reference":
        return _references(config, prepared, task.threads)
    curve: list[list[Any]] = []

    def hear(line: Mapping[str, Any]) -> None:
        if line["kind"] == "validation":
            curve.append([line["epoch"], line[config.eval.select]])

    store = Store(task.store) if task.kind == "seed" else None
    outcome = train_reference(
        config,
        prepared,
        store=store,
        watch=Watch(on_line=hear),
        machine=Machine(threads=task.threads),
        final=task.kind == "seed",
    )
    found = {"status": "done", **_progress(outcome)}
    if store is None:
        return {**found, "curve": curve}
    test = outcome.evaluations["test"]
    told = {"curve": _whole_curve(store, config), "weights": _digest(outcome), **_measured(test)}
    store.delete()
    return {**found, **told}


def _progress(outcome: Outcome) -> dict[str, Any]:
    best = outcome.best
    return {
        "value": best and best.value,
        "best": best and asdict(best),
        "steps": outcome.last_step,
        "undertrained": best is not None and best.step > LATE * outcome.last_step,
    }


def _whole_curve(store: Store, config: ExperimentConfig) -> list[list[Any]]:
    """Validations of all of a run's attempts."""
    lines = JsonLines(store, METRICS).lines()
    return [
        [line["epoch"], line[config.eval.select]] for line in lines if line["kind"] == "validation"
    ]


def _references(config: ExperimentConfig, prepared: Prepared, threads: int) -> dict[str, Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = Evaluator(config, prepared).baselines("test")
    finally:
        torch.set_num_threads(before)
    rows = {name: _measured(one) for name, one in found.items()}
    return {"status": "done", "value": None, "references": rows}


def _measured(found: Evaluation) -> dict[str, Any]:
    return {
        "test": {name: one["value"] for name, one in found.summary.items()},
        "ranks": pack(found.ranks),
        "protocol": dict(found.certificate.protocol),
    }


def _digest(outcome: Outcome) -> str:
    """SHA-256 of the evaluated model's weights, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(outcome.state.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
