"""How a query's history becomes one vector of the query tower's input.

Shape letters:
    b rows    H history items of all rows    T length of the longest history    E embedding width
    S newest positions that are read    J heads
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.models.embeddings.bags import Bags
from twotower.models.layers import generator, linear
from twotower.models.noise import Noise


@dataclass(frozen=True, slots=True)
class Histories:
    """Histories of some rows: H items in all, newest first within a row."""

    lengths: Tensor
    """int64 ``(b,)``: items of each row's history; 0 is legal."""

    row: Tensor
    """int64 ``(H,)``: the row of each item."""

    longest: int
    """T, at least 1."""

    noise: Noise | None = None
    """Draws of this step's dropout; None in evaluation."""


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


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the items of the histories lie in ``(b, T)``, and what drops out there."""

    histories: Histories
    place: Tensor
    """int64 ``(H,)``: position of each item in its history, 0 = the newest."""

    rate: float
    max_values: int

    def spread(self, x_HE: Tensor) -> Tensor:
        """Items' vectors at their positions: ``(b, T, E)``, zeros after a history's end."""
        rows, longest = len(self.histories.lengths), self.histories.longest
        at_H = self.histories.row * longest + self.place
        spread = x_HE.new_zeros(rows * longest, x_HE.shape[1]).index_copy(0, at_H, x_HE)
        return spread.view(rows, longest, x_HE.shape[1])

    def dropped(self, x_bSE: Tensor, site: int) -> Tensor:
        """Dropout of the vectors at all positions, or at the newest one."""
        noise, row_H = self.histories.noise, self.histories.row
        if noise is None or self.rate == 0:
            return x_bSE
        # Numbered by how long a history may be, not by the longest one here: that differs between
        # workers.
        first_b = torch.tensor(noise.position).to(row_H.device, non_blocking=True) * self.max_values
        if x_bSE.shape[1] == 1:
            return noise.dropped(x_bSE[:, 0], first_b, rate=self.rate, site=site)[:, None]
        at_H = row_H * self.histories.longest + self.place
        x_HE = x_bSE.flatten(0, 1).index_select(0, at_H)
        place_H = first_b[row_H] + self.place
        return self.spread(noise.dropped(x_HE, place_H, rate=self.rate, site=site))


class AttentionBlock(nn.Module):
    """Causal self-attention and two position-wise layers (arXiv 1808.09781 sec. 3.2).

    Normalised queries, on which both residuals stand, as in the authors' code.
    """

    def __init__(self, width: int, num_heads: int, source: torch.Generator) -> None:
        """Build; ``num_heads`` divides ``width``."""
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value = (linear(width, width, source) for _ in range(3))
        self.inner, self.outer = linear(width, width, source), linear(width, width, source)
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def read(self, x_bTE: Tensor, num_read: int, layout: _Layout, site: int) -> Tensor:
        """Output at the newest positions.

        Args:
            x_bTE: newest first; what lies after a history's end is not seen.
            num_read: S.
            layout: lengths and draws.
            site: of this block's two dropouts the first.

        Returns:
            ``(b, S, E)``.
        """
        b, longest, width = x_bTE.shape
        newest_bSE = self.attention_norm(x_bTE[:, :num_read])

        def by_head(layer: nn.Module, x: Tensor) -> Tensor:
            shape = (b, x.shape[1], self.num_heads, width // self.num_heads)
            return layer(x.flatten(0, 1)).view(shape)

        query, key, value = (
            by_head(self.query, newest_bSE), by_head(self.key, x_bTE), by_head(self.value, x_bTE)
        )  # fmt: skip
        scores_bJST = torch.einsum("bsje,btje->bjst", query, key)
        scores_bJST = scores_bJST / math.sqrt(width // self.num_heads)
        allowed_bST = _seen(layout.histories.lengths, num_read, longest)
        shares = scores_bJST.masked_fill(~allowed_bST[:, None], -math.inf).softmax(3)
        mixed_bSE = torch.einsum("bjst,btje->bsje", shares, value).flatten(2)
        mixed_bSE = newest_bSE + layout.dropped(mixed_bSE, site)
        fed = self.feed_norm(mixed_bSE).flatten(0, 1)
        added_bSE = self.outer(F.relu(self.inner(fed))).view(b, num_read, width)
        return fed.view(b, num_read, width) + layout.dropped(added_bSE, site + 1)


def _seen(lengths_b: Tensor, num_read: int, longest: int) -> Tensor:
    """Which positions each of the newest ones sees: itself and older ones, bool ``(b, S, T)``.

    Positions after a history's end see themselves: finite, and never read.
    """
    place_T = torch.arange(longest, device=lengths_b.device)
    older_ST = place_T >= place_T[:num_read, None]
    real_bT = place_T < lengths_b[:, None]
    return (older_ST & real_bT[:, None]) | (place_T == place_T[:num_read, None])


class AttentionHistory(AttentionBlock):
    """Causal self-attention over the history, read at its newest item.

    As in SASRec (arXiv 1808.09781 sec. 3). Of the last block, which is this module, only the newest
    position is used, so only its row of the attention is computed; being the last one, it may see
    every position. Positions count from the newest item (0), so that they mean the same in
    histories of any length.
    """

    def __init__(
        self,
        width: int,
        max_values: int,
        seed: int,
        *,
        num_blocks: int = 1,
        num_heads: int = 1,
        dropout: float = 0.0,
    ) -> None:
        """Build for histories of up to ``max_values`` items of ``width`` numbers."""
        source = generator(seed, "history")
        positions = torch.empty(max_values, width).normal_(
            0, 1 / math.sqrt(width), generator=source
        )
        super().__init__(width, num_heads, source)
        self.positions = nn.Parameter(positions)
        self.last_norm = nn.LayerNorm(width)
        self._earlier = [AttentionBlock(width, num_heads, source) for _ in range(num_blocks - 1)]
        self.earlier = nn.ModuleList(self._earlier)
        self._dropout = dropout

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
        start_b = lengths_b.cumsum(0) - lengths_b
        place_H = torch.arange(len(row_H), device=row_H.device) - start_b[row_H]
        layout = _Layout(histories, place_H, self._dropout, len(self.positions))
        x_bTE = layout.dropped(layout.spread(found_HE + self.positions[place_H]), 0)
        for number, block in enumerate(self._earlier):
            x_bTE = block.read(x_bTE, longest, layout, 1 + 2 * number)
        out_bE = self.read(x_bTE, 1, layout, 1 + 2 * len(self._earlier))[:, 0]
        return self.last_norm(out_bE) * (lengths_b > 0)[:, None]
