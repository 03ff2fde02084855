"""Where a step's time goes, between two logging steps."""

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Meter:
    """Seconds by phase and rows, since the last summary; times of the host's clock."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._rows = self._steps = 0
        self._since = time.perf_counter()

    @contextmanager
    def time(self, phase: str) -> Generator[None, None, None]:
        """Add the time spent inside to ``phase``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self._seconds[phase] = self._seconds.get(phase, 0.0) + spent

    def timed(self, items: Iterable[T], phase: str) -> Iterator[T]:
        """Iterate, adding the waits for the next item to ``phase``."""
        source = iter(items)
        while True:
            with self.time(phase):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item

    def add_step(self, rows: int) -> None:
        """Count one step over ``rows`` rows of the global batch."""
        self._rows += rows
        self._steps += 1

    def summary(self) -> dict[str, float]:
        """``<phase>_s`` of each phase, ``wall_s``, ``steps``, ``rows_per_s``; starts afresh."""
        wall = time.perf_counter() - self._since
        out = {f"{phase}_s": seconds for phase, seconds in self._seconds.items()}
        out |= {"wall_s": wall, "steps": float(self._steps), "rows_per_s": self._rows / wall}
        self.__init__()
        return out
