"""What the loop remembers beside the model: best so far, patience, sums since the last line."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from twotower.core.errors import DivergedError

_NEVER = 2**62


@dataclass(frozen=True, slots=True)
class Best:
    """The best validation so far."""

    step: int
    epoch: int
    """Passes finished."""

    metric: str
    value: float


class Window:
    """Sums of the loss parts since the last line, on the device until somebody asks.

    They are part of a checkpoint, so a resumed run writes the same lines as an unbroken one.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._first_bad: Tensor | None = None

    def add(self, losses: Mapping[str, Tensor], step: int) -> None:
        """Add the parts of one step, 0-d tensors; no host sync."""
        for name, value in losses.items():
            total = self._sums.get(name)
            self._sums[name] = value.double() if total is None else total + value
            self._counts[name] = self._counts.get(name, 0) + 1
        bad = torch.where(torch.isfinite(losses["loss"]), _NEVER, step)
        self._first_bad = bad if self._first_bad is None else self._first_bad.minimum(bad)

    def check(self) -> None:
        """Wait for the device; DivergedError naming the first step whose loss was not finite."""
        step = _NEVER if self._first_bad is None else int(self._first_bad)
        if step != _NEVER:
            raise DivergedError(
                f"step {step}: the loss is not finite; lower train.learning_rate, set "
                "train.clip_norm, or raise loss.temperature and ssl.temperature"
            )

    def close(self) -> dict[str, float]:
        """Means of the parts since the last call, then start anew; DivergedError as `check`."""
        self.check()
        means = {name: total / self._counts[name] for name, total in self._values().items()}
        self._sums, self._counts, self._first_bad = {}, {}, None
        return means

    def document(self) -> dict[str, Any]:
        """JSON that `load` reads back exactly; DivergedError as `check`."""
        self.check()
        return {"sums": self._values(), "counts": dict(self._counts)}

    def load(self, document: Mapping[str, Any], device: torch.device) -> None:
        """Take over what `document` returned."""
        self._sums = {
            name: torch.tensor(value, dtype=torch.float64, device=device)
            for name, value in document["sums"].items()
        }
        self._counts, self._first_bad = dict(document["counts"]), None

    def _values(self) -> dict[str, float]:
        if not self._sums:
            return {}
        return dict(zip(self._sums, torch.stack(list(self._sums.values())).tolist(), strict=True))


@dataclass(slots=True)
class Progress:
    """The loop's own part of a checkpoint: plain JSON, equal on all ranks."""

    best: Best | None = None
    stale: int = 0
    """Validations since the best one."""

    window: Window = field(default_factory=Window)

    def observe(self, validation: Best) -> bool:
        """Note a validation; whether it is the best so far."""
        better = self.best is None or validation.value > self.best.value
        if better:
            self.best = validation
        self.stale = 0 if better else self.stale + 1
        return better

    def document(self) -> dict[str, Any]:
        """JSON that `load` reads back exactly; DivergedError as `Window.check`."""
        return {
            "best": asdict(self.best) if self.best else None,
            "stale": self.stale,
            "window": self.window.document(),
        }

    def load(self, document: Mapping[str, Any], device: torch.device) -> None:
        """Take over what `document` returned."""
        self.best = Best(**document["best"]) if document["best"] else None
        self.stale = document["stale"]
        self.window.load(document["window"], device)
