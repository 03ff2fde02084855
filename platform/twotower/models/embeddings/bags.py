"""Weighted bags of rows, and sums over the entries of each distinct row.

Shape letters:
    E width of one embedding    N ids in all bags    G bags    U distinct rows
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Bags:
    """Weighted bags of store rows; bag g's entries follow each other, in the order of g."""

    ids: Tensor
    """int32 ``(N,)``: store rows."""

    weights: Tensor
    """float ``(N,)``. An entry of weight 0 must point at the store's `nowhere` row."""

    bag: Tensor
    """int32 ``(N,)``: the bag of each entry, rising."""

    lengths: Tensor
    """int32 ``(G,)``: entries of each bag. An empty bag sums to zeros."""

    stands_for: Tensor | None = None
    """float ``(G,)``: examples that each bag stands for; None = one. Read by statistics only."""

    @classmethod
    def concat(cls, parts: Sequence["Bags"]) -> "Bags":
        """The bags of all parts, one part after the other."""
        if len(parts) == 1:
            return parts[0]
        shifted: list[Tensor] = []
        start = 0
        for part in parts:
            shifted.append(part.bag + start)
            start += len(part.lengths)
        stands_for = None
        if any(part.stands_for is not None for part in parts):
            stands_for = torch.cat([_examples(part) for part in parts])
        return cls(
            torch.cat([part.ids for part in parts]),
            torch.cat([part.weights for part in parts]),
            torch.cat(shifted),
            torch.cat([part.lengths for part in parts]),
            stands_for,
        )

    def standing_for(self, examples: Tensor) -> "Bags":
        """The same bags, where each stands for that many examples ``(G,)``."""
        return replace(self, stands_for=examples.to(self.weights.dtype))

    def occurrences(self) -> Tensor:
        """Examples in which each entry counts, float ``(N,)``: 0 where its weight is 0."""
        counts_N = (self.weights > 0).to(self.weights.dtype)
        if self.stands_for is None:
            return counts_N
        return counts_N * self.stands_for.index_select(0, self.bag)

    def sum(self, rows_RE: Tensor, ids_N: Tensor | None = None) -> Tensor:
        """Weighted sum of each bag's rows ``(G, E)``, of ``ids_N`` in place of the bags' own."""
        starts_G = self.lengths.cumsum(0, dtype=torch.int32) - self.lengths
        ids = self.ids if ids_N is None else ids_N
        return F.embedding_bag(ids, rows_RE, starts_G, mode="sum", per_sample_weights=self.weights)


def _examples(bags: Bags) -> Tensor:
    if bags.stands_for is not None:
        return bags.stands_for
    return torch.ones_like(bags.lengths, dtype=bags.weights.dtype)


@dataclass(frozen=True, slots=True)
class RowGradients:
    """Gradient of the store by row: each row once, rising."""

    rows: Tensor
    """int32 ``(U,)``."""

    values: Tensor
    """float ``(U, E)``."""


@dataclass(frozen=True, slots=True)
class Distinct:
    """Rows that repeat, sorted: the order is stable, so the same input gives the same bits."""

    rows: Tensor
    """``(U,)``: each row once, rising."""

    order: Tensor
    """int64 ``(N,)``: entries by row, each row's in their own order."""

    starts: Tensor
    """int64 ``(U,)``: where each row's entries start in ``order``."""

    is_first: Tensor
    """bool ``(N,)``: whether an entry of ``order`` is the first of its row."""

    @classmethod
    def of(cls, rows_N: Tensor) -> "Distinct":
        """Sort."""
        sorted_N, order_N = torch.sort(rows_N, stable=True)
        is_first_N = torch.ones_like(sorted_N, dtype=torch.bool)
        is_first_N[1:] = sorted_N[1:] != sorted_N[:-1]
        starts_U = is_first_N.nonzero().squeeze(1)
        return cls(sorted_N[starts_U], order_N, starts_U, is_first_N)

    def inverse(self) -> Tensor:
        """int32 ``(N,)``: place of each entry's row among the distinct ones."""
        place_N = self.is_first.cumsum(0, dtype=torch.int32) - 1
        return torch.empty_like(place_N).index_copy_(0, self.order, place_N)

    def sum(self, source_N: Tensor, values_SE: Tensor, weights_N: Tensor | None = None) -> Tensor:
        """Sum of ``weights[n] * values[source[n]]`` over each row's entries n, ``(U, E)``."""
        return F.embedding_bag(
            source_N.index_select(0, self.order),
            values_SE,
            self.starts.to(source_N.dtype),
            mode="sum",
            per_sample_weights=None if weights_N is None else weights_N.index_select(0, self.order),
        )


def sum_by_row(
    rows_N: Tensor, source_N: Tensor, values_SE: Tensor, weights_N: Tensor | None = None
) -> RowGradients:
    """Weighted sum of ``values[source[n]]`` over the n of each distinct row.

    The order of the sum is that of n (a stable sort), so the same input gives the same bits.
    """
    distinct = Distinct.of(rows_N)
    return RowGradients(distinct.rows, distinct.sum(source_N, values_SE, weights_N))
