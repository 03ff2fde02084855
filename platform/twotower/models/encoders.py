"""How a query's history becomes one vector of the query tower's input.

Shape letters:
    b rows    H history items of all rows    T length of the longest history    E embedding width
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.models.embeddings.bags import Bags
from twotower.models.layers import generator, linear


@dataclass(frozen=True, slots=True)
class Histories:
    """Histories of some rows: H items in all, newest first within a row."""

    lengths: Tensor
    """int64 ``(b,)``: items of each row's history; 0 is legal."""

    row: Tensor
    """int64 ``(H,)``: the row of each item."""

    longest: int
    """T, at least 1."""


class HistoryEncoder(Protocol):
    """Two halves round the lookup: which bags are looked up, and what is made of them."""

    def regroup(self, bags: Bags, histories: Histories) -> Bags:
        """Bags of the single history items -> bags that are looked up."""
        ...

    def __call__(self, found: Tensor, histories: Histories) -> Tensor:
        """What the lookup gave -> ``(b, E)``; zeros for an empty history."""
        ...


class MeanHistory(nn.Module):
    """Mean of the history's embeddings, made by the lookup itself: one bag a row."""

    def regroup(self, bags: Bags, histories: Histories) -> Bags:
        """Merge the items' bags of a row into one; an empty history is an empty bag."""
        lengths_b = histories.lengths
        row_N = histories.row[bags.bag]
        share_b = lengths_b.clamp(min=1).to(bags.weights.dtype).reciprocal()
        entries_b = torch.zeros_like(lengths_b).index_add_(0, histories.row, bags.lengths.long())
        return Bags(
            bags.ids,
            bags.weights * share_b[row_N],
            row_N.to(torch.int32),
            entries_b.to(torch.int32),
        )

    def forward(self, found_bE: Tensor, histories: Histories) -> Tensor:  # noqa: ARG002 - one protocol
        """The lookup's mean as it is; an empty bag is zeros."""
        return found_bE


class AttentionHistory(nn.Module):
    """One causal self-attention block over the history, read at its newest item.

    As in SASRec (arXiv 1808.09781 sec. 3).
    Only the newest position's output is used, so only its row of the attention is computed; being
    the last one, it may see every position. One head, no dropout, pre-normalised queries.
    Positions count from the newest item (0), so that they mean the same in histories of any length.
    """

    def __init__(self, width: int, max_values: int, seed: int) -> None:
        """Build for histories of up to ``max_values`` items of ``width`` numbers."""
        super().__init__()
        source = generator(seed, "history")
        self.positions = nn.Parameter(
            torch.empty(max_values, width).normal_(0, 1 / math.sqrt(width), generator=source)
        )
        self.query, self.key, self.value = (linear(width, width, source) for _ in range(3))
        self.inner, self.outer = linear(width, width, source), linear(width, width, source)
        self.attention_norm, self.feed_norm, self.last_norm = (
            nn.LayerNorm(width) for _ in range(3)
        )

    def regroup(self, bags: Bags, histories: Histories) -> Bags:  # noqa: ARG002 - one protocol
        """The items' own bags: attention needs each item's embedding."""
        return bags

    def forward(self, found_HE: Tensor, histories: Histories) -> Tensor:
        """Attend.

        Args:
            found_HE: embeddings of all history items.
            histories: which rows they belong to.

        Returns:
            ``(b, E)``; zeros where the history is empty.
        """
        lengths_b, row_H, longest = histories.lengths, histories.row, histories.longest
        b, width = len(lengths_b), found_HE.shape[1]
        start_b = lengths_b.cumsum(0) - lengths_b
        place_H = torch.arange(len(row_H), device=row_H.device) - start_b[row_H]
        x_bTE = (
            found_HE.new_zeros(b * longest, width)
            .index_copy(0, row_H * longest + place_H, found_HE + self.positions[place_H])
            .view(b, longest, width)
        )
        newest_bE = self.attention_norm(x_bTE[:, 0])
        scores_bT = torch.einsum("be,bte->bt", self.query(newest_bE), self.key(x_bTE))
        real_bT = torch.arange(longest, device=row_H.device) < lengths_b[:, None]
        # An empty history attends to its zero padding: finite, and cut off at the end.
        allowed_bT = real_bT | (lengths_b == 0)[:, None]
        shares_bT = (scores_bT / math.sqrt(width)).masked_fill(~allowed_bT, -math.inf).softmax(1)
        mixed_bE = newest_bE + torch.einsum("bt,bte->be", shares_bT, self.value(x_bTE))
        fed_bE = self.feed_norm(mixed_bE)
        fed_bE = fed_bE + self.outer(F.relu(self.inner(fed_bE)))
        return self.last_norm(fed_bE) * (lengths_b > 0)[:, None]
