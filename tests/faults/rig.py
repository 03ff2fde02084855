"""The rig of the fault tests: a small experiment, broken copies of it, and a row for each case.

A case is one run with planned faults. Its row says what was done, what it cost and what was left;
`TWOTOWER_FAULT_ROWS` names the file that the rows are appended to (`collect.py` reads it).
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray._private import state as ray_state
from ray.util import placement_group_table

from broken_runs import Rows, events_of, lines_of, missed_and_repeated, result_of
from small_experiment import small_document
from twotower.core.config import ExperimentConfig
from twotower.core.loading import build_config, with_overrides
from twotower.core.storage import MANIFEST
from twotower.runtime.run_folder import RunFolder

ROWS = "TWOTOWER_FAULT_ROWS"
CHECKPOINT_EVERY = 7
"""K."""
LOST_AT_MOST = 2 * CHECKPOINT_EVERY - 1
"""The most steps that a kill may cost: K since the last checkpoint was begun, and as many before it
if it was still being written, beside training."""
STEPS = 40
STEPS_PER_EPOCH = 20
_GONE_WITHIN_S = 30.0

Plan = list[dict[str, Any]]


def small_config(folder: Path) -> ExperimentConfig:
    """Two workers, two epochs of twenty steps, checkpoints that don't fall on an epoch's end."""
    document = small_document(folder)
    document["ssl"] = {"weight": 0.5}
    document["loss"] = {"logq": "streaming", "mixed_negatives": 32}
    document["train"] |= {
        "batch_size": 64,
        "num_epochs": 2,
        "num_workers": 2,
        "threads": 1,
        "log_every": 1,
        "checkpoint_every": CHECKPOINT_EVERY,
        "max_failures": 5,
    }
    document["fault"] = {"trace": True}
    return build_config(document, "small")


def broken(config: ExperimentConfig, folder: Path, plan: Plan, **changes: Any) -> ExperimentConfig:
    """The same experiment with faults, in another folder: where results go is no part of it."""
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return with_overrides(config, {**named, "storage.runs": str(folder), "fault.plan": plan})


def run_folder(config: ExperimentConfig) -> Path:
    return RunFolder(config).store.local_path()


class Whole:
    """What the unbroken run left."""

    def __init__(self, run: Path, rows: dict[int, Rows]) -> None:
        self.run, self.rows, self.result = run, rows, result_of(run)


def measure(
    case: str, run: Path, whole: Whole, *, seed: int | None = None, **more: Any
) -> dict[str, Any]:
    """The row of a case, which is also appended to the file of rows.

    ``faults`` are the planned ones that fired, unless the caller says what it did itself.
    """
    record = json.loads((run / "record.json").read_text())
    missed, repeated = missed_and_repeated(run, whole.rows)
    row = {
        "case": case,
        "seed": seed,
        "faults": [_cost(run, fault) for fault in events_of(run, "fault")],
        "outcome": record["status"],
        "rows_missed": missed,
        "rows_repeated": repeated,
        "bitwise": record["status"] == "done" and result_of(run) == whole.result,
        "leftovers": leftovers(run),
        **more,
    }
    append(row)
    return row


def outside(run: Path, victim: str, action: str, struck: float, ended: float) -> dict[str, Any]:
    """What a signal to another process than a worker cost, once the command was repeated.

    Args:
        run: the run directory.
        victim: the process.
        action: the signal.
        struck: when it was sent, in seconds since 1970.
        ended: when all that it hit had ended.
    """
    lines = [line for path in run.glob("trace-*.jsonl") for line in lines_of(run, path.name)]
    before = [line for line in lines if line["time"] <= ended]
    done = max((line["step"] + 1 for line in before), default=0)
    after = min((e for e in events_of(run, "start") if e["time"] > ended), key=lambda e: e["time"])
    return {
        "action": action,
        "victim": victim,
        "phase": "step",
        "step": done,
        "lost_steps": max(0, done - after["step"]),
        "end_s": round(ended - struck, 2),
    }


def append(row: Mapping[str, Any]) -> None:
    """Add a row to the file of rows, where there is one."""
    if place := os.environ.get(ROWS):
        with Path(place).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")


def _cost(run: Path, fault: dict[str, Any]) -> dict[str, Any]:
    """What one fault cost: steps, and the seconds of each part of the recovery."""
    struck, attempt, planned = fault["time"], fault["attempt"], fault["planned"]
    cost = {
        "action": planned["action"],
        "victim": f"rank {fault['rank']}",
        "phase": planned["phase"],
        "step": fault["step"],
        "attempt": attempt,
    }
    heard = [e["time"] for e in events_of(run, "failed") if e["time"] >= struck]
    begun = [e for e in events_of(run, "attempt") if e["attempt"] == attempt + 1]
    if not begun:
        return cost | {"detect_s": _since(struck, heard)}
    born = begun[0]["time"] - begun[0]["process_age_s"]
    starts = [e for e in events_of(run, "start") if e["time"] >= begun[0]["time"]]
    traced = (line for path in run.glob("trace-*.jsonl") for line in lines_of(run, path.name))
    new = [t["time"] for t in traced if t["attempt"] > attempt and t["step"] >= fault["step"]]
    return cost | {
        "lost_steps": fault["step"] - starts[0]["step"] if starts else None,
        "detect_s": _since(struck, [*heard, born]),
        "regroup_s": _since(struck, [born]),
        "process_s": round(begun[0]["process_age_s"], 2),
        "restore_s": _since(begun[0]["time"], [e["time"] for e in starts]),
        "recover_s": _since(struck, new),
    }


def _since(began: float, times: Iterable[float]) -> float | None:
    later = [time - began for time in times if time >= began]
    return round(min(later), 2) if later else None


def leftovers(run: Path) -> list[str]:
    """What a run that ended has left behind, after 30 s at most."""
    pids = {pid for start in events_of(run, "start") for pid in start["pids"]}
    until = time.monotonic() + _GONE_WITHIN_S
    while (found := [*_files(run), *_processes(pids), *_of_ray()]) and time.monotonic() < until:
        time.sleep(0.2)
    return found


def _files(run: Path) -> list[str]:
    stray = list(run.rglob(".tmp-*"))
    stray += [run / name for name in ("stop", "ray") if (run / name).exists()]
    partial = [
        path
        for path in (run / "checkpoints").glob("*")
        if path.is_dir() and not (path / MANIFEST).exists()
    ]
    return [f"file {path.relative_to(run)}" for path in stray + partial]


def _processes(pids: Iterable[int]) -> list[str]:
    return [f"process {pid}" for pid in sorted(pids) if is_alive(pid)]


def _of_ray() -> list[str]:
    """Workers, controllers and placement groups of the cluster of this process, if it has one."""
    if not ray.is_initialized():
        return []
    kinds = ("RayTrainWorker", "TrainController")
    actors = [
        f"actor {actor['ActorClassName']}"
        for actor in ray_state.actors().values()
        if actor["State"] != "DEAD" and actor["ActorClassName"].startswith(kinds)
    ]
    groups = [g for g in placement_group_table().values() if g["state"] != "REMOVED"]
    return [*actors, *(f"placement group {group['name']}" for group in groups)]


def is_alive(pid: int) -> bool:
    """Whether a process runs or is stopped; one that only waits to be reaped does not."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "(zombie)" not in status


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)
