"""Where the time of a step goes, by phase: timers round the calls that `train_step` makes.

The softmax makes its gradient in the forward pass, so `softmax` holds both its directions and
`backward` is that of the towers and of the norms.
"""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from twotower.models.features import SideTable
from twotower.models.two_tower import Looked, TwoTower
from twotower.objectives.plan import Planner
from twotower.objectives.total import Objective
from twotower.training.optim import Optimizer

PHASES = ("data_wait", "draws", "lookup", "towers", "softmax", "backward", "update", "other")
"""`lookup` gathers ids and sums rows; `update` sums gradients by row, exchanges and applies them;
`draws` are what the step draws and counts before it; `other` is the loop round the step."""

_CALLS: tuple[tuple[Any, tuple[str, ...], str], ...] = (
    (Planner, ("plan",), "draws"),
    (SideTable, ("expand", "slots", "inputs"), "lookup"),
    (TwoTower, ("query_inputs", "look_up"), "lookup"),
    (TwoTower, ("embed",), "towers"),
    (Objective, ("losses",), "softmax"),
    (torch.autograd, ("backward",), "backward"),
    (Looked, ("gradients",), "update"),
    (Optimizer, ("step",), "update"),
)


class PhaseTimer:
    """Seconds by phase on the host's clock; a phase inside another counts for itself only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside: list[str] = []
        self._since = 0.0

    def reset(self) -> None:
        """Forget what was timed so far."""
        self.seconds.clear()

    def shares(self, wall_s: float, wait_s: float) -> dict[str, float]:
        """Share of each of `PHASES` in ``wall_s`` seconds, of which ``wait_s`` waited for data."""
        spent = {**self.seconds, "data_wait": wait_s}
        spent["other"] = max(0.0, wall_s - sum(spent.values()))
        return {phase: round(spent.get(phase, 0.0) / wall_s, 4) for phase in PHASES}

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time added to a phase."""

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            self._switch()
            self._inside.append(phase)
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self._inside.pop()

        return run

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._inside:
            phase = self._inside[-1]
            self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now


@contextmanager
def timed_phases() -> Iterator[PhaseTimer]:
    """Time the phases of every step of this process inside the block; costs microseconds a step."""
    timer = PhaseTimer()
    with ExitStack() as restore:
        for owner, names, phase in _CALLS:
            for name in names:
                original = getattr(owner, name)
                restore.callback(setattr, owner, name, original)
                setattr(owner, name, timer.timed(phase, original))
        yield timer
