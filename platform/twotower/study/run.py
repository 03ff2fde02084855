"""One run of a study, inside a worker process: a config in, plain JSON out."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from twotower.core.config import ExperimentConfig
from twotower.core.errors import DivergedError
from twotower.core.records import environment
from twotower.core.storage import Store
from twotower.data.prepared import Prepared
from twotower.evaluation.evaluate import Evaluation
from twotower.models.sizes import sizes
from twotower.runtime.json_lines import JsonLines
from twotower.runtime.recorder import METRICS, Watch
from twotower.runtime.reference import Machine, threads, train_reference
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
        What the ledger keeps of it: `status` (done or diverged), `value`, `curve`, `test`...;
        `environment` is this process's.

    Raises:
        TwotowerError: data or training failed.
    """
    here = _here()
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
        "environment": here,
        "core_seconds": round(time.process_time() - cpu, 2),
        "seconds": round(time.monotonic() - wall, 2),
    }


@cache
def _here() -> Mapping[str, Any]:
    """Machine and code of this process: taken once, when it has just read the code that it runs."""
    return environment()


def _run(task: RunTask, config: ExperimentConfig, prepared: Prepared) -> dict[str, Any]:
    if task.kind == "reference":
        with threads(task.threads):
            return _references(config, prepared)
    lines: list[Mapping[str, Any]] = []
    store = Store(task.store) if task.kind == "seed" else None
    outcome = train_reference(
        config,
        prepared,
        store=store,
        watch=Watch(on_line=lines.append),
        machine=Machine(threads=task.threads),
        final=task.kind == "seed",
    )
    found = {"status": "done", **_progress(outcome)}
    if store is None:
        return {**found, "curve": _curve(lines, config)}
    written = JsonLines(store, METRICS).lines()  # of all of the run's attempts
    test = _measured(outcome.evaluations["test"])
    store.delete()
    return {
        **found,
        "curve": _curve(written, config),
        "weights": _digest(outcome),
        "sizes": asdict(sizes(outcome.state.model)),
        **test,
    }


def _progress(outcome: Outcome) -> dict[str, Any]:
    best = outcome.best
    return {
        "value": best and best.value,
        "best": best and asdict(best),
        "steps": outcome.last_step,
        "undertrained": best is not None and best.step > LATE * outcome.last_step,
    }


def _curve(lines: Sequence[Mapping[str, Any]], config: ExperimentConfig) -> list[list[Any]]:
    """Epoch and value of every validation."""
    return [
        [line["epoch"], line[config.eval.select]] for line in lines if line["kind"] == "validation"
    ]


def _references(config: ExperimentConfig, prepared: Prepared) -> dict[str, Any]:
    found = Evaluator(config, prepared).baselines("test")
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
