"""Timed windows over a training loop that runs: cut where the loop logs a line."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Timing:
    """How long is measured."""

    windows: int = 3
    seconds: float = 5.0
    """Least length of a window."""

    warmup_s: float = 3.0
    """Least time before the first window."""


@dataclass(slots=True)
class _Window:
    wall_s: float = 0.0
    cpu_s: float = 0.0
    rows: int = 0
    steps: int = 0
    loop_s: float = 0.0
    """Time in steps and waiting for data, as the loop's own lines say."""

    wait_s: float = 0.0


class Windows:
    """Sees every line of metrics; `is_done` once all windows are measured."""

    def __init__(
        self,
        timing: Timing,
        on_begin: Callable[[], None] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        """Start the warm-up.

        Args:
            timing: how long.
            on_begin: called when the first window begins.
            on_end: called when the last one ends.
        """
        self.timing = timing
        self._on_begin, self._on_end = on_begin, on_end
        self.closed: list[_Window] = []
        self._open: _Window | None = None
        self._step, self._cpu = 0, 0.0
        self._since = time.perf_counter()

    @property
    def is_done(self) -> bool:
        """Whether the last window is closed."""
        return len(self.closed) == self.timing.windows

    def see(self, line: Mapping[str, Any]) -> None:
        """Take a line of the loop's metrics; lines of other kinds than `train` don't count."""
        if line["kind"] != "train" or self.is_done:
            return
        now, cpu = time.perf_counter(), time.process_time()
        if self._open is None:
            if now - self._since >= self.timing.warmup_s:
                if self._on_begin:
                    self._on_begin()
                self._begin(line["step"])
            return
        window = self._open
        spent = line["data_wait_s"] + line["step_s"]
        window.rows += round(line["rows_per_s"] * spent)
        window.loop_s += spent
        window.wait_s += line["data_wait_s"]
        window.wall_s, window.cpu_s = now - self._since, cpu - self._cpu
        window.steps = line["step"] - self._step
        if window.wall_s >= self.timing.seconds:
            self.closed.append(window)
            if self.is_done and self._on_end:
                self._on_end()
            self._begin(line["step"])

    def document(self) -> dict[str, Any]:
        """Figures of the median window; `spread` is (largest - smallest) / median over windows."""
        rates = [window.rows / window.wall_s for window in self.closed]
        loop_rates = [window.rows / window.loop_s for window in self.closed]
        return {
            "examples_per_s": round(statistics.median(rates)),
            "step_ms": round(statistics.median(w.wall_s / w.steps for w in self.closed) * 1e3, 2),
            "spread": spread(rates),
            "loop_examples_per_s": round(statistics.median(loop_rates)),
            "cpu_us_per_example": round(
                sum(window.cpu_s for window in self.closed) / self.rows() * 1e6, 2
            ),
            "data_wait_share": round(self.wait_s() / self.loop_s(), 4),
            "windows_examples_per_s": [round(rate) for rate in rates],
            "steps": sum(window.steps for window in self.closed),
        }

    def wall_s(self) -> float:
        """Seconds of all windows together."""
        return sum(window.wall_s for window in self.closed)

    def wait_s(self) -> float:
        """Seconds of them in which the loop waited for data."""
        return sum(window.wait_s for window in self.closed)

    def loop_s(self) -> float:
        """Seconds of them in steps and waiting for data, by the loop's own lines."""
        return sum(window.loop_s for window in self.closed)

    def rows(self) -> int:
        """Rows of all windows."""
        return sum(window.rows for window in self.closed)

    def _begin(self, step: int) -> None:
        self._open, self._step = _Window(), step
        self._since, self._cpu = time.perf_counter(), time.process_time()


def spread(values: Sequence[float]) -> float:
    """(largest - smallest) / median."""
    return round((max(values) - min(values)) / statistics.median(values), 4)
