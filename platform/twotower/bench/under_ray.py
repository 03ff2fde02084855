"""Our training loop under Ray Train, timed: `runtime/launch`, as `twotower train` runs it.

The run is stopped (SIGTERM to ourselves) once it is timed, so that no evaluation follows.
`python -m twotower.bench.under_ray` is the process of one measurement: it is the driver, and the
local cluster lives below it.
"""

import os
import signal
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

from twotower.bench.measure import Window, cpu_seconds
from twotower.bench.step import LOOK_EVERY_S
from twotower.bench.task import serve
from twotower.bench.windows import Timing, Windows
from twotower.core.config import ExperimentConfig
from twotower.core.errors import RunError, StoppedError
from twotower.core.loading import with_overrides
from twotower.runtime.launch import train
from twotower.runtime.recorder import EVENTS, JsonLines
from twotower.runtime.run_folder import RunFolder


class _Split:
    """CPU seconds of the workers and of all else below this process, between two looks.

    All else is Ray's own: raylet, GCS, agents, the controller of Ray Train, and this driver.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        self._events = JsonLines(RunFolder(config).store, EVENTS)

    def begin(self) -> None:
        """The first look."""
        starts = [line for line in self._events.lines() if line["event"] == "start"]
        self._workers = set(starts[-1]["pids"])
        self._at_begin = cpu_seconds(os.getpid())

    def end(self) -> None:
        """The second; seconds of processes that ended in between are not seen."""
        now = cpu_seconds(os.getpid())
        spent = {pid: cpu - self._at_begin.get(pid, 0.0) for pid, cpu in now.items()}
        self.worker_cpu_s = sum(cpu for pid, cpu in spent.items() if pid in self._workers)
        self.ray_cpu_s = sum(spent.values()) - self.worker_cpu_s
        self.worker_peak_rss_mb = sum(_peak_rss_mb(pid) for pid in self._workers)


def measure_under_ray(config: ExperimentConfig, timing: Timing) -> dict[str, Any]:
    """Train under Ray Train on a local cluster until all windows are timed, then stop.

    Rates are those of the loop's own lines: rows over the time in steps and waiting for data, so
    that when a line reaches the driver doesn't matter.

    Returns:
        ``examples_per_s``, ``step_ms``, ``data_wait_share``, ``cpu_us_per_example`` of the
        workers, ``ray_cpus_used`` (CPU seconds a second of Ray's own processes), and with that
        taken off ``examples_per_s_net`` = ``examples_per_s`` / (1 - ``ray_cpus_used`` / CPUs).

    Raises:
        RunError: training ended before the windows did.
    """
    with ExitStack() as stack:
        tree, split = Window(LOOK_EVERY_S), _Split(config)

        def begin() -> None:
            stack.enter_context(tree)
            split.begin()

        def end() -> None:
            split.end()
            stack.close()
            os.kill(os.getpid(), signal.SIGTERM)

        windows = Windows(timing, on_begin=begin, on_end=end)
        with suppress(StoppedError):
            train(config, on_progress=windows.see)
    if not windows.is_done:
        raise RunError("training ended before it was timed: train.num_epochs is too low")
    timed, ray_cpus = windows.document(), split.ray_cpu_s / windows.wall_s()
    rate, cpus = timed["loop_examples_per_s"], len(os.sched_getaffinity(0))
    return {
        "examples_per_s": rate,
        "examples_per_s_net": round(rate / (1 - ray_cpus / cpus)),
        "step_ms": round(windows.loop_s() / timed["steps"] * 1e3, 2),
        "spread": timed["spread"],
        "cpu_us_per_example": round(split.worker_cpu_s / windows.rows() * 1e6, 2),
        "ray_cpus_used": round(ray_cpus, 4),
        "data_wait_share": timed["data_wait_share"],
        "peak_rss_mb": round(split.worker_peak_rss_mb, 1),
        "tree_pss_mb": round(tree.figures.peak_pss_mb, 1),
        "others_share": round(tree.figures.others_share, 3),
        "steps": timed["steps"],
    }


def _peak_rss_mb(pid: int) -> float:
    with open(f"/proc/{pid}/status") as stream:  # noqa: PTH123 - a process's, not a file of ours
        return next(int(line.split()[1]) / 1024 for line in stream if line.startswith("VmHWM"))


def _measure(spec: Mapping[str, Any]) -> dict[str, Any]:
    config = ExperimentConfig.model_validate(spec["config"])
    with tempfile.TemporaryDirectory(prefix="twotower-bench-") as runs:
        placed = with_overrides(
            config, {"storage.runs": runs, "cluster.num_cpus": len(os.sched_getaffinity(0))}
        )
        return measure_under_ray(placed, Timing(**spec["timing"]))


if __name__ == "__main__":
    serve(_measure)
