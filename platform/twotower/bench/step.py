"""Our training loop without Ray, timed: `runtime/reference` over prepared data, as trials run it.

`python -m twotower.bench.step` is the process of one measurement.
"""

import resource
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

from twotower.bench.measure import Window
from twotower.bench.shares import timed_phases
from twotower.bench.task import serve
from twotower.bench.windows import Timing, Windows
from twotower.core.config import ExperimentConfig
from twotower.core.errors import RunError, StoppedError
from twotower.data.prepared import Prepared
from twotower.runtime.recorder import Watch
from twotower.runtime.reference import Machine, train_reference

LOOK_EVERY_S = 30.0
"""Seconds between looks at the process tree beside those at both ends of the windows: each walks
all pages of all its processes."""


def measure_step(
    config: ExperimentConfig, prepared: Prepared, machine: Machine, timing: Timing
) -> dict[str, Any]:
    """Train until all windows are timed, then stop.

    Returns:
        `Windows.document`, with ``shares`` (of the windows' time, by phase), ``startup_s`` (to the
        first window), ``peak_rss_mb`` and ``others_share``.

    Raises:
        RunError: training ended before the windows did.
    """
    began = time.perf_counter()
    found: dict[str, Any] = {}
    with ExitStack() as stack, timed_phases() as phases:
        tree = Window(LOOK_EVERY_S)

        def begin() -> None:
            found["startup_s"] = round(time.perf_counter() - began, 2)
            phases.reset()
            stack.enter_context(tree)

        def end() -> None:
            stack.close()
            found["shares"] = phases.shares(windows.wall_s(), windows.wait_s())
            found["others_share"] = round(tree.figures.others_share, 3)

        windows = Windows(timing, on_begin=begin, on_end=end)
        watch = Watch(on_line=windows.see, should_stop=lambda: windows.is_done)
        with suppress(StoppedError):
            train_reference(config, prepared, watch=watch, machine=machine, final=False)
    if not windows.is_done:
        raise RunError("training ended before it was timed: train.num_epochs is too low")
    return {**windows.document(), **found, "peak_rss_mb": peak_rss_mb()}


def peak_rss_mb() -> float:
    """Most memory that this process has held, in MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _measure(spec: Mapping[str, Any]) -> dict[str, Any]:
    machine = Machine(threads=spec["threads"], device=spec["device"])
    config = ExperimentConfig.model_validate(spec["config"])
    return measure_step(config, Prepared.open(spec["prepared"]), machine, Timing(**spec["timing"]))


if __name__ == "__main__":
    serve(_measure)
