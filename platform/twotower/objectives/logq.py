"""Sampling-bias correction: how often an item is a candidate, as `-log q` on its column.

Shape letters:
    N items of the catalogue    C candidates
"""

from typing import Protocol

import torch
from torch import Tensor

from twotower.core.types import Int64


class LogQ(Protocol):
    """How often an item is among the rows of a batch."""

    def observe(self, items: Tensor, step: int) -> None:
        """See the items ``(C,)`` of a global batch; the same on every rank."""
        ...

    def expected(self, items: Tensor, num_rows: int) -> Tensor:
        """What each item ``(C,)`` counts for in a batch of ``num_rows``, at least 0.

        Its expected rows (`CountedLogQ`), or the probability that it is there (`StreamingLogQ`).
        """
        ...

    def state_tensors(self) -> dict[str, Tensor]:
        """What must survive a restart, by name; the live tensors."""
        ...


class CountedLogQ:
    """An item's share of the train rows: exact, an epoch holds each of them once."""

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

    One slot an item, no hashing. Step numbers count from 1. The first gap is that of uniform draws.

    The estimate is of the probability that a batch holds the item, where `CountedLogQ` has its
    rows. For an item that is expected much less than once a batch the two are one; an item that
    comes several times still counts for one row, so popular items are corrected too little.
    """

    def __init__(self, num_items: int, batch_size: int, rate: float, device: torch.device) -> None:
        """Build; ``rate`` is the weight of the newest gap, in (0, 1]."""
        self._rate, self._batch_size = rate, batch_size
        self._last = torch.zeros(num_items, dtype=torch.int64, device=device)
        first = max(1.0, num_items / batch_size)
        self._gap = torch.full((num_items,), first, dtype=torch.float64, device=device)

    def observe(self, items: Tensor, step: int) -> None:
        """Move the gaps of the batch's items; one that comes twice is written twice, alike."""
        newest = (step + 1 - self._last[items]).double()
        self._gap[items] = (1 - self._rate) * self._gap[items] + self._rate * newest
        self._last[items] = step + 1

    def expected(self, items: Tensor, num_rows: int) -> Tensor:
        """Probability that ``num_rows`` rows hold the item, float64: 1 / gap of a whole batch's.

        A shorter batch misses it by the power ``num_rows / batch_size`` of what a whole one does.
        """
        misses = (-self._gap[items].reciprocal().clamp(max=1)).log1p()
        return -(misses * (num_rows / self._batch_size)).expm1()

    def state_tensors(self) -> dict[str, Tensor]:
        """``last`` and ``gap``, ``(N,)`` each."""
        return {"last": self._last, "gap": self._gap}


def column_bias(
    logq: LogQ, items_C: Tensor, *, num_rows: int, num_mixed: int, num_items: int
) -> Tensor:
    """``-log q`` of each candidate, float64 ``(C,)``.

    q is the share of an item among all candidates: the batch's, and where there are mixed negatives
    the mixture ``(B q_batch + B' / N) / (B + B')`` (Yang et al. 2020). All shares together are 1
    where ``logq`` counts rows, and less where it counts an item once a batch.

    Args:
        logq: B q_batch of each item.
        items_C: int64, items of the candidates.
        num_rows: B, real rows of the global batch.
        num_mixed: B', uniform negatives of the global batch.
        num_items: N, size of the catalogue.
    """
    among = logq.expected(items_C, num_rows) + num_mixed / num_items
    return -(among / (num_rows + num_mixed)).log()
