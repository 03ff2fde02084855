"""Bytes and seconds of a process's collectives, counted where they enter `torch.distributed`."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from twotower.training import collectives

_OWN_TENSOR = {
    "all_reduce": 0,
    "all_gather_single": 1,
    "reduce_scatter_single": 1,
    "all_to_all_single": 1,
    "broadcast": 0,
}
"""Collective -> which argument is the worker's own tensor."""

_TORCH = str(Path(torch.__file__).parent)


class Traffic:
    """What this process handed to collectives."""

    def __init__(self) -> None:
        self.by_collective: Counter[str] = Counter()
        """Bytes."""

        self.by_caller: Counter[str] = Counter()
        """Bytes by the function that asked; `backward` sums gradients of gathered candidates."""

        self.seconds = 0.0
        """Time inside, waiting for other workers included."""

    def reset(self) -> None:
        """Forget what was counted so far."""
        self.by_collective.clear()
        self.by_caller.clear()
        self.seconds = 0.0

    def counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The collective, what goes through it counted."""

        def run(*args: Any, **kwargs: Any) -> Any:
            mine: Tensor = args[_OWN_TENSOR[name]]
            size = mine.numel() * mine.element_size()
            self.by_collective[name] += size
            self.by_caller[_caller()] += size
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - began

        return run


@contextmanager
def counted_traffic() -> Iterator[Traffic]:
    """Count what this process hands to collectives inside the block."""
    traffic = Traffic()
    with ExitStack() as restore:
        for name in _OWN_TENSOR:
            if original := getattr(dist, name, None):
                restore.callback(setattr, dist, name, original)
                setattr(dist, name, traffic.counted(name, original))
        yield traffic


def wire_bytes(by_collective: Mapping[str, float], workers: int) -> float:
    """Bytes that a worker sends where every collective goes round a ring.

    A sum sends 2 (W - 1) / W of the tensor, a gather W - 1 times the worker's own part, the other
    ones (W - 1) / W of it.
    """
    others = (workers - 1) / workers
    factors = {"all_reduce": 2 * others, "all_gather_single": workers - 1.0}
    return sum(size * factors.get(name, others) for name, size in by_collective.items())


def _caller() -> str:
    """The first function outside torch and the group's own code; `backward` where it is that."""
    frame = sys._getframe(2)
    while frame:
        code, own = frame.f_code, frame.f_code.co_filename == collectives.__file__
        if own and code.co_name == "backward":
            return "backward"
        if not own and not code.co_filename.startswith(_TORCH):
            return code.co_name
        frame = frame.f_back
    return "unknown"
