"""Preparation on a cluster of its own where there is none yet; what `twotower prepare` calls."""

from twotower.core.config import ExperimentConfig
from twotower.data import pipeline
from twotower.data.locate import PrepareResult, find_committed, find_inputs
from twotower.data.pipeline import Progress
from twotower.runtime.cluster import connect, wait_free
from twotower.runtime.stopping import stopped_at_once


def prepare(
    config: ExperimentConfig, *, on_progress: Progress | None = None, verbose: bool = False
) -> PrepareResult:
    """Prepare the data of a config; data that is prepared is found without starting Ray.

    Args:
        config: the experiment.
        on_progress: told of every unit of work that is done.
        verbose: let Ray's own logs reach the console.

    Raises:
        InputError: config or data can't be used, or another process prepares the same data.
        RunError: a task failed; the next call starts again.
        StoppedError: asked to stop by SIGTERM; the next call starts again.
    """
    found = find_committed(config, find_inputs(config.data))
    if found is not None:
        return found
    stoppable = stopped_at_once(f"{config.name}: stopped; the same command goes on")
    with stoppable, connect(config.cluster, verbose=verbose):
        wait_free("prepare: one task", 1, timeout_s=config.train.start_timeout_s)
        return pipeline.prepare(config, on_progress=on_progress)
