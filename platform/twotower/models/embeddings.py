"""One store for every embedding table: a fused lookup, and gradients by touched row.

The weight is no autograd parameter. A lookup gives leaves; after the backward pass their gradients
are summed by store row, so neither time nor traffic depends on the size of the vocabulary.

Shape letters:
    R rows of the store    E width of one embedding    N ids in all bags    G bags    U touched rows
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.core.types import FIRST_ID
from twotower.models.layers import generator


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
        return cls(
            torch.cat([part.ids for part in parts]),
            torch.cat([part.weights for part in parts]),
            torch.cat(shifted),
            torch.cat([part.lengths for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class RowGradients:
    """Gradient of the store by row: each row once, rising."""

    rows: Tensor
    """int32 ``(U,)``."""

    values: Tensor
    """float ``(U, E)``."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a fused lookup gave: one leaf a part."""

    bags: Bags
    leaves: tuple[Tensor, ...]
    """float ``(G_i, E)`` each, requiring grad."""

    def row_gradients(self) -> RowGradients:
        """Sum of the leaves' gradients by store row; call after the backward pass."""
        grads = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in self.leaves]
        grad_GE = grads[0] if len(grads) == 1 else torch.cat(grads)
        return sum_by_row(self.bags.ids, self.bags.bag, grad_GE, self.bags.weights)


def sum_by_row(
    rows_N: Tensor, source_N: Tensor, values_SE: Tensor, weights_N: Tensor | None = None
) -> RowGradients:
    """Weighted sum of ``values[source[n]]`` over the n of each distinct row.

    The order of the sum is that of n (a stable sort), so the same input gives the same bits.
    """
    sorted_N, order_N = torch.sort(rows_N, stable=True)
    is_first_N = torch.ones_like(sorted_N, dtype=torch.bool)
    is_first_N[1:] = sorted_N[1:] != sorted_N[:-1]
    starts_U = is_first_N.nonzero().squeeze(1)
    summed_UE = F.embedding_bag(
        source_N.index_select(0, order_N),
        values_SE,
        starts_U.to(source_N.dtype),
        mode="sum",
        per_sample_weights=None if weights_N is None else weights_N.index_select(0, order_N),
    )
    return RowGradients(sorted_N[starts_U], summed_UE)


class EmbeddingStore(nn.Module):
    """All embedding tables, one after the other in one weight.

    Row 0 of a table is its default (masked or missing values) and starts at zero; it is trained
    like any other. After the last table comes one row `nowhere`, the target of entries of weight 0.
    """

    weight: Tensor
    touched: Tensor
    starts: Tensor

    def __init__(
        self, tables: Mapping[str, int], width: int, *, init_std: float, seed: int
    ) -> None:
        """Build.

        Args:
            tables: name -> rows, in store order.
            width: E.
            init_std: standard deviation of the initial normal values.
            seed: experiment's seed; each table draws by (seed, its name), so tables can be added
                without moving the others' values.
        """
        super().__init__()
        self.tables = dict(tables)
        self.width = width
        self.offsets: dict[str, int] = {}
        rows = 0
        for name, size in self.tables.items():
            self.offsets[name] = rows
            rows += size
        self.nowhere = rows
        weight = torch.zeros(rows + 1, width)
        for name, size in self.tables.items():
            start = self.offsets[name]
            weight[start + 1 : start + size].normal_(
                0, init_std, generator=generator(seed, "table", name)
            )
        self.register_buffer("weight", weight)
        self.register_buffer("touched", torch.zeros(rows + 1, dtype=torch.bool))
        self.register_buffer(
            "starts", torch.tensor(list(self.offsets.values()), dtype=torch.int32), persistent=False
        )

    def lookup(self, parts: Sequence[Bags]) -> Lookup:
        """One fused lookup of all parts, for training.

        Returns:
            A leaf ``(G_i, E)`` a part: sum of weight times row over each bag.
        """
        bags = Bags.concat(parts)
        with torch.no_grad():
            found_GE = self._sum(bags.ids, bags)
        leaves = found_GE.split_with_sizes([len(part.lengths) for part in parts])
        return Lookup(bags, tuple(leaf.detach().requires_grad_() for leaf in leaves))

    @torch.no_grad()
    def read(self, bags: Bags) -> Tensor:
        """Lookup for evaluation ``(G, E)``: rows never touched read as the default row."""
        table_N = torch.bucketize(bags.ids, self.starts, right=True) - 1
        touched_N = self.touched[bags.ids] | (bags.ids == self.nowhere)
        return self._sum(torch.where(touched_N, bags.ids, self.starts[table_N]), bags)

    def _sum(self, ids_N: Tensor, bags: Bags) -> Tensor:
        starts_G = bags.lengths.cumsum(0, dtype=torch.int32) - bags.lengths
        return F.embedding_bag(
            ids_N, self.weight, starts_G, mode="sum", per_sample_weights=bags.weights
        )

    def untouched(self) -> dict[str, int]:
        """Known values (ids from 2) of each table that no gradient has touched."""
        return {
            name: int((~self.touched[start + FIRST_ID : start + self.tables[name]]).sum())
            for name, start in self.offsets.items()
        }


def merge_tables(named: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Table sizes by name; a table named twice must have one size."""
    tables: dict[str, int] = {}
    for name, size in named:
        if tables.setdefault(name, size) != size:
            raise ValueError(f"table {name!r} is used with {tables[name]} and with {size} rows")
    return tables
