"""Workers without Ray: forked from a fresh process that has imported torch, joined by gloo."""

import multiprocessing
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed import FileStore  # pyright: ignore[reportPrivateImportUsage]

from twotower.core.config import ExperimentConfig
from twotower.core.storage import Store
from twotower.data.prepared import Prepared
from twotower.objectives.group import SINGLE
from twotower.runtime.fault import injector
from twotower.runtime.recorder import Recorder, Watch
from twotower.runtime.session import Place, run_session
from twotower.training.collectives import DistributedGroup

_FORK = multiprocessing.get_context("forkserver")
_FORK.set_forkserver_preload(
    ["twotower.runtime.reference", "twotower.training.collectives", "torch._dynamo"]
)
_TIMEOUT_S = 120


@dataclass
class Ended:
    """How the workers of one start ended."""

    codes: list[int | None] = field(default_factory=list)
    """Exit codes by rank; -9 after SIGKILL, 3 after one of our errors."""

    said: list[str] = field(default_factory=list)
    """Errors by rank, empty where there was none."""

    ended_at: float = 0.0
    """Seconds since 1970 at which the last of them was gone."""


def run_workers(config: ExperimentConfig, prepared: Prepared, store: Store) -> Ended:
    """Start `train.num_workers` processes of a run, once, and wait for their end."""
    world = config.train.num_workers
    folder = store.local_path()
    folder.mkdir(parents=True, exist_ok=True)
    meet = folder / f"meet-{time.monotonic_ns()}"
    processes = [
        _FORK.Process(
            target=_work, args=(config, str(prepared.store.local_path()), folder, rank, meet)
        )
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            process.join()
    ended = Ended([process.exitcode for process in processes], [], time.time())
    for rank in range(world):
        said = folder / f"said-{rank}"
        ended.said.append(said.read_text() if said.exists() else "")
        said.unlink(missing_ok=True)
    meet.unlink(missing_ok=True)
    return ended


def _work(config: ExperimentConfig, prepared: str, folder: Path, rank: int, meet: Path) -> None:
    torch.set_num_threads(1)
    group = SINGLE
    world = config.train.num_workers
    if world > 1:
        timeout = timedelta(seconds=config.train.collective_timeout_s)
        joined = FileStore(str(meet), world)
        dist.init_process_group("gloo", store=joined, rank=rank, world_size=world, timeout=timeout)
        group = DistributedGroup(torch.device("cpu"))
    store = Store(folder)
    faults = injector(config, store, rank)
    kept_in = faults.watch_store() if faults else store
    recorder = Recorder(kept_in, Watch(), keep=config.train.keep_checkpoints, rank=rank)
    place = Place(torch.device("cpu"), group)
    try:
        run_session(config, Prepared.open(prepared), recorder, place, faults=faults)
    except Exception as error:  # noqa: BLE001 - told to the parent
        notes = getattr(error, "__notes__", [])
        said = "; ".join([f"{type(error).__name__}: {error}", *notes])
        (folder / f"said-{rank}").write_text(said)
        raise SystemExit(getattr(error, "exit_code", 1)) from None
    finally:
        if world > 1:
            dist.destroy_process_group()
