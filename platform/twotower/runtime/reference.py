"""The training loop without Ray, in one process.

What trials of a search, tests and the measure of Ray's overhead run. Imports with Ray uninstalled.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from twotower.core.config import ExperimentConfig
from twotower.core.storage import Store
from twotower.data.prepared import Prepared
from twotower.runtime.fault import injector
from twotower.runtime.recorder import Recorder, Watch
from twotower.runtime.session import Outcome, Place, run_session
from twotower.training.questions import EvalPart


@dataclass(frozen=True, slots=True)
class Machine:
    """What this process computes on."""

    threads: int = 1
    """Torch threads."""

    device: str = "cpu"
    """`cpu`, `cuda`, `cuda:1`."""


def train_reference(
    config: ExperimentConfig,
    prepared: Prepared,
    *,
    store: Store | None = None,
    watch: Watch | None = None,
    machine: Machine | None = None,
    final: bool = True,
) -> Outcome:
    """Train a config in this process, whatever `train.num_workers` says.

    Args:
        config: the experiment.
        prepared: its dataset.
        store: the run directory, resumed where it holds checkpoints; None keeps nothing.
        watch: sees every line of metrics, and may end the run.
        machine: threads (put back afterwards) and device; by default one thread of the CPU.
        final: evaluate validation and test at the end; a search leaves test alone.

    Raises:
        StoppedError: the watch asked for it.
        RunError: training failed; DivergedError where its numbers left the finite ones.
    """
    machine = machine or Machine()
    faults = injector(config, store)
    kept_in = faults.watch_store() if faults else store
    recorder = Recorder(
        kept_in,
        watch or Watch(),
        keep=config.train.keep_checkpoints,
        background=config.train.checkpoint_async,
    )
    parts: tuple[EvalPart, ...] = ("validation", "test") if final else ()
    with threads(machine.threads):
        place = Place(torch.device(machine.device))
        return run_session(config, prepared, recorder, place, parts, faults)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
