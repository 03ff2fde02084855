"""Sampling-bias correction: how often an item is a candidate, as `-log q` on its column.

Shape letters:
    N items of the catalogue    C candidates
"""

from typing import Protocol

import torch
from torch import Tensor

from twotower.core.types import Int64


class LogQ(Protocol):
    """An estimate of how often an item is among the rows of a batch."""

    def observe(self, items: Tensor, step: int) -> None:
        """See the items ``(C,)`` of a global batch; the same on every rank."""
        ...

    def expected(self, items: Tensor, num_rows: int) -> Tensor:
        """Expected rows of each item ``(C,)`` in a batch of ``num_rows``."""
        ...

    def state_tensors(self) -> dict[str, Tensor]:
        """What must survive a restart, by name; the live tensors."""
        ...


class CountedLogQ:
    """An item's share of the train rows."""

    def __init__(self, counts: Int64, device: torch.device) -> None:
        """Build from the train rows ``(N,)`` of each item."""
        self._share = torch.as_tensor(counts / max(counts.sum(), 1)).to(device)

    def observe(self, items: Tensor, step: int) -> None:
        """Nothing to learn."""

    def expected(self, items: Tensor, num_rows: int) -> Tensor:
        """Share times rows, float64; 0 for an item without train rows (never in a batch)."""
        return self._share[items] * num_rows

    def state_tensors(self) -> dict[str, Tensor]:
        """Nothing: counts belong to the data."""
        return {}


class StreamingLogQ:
    """Mean gap between the steps that hold an item (Yi et al. 2019, algorithm 2).

    One slot an item, no hashing. Step numbers count from 1. An item that comes several times in a
    batch counts once: the estimate is of the probability that a batch holds it. The first gap is
    that of uniform draws.
    """

    def __init__(self, num_items: int, batch_size: int, rate: float, device: torch.device) -> None:
        """Build; ``rate`` is the weight of the newest gap, in (0, 1]."""
        self._rate = rate
        self._last = torch.zeros(num_items, dtype=torch.int64, device=device)
        first = max(1.0, num_items / batch_size)
        self._gap = torch.full((num_items,), first, dtype=torch.float64, device=device)

    def observe(self, items: Tensor, step: int) -> None:
        """Move the gaps of the batch's items; one that comes twice is written twice, alike."""
        newest = (step + 1 - self._last[items]).double()
        self._gap[items] = (1 - self._rate) * self._gap[items] + self._rate * newest
        self._last[items] = step + 1

    def expected(self, items: Tensor, num_rows: int) -> Tensor:  # noqa: ARG002 - the protocol's
        """1 / gap, float64: the probability that a batch holds the item."""
        return self._gap[items].reciprocal()

    def state_tensors(self) -> dict[str, Tensor]:
        """``last`` and ``gap``, ``(N,)`` each."""
        return {"last": self._last, "gap": self._gap}


def column_bias(
    logq: LogQ, items_C: Tensor, *, num_rows: int, num_mixed: int, num_items: int
) -> Tensor:
    """``-log q`` of each candidate, float64 ``(C,)``.

    q is the share of an item among all candidates: the batch's, and where there are mixed negatives
    the mixture ``(B q_batch + B' / N) / (B + B')`` (Yang et al. 2020).

    Args:
        logq: estimate of the batch's part.
        items_C: int64, items of the candidates.
        num_rows: B, real rows of the global batch.
        num_mixed: B', uniform negatives of the global batch.
        num_items: N, size of the catalogue.
    """
    among = logq.expected(items_C, num_rows) + num_mixed / num_items
    return -(among / (num_rows + num_mixed)).log()
