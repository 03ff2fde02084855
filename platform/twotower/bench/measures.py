"""The measurements of `bench train`: each a process of its own, ours and the peers in turn."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from twotower.bench import result
from twotower.bench.curves import batch_curve, exchange_curve, vocabulary_curve
from twotower.bench.peer_runs import PEERS, interpreter, run_peer
from twotower.bench.task import run_task
from twotower.bench.w1 import CELLS, Cell, cell_config
from twotower.bench.windows import Timing
from twotower.bench.workload import Sizes
from twotower.core.config import ExperimentConfig
from twotower.core.errors import RunError

PEER_NAMES = ("torch_tuned", "torchrec_fused", "tfrs")

Tell = Callable[[str], None]
"""Hears what is measured next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    folder: Path
    """Where the workload and its prepared data lie, or are made."""

    environments: Path
    """Python environments of the peers, see `peer_runs`."""

    cells: tuple[Cell, ...] = CELLS
    precisions: tuple[str, ...] = result.PRECISIONS
    peers: tuple[str, ...] = PEER_NAMES
    repeats: int = 3
    timing: Timing = field(default_factory=Timing)
    sizes: Sizes = field(default_factory=Sizes)
    """Of the workload; W1's own unless a test wants it small."""

    changes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Changes of every config, by dotted path; there for tests."""

    threads: int = 2
    with_ray: bool = True
    with_curves: bool = True
    """Also how a step's cost grows with catalogue, batch and workers, and what checkpoints cost."""

    @property
    def is_whole(self) -> bool:
        """Whether it measures every cell in every way."""
        return (
            {*self.cells} >= {*CELLS}
            and {*self.precisions} >= {*result.PRECISIONS}
            and {*self.peers} >= {*PEER_NAMES}
            and self.with_ray
        )


class Measures:
    """The measurements of one run."""

    def __init__(self, plan: Plan, base: ExperimentConfig, prepared: str, tell: Tell) -> None:
        self._plan, self._base, self._prepared, self._tell = plan, base, prepared, tell

    def limits(self) -> dict[str, dict[str, float]]:
        """The machine's ceilings, now."""
        self._tell("limits")
        line = self._run("limits", "--threads", str(self._plan.threads))
        return {name: rate for name, rate in line.items() if isinstance(rate, dict)}

    def checkpoint(self, folder: Path) -> dict[str, Any]:
        """What checkpoints cost, written to the disk of a folder."""
        self._tell("checkpoint")
        return self._run("checkpoint", str(folder))

    def _run(self, module: str, *arguments: str) -> dict[str, Any]:
        """The document that a module of this package prints."""
        command = [sys.executable, "-m", f"twotower.bench.{module}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it wrote nothing"]
            raise RunError(f"{module}: ended with {done.returncode}: {said[-1]}")
        return json.loads(done.stdout)

    def cell(self, cell: Cell) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """All repeats of a cell, by precision (and `ray`) and by who."""
        found: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for repeat in range(self._plan.repeats):
            for kind, name, measure in self._turn(cell):
                self._tell(f"{cell.name} {kind} {name} {repeat + 1}/{self._plan.repeats}")
                found.setdefault(kind, {}).setdefault(name, []).append(measure())
        return found

    def curves(self) -> dict[str, list[dict[str, Any]]]:
        """How a step's cost grows."""
        base, plan, tell = self._base, self._plan, self._tell
        return {
            "vocabulary": vocabulary_curve(base, plan.threads, tell),
            "batch": batch_curve(base, self._time_ours, tell),
            "exchange": exchange_curve(base, plan.folder, plan.threads, tell),
        }

    def _turn(self, cell: Cell) -> list[tuple[str, str, Callable[[], dict[str, Any]]]]:
        plan = self._plan
        turn: list[tuple[str, str, Callable[[], dict[str, Any]]]] = []
        for precision in plan.precisions:
            turn.append((precision, result.OURS, lambda p=precision: self._ours(cell, p)))
            turn += [
                (precision, peer, lambda n=peer, p=precision: self._peer(n, cell, p))
                for peer in plan.peers
                if precision in PEERS[peer].precisions
            ]
        if plan.with_ray and "float32" in plan.precisions:
            turn.append(("ray", result.ONE_WORKER, lambda: self._ray(cell, 1)))
            turn.append(("ray", result.TWO_WORKERS, lambda: self._ray(cell, 2)))
        return turn

    def _ours(self, cell: Cell, precision: str) -> dict[str, Any]:
        return self._time_ours(cell_config(self._base, cell, precision, self._plan.changes))

    def _time_ours(self, config: ExperimentConfig) -> dict[str, Any]:
        spec = {
            "config": config.model_dump(mode="json"),
            "prepared": self._prepared,
            "threads": self._plan.threads,
            "device": "cpu",
            "timing": asdict(self._plan.timing),
        }
        threads = self._plan.threads
        return run_task("twotower.bench.step", spec, threads=threads, cpus=threads)

    def _ray(self, cell: Cell, workers: int) -> dict[str, Any]:
        threads = max(1, self._plan.threads // workers)
        changes = {
            **self._plan.changes,
            "train.num_workers": workers,
            "train.threads": threads,
        }
        config = cell_config(self._base, cell, "float32", changes)
        spec = {"config": config.model_dump(mode="json"), "timing": asdict(self._plan.timing)}
        cpus = threads * workers
        return run_task("twotower.bench.under_ray", spec, threads=threads, cpus=cpus)

    def _peer(self, name: str, cell: Cell, precision: str) -> dict[str, Any]:
        python = interpreter(self._plan.environments, name)
        if not python.exists() and PEERS[name].module == "torch":
            python = Path(sys.executable)  # it needs nothing that we don't have
        return run_peer(
            name,
            python,
            self._plan.folder,
            cell.batch,
            ssl=cell.ssl,
            precision=precision,
            threads=self._plan.threads,
            seconds=self._plan.timing.seconds,
            windows=self._plan.timing.windows,
        )
