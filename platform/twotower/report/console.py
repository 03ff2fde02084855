"""What a person sees while work goes on: one progress line on stderr, silent where nobody looks."""

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from twotower.core.console import console

_PHASES = {
    "prepare": "preparing the data",
    "start": "starting workers",
    "train": "training",
    "evaluate": "evaluating",
    "baselines": "scoring popularity, content, item_knn",
}


class Trials(Protocol):
    """What the display needs to know of a search under way."""

    @property
    def finished(self) -> int:
        """Trials that have ended, in whatever way."""
        ...

    @property
    def total(self) -> int:
        """Trials of the whole search."""
        ...


class Study(Protocol):
    """What the display needs to know of a study under way."""

    @property
    def done(self) -> int:
        """Runs that have ended."""
        ...

    @property
    def total(self) -> int:
        """Runs of the whole study."""
        ...

    @property
    def left_s(self) -> float | None:
        """Seconds that are left at the pace of like runs; None while that is not known."""
        ...

    @property
    def doing(self) -> str:
        """What happens now."""
        ...


class Display:
    """One line that moves: what is done now, how far it is, how long it will take.

    On a terminal it is redrawn in place; elsewhere each phase is one plain line. Nothing is
    written to stdout, which belongs to results.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        """Prepare a display; ``quiet`` shows nothing at all."""
        self._console = console(stderr=True)
        self._live = self._console.is_terminal and not quiet
        self._plain = not self._live and not quiet
        self._label = ""
        self._prefix = ""
        self._task: TaskID | None = None
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
            console=self._console,
            transient=True,
            disable=not self._live,
        )

    def __enter__(self) -> "Display":
        """Start drawing."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Clear the line."""
        self._bar.stop()

    def about(self, prefix: str) -> None:
        """What the coming phases belong to, such as the method being trained."""
        self._prefix = f"{prefix}: " if prefix else ""

    def show(self, label: str, done: float, total: float | None, detail: str = "") -> None:
        """Show that ``done`` of ``total`` units of a phase are done; None = not known yet."""
        label = self._prefix + label
        if label != self._label:
            self._label = label
            if self._plain:
                sys.stderr.write(label + "\n")
                sys.stderr.flush()
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(label, total=total, detail="")
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total, detail=detail)

    def on_prepare(self, stage: str, done: int, total: int) -> None:
        """Progress of a preparation: tasks done of a stage."""
        self.show(f"preparing the data ({stage})", done, total)

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Progress of a training run: its phases and the lines of its metrics."""
        kind = event.get("kind")
        if kind == "phase":
            phase = str(event["phase"])
            self._total = event.get("total_steps")
            self.show(_PHASES.get(phase, phase), event.get("step", 0), self._total)
        elif kind == "train" and "loss" in event:
            self.show(_PHASES["train"], event["step"], self._total, f"loss {event['loss']:.4f}")
        elif kind == "validation":
            found = {key: value for key, value in event.items() if key.startswith("recall@")}
            shown = "  ".join(f"{key} {value:.4f}" for key, value in found.items())
            self.show(_PHASES["train"], event["step"], self._total, f"validation {shown}")

    def on_search(self, progress: Trials) -> None:
        """Progress of a search: trials ended of all, and the best so far."""
        best = getattr(progress, "best", None)
        detail = f"best {best.value:.4f} (trial {best.number})" if best is not None else ""
        self.show("searching", progress.finished, progress.total, detail)

    def on_study(self, progress: Study) -> None:
        """Progress of a study: runs ended of all, and the time left by what like runs took."""
        left = "" if progress.left_s is None else f"about {_hours(progress.left_s)} left, "
        count = f"{progress.done} of {progress.total} runs, "
        self.show("studying", progress.done, progress.total, f"{count}{left}{progress.doing}")

    _total: float | None = None


def _hours(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
