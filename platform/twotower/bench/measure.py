"""Wall time, CPU time and memory of a whole process tree, from /proc (Linux)."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Figures:
    """What a window of work cost."""

    wall_s: float
    cpu_s: float
    """CPU seconds of this process and its descendants, ended ones too if they were sampled."""

    peak_pss_mb: float
    """Peak of the summed proportional set size of the tree (shared pages once), in MiB."""

    others_share: float
    """Share of the machine that others used meanwhile; trust wall time where it is small."""

    def document(self) -> dict[str, float]:
        """The figures, rounded for people."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


class Window:
    """Samples the process tree in the background: ``with Window() as w: ...; w.figures``."""

    def __init__(self, period_s: float = 0.2) -> None:
        """Prepare to sample every ``period_s`` seconds."""
        self._period, self._stop = period_s, threading.Event()
        self._cpu: dict[tuple[int, str], float] = {}
        self._peak = 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Window":
        """Start the window."""
        self._sample()
        self._cpu_at_start, self._busy_at_start = sum(self._cpu.values()), _machine_busy_s()
        self._started = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the window and work the figures out."""
        wall = time.perf_counter() - self._started
        self._stop.set()
        self._thread.join()
        self._sample()
        cpu = sum(self._cpu.values()) - self._cpu_at_start
        others = max(0.0, _machine_busy_s() - self._busy_at_start - cpu) / (
            wall * (os.cpu_count() or 1)
        )
        self.figures = Figures(wall, cpu, self._peak, others)

    def _watch(self) -> None:
        while not self._stop.wait(self._period):
            self._sample()

    def _sample(self) -> None:
        pss = 0.0
        for pid, start, cpu in _tree(os.getpid()):
            self._cpu[pid, start] = cpu
            pss += _pss_mb(pid)
        self._peak = max(self._peak, pss)


def measured(work: Callable[[], T]) -> tuple[T, Figures]:
    """Run work inside a window."""
    with Window() as window:
        result = work()
    return result, window.figures


def forget_peak() -> None:
    """Start this process's `memory_mb("VmHWM")` anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def memory_mb(key: str) -> float:
    """Memory of this process in MiB: `VmRSS` that it holds now, `VmHWM` the most that it held."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


def cpu_seconds(root: int) -> dict[int, float]:
    """CPU seconds so far of a process and its living descendants, by process id."""
    return {pid: cpu for pid, _, cpu in _tree(root)}


def _tree(root: int) -> list[tuple[int, str, float]]:
    """(pid, start time, CPU seconds) of a process and its living descendants."""
    children: dict[int, list[int]] = {}
    found: dict[int, tuple[str, float]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:  # it ended between the listing and the look
            continue
        fields = text[text.rindex(")") + 2 :].split()
        pid = int(text.split(" ", 1)[0])
        children.setdefault(int(fields[1]), []).append(pid)
        found[pid] = (fields[19], (int(fields[11]) + int(fields[12])) / _TICK)
    tree, todo = [], [root]
    while todo:
        pid = todo.pop()
        if pid in found:
            tree.append((pid, *found[pid]))
            todo += children.get(pid, [])
    return tree


def _pss_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def _machine_busy_s() -> float:
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICK
