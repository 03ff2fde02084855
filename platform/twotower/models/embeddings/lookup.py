"""What a fused lookup gave, and the way back from it to the rows of the store.

Shape letters:
    E width of one embedding    G bags    U distinct values
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from twotower.models.embeddings.bags import Bags, Distinct, RowGradients, sum_by_row
from twotower.models.embeddings.table import Read


@dataclass(frozen=True, slots=True)
class Part:
    """The distinct values of one table, among all."""

    at: slice
    """Which of them."""

    ids: Tensor
    """int64: their ids in the table."""

    start: int
    """Where the table's rows start in the store."""

    read: Read | None
    """What the table made of them; None = it is full."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a fused lookup gave: one leaf a part."""

    bags: Bags
    leaves: tuple[Tensor, ...]
    """float ``(G_i, E)`` each, requiring grad."""

    distinct: Distinct | None = None
    """None = all tables are full."""

    parts: tuple[Part, ...] = ()

    def row_gradients(self) -> RowGradients:
        """Gradient of the store by row; call once, after the backward pass.

        Gradients of tables' own weights are added to those weights.
        """
        grads = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in self.leaves]
        grad_GE = grads[0] if len(grads) == 1 else torch.cat(grads)
        bags, distinct = self.bags, self.distinct
        if distinct is None:
            return sum_by_row(bags.ids, bags.bag, grad_GE, bags.weights)
        grad_UE = distinct.sum(bags.bag, grad_GE, bags.weights)
        rows: list[Tensor] = []
        values: list[Tensor] = []
        for part in self.parts:
            own = RowGradients(part.ids, grad_UE[part.at])
            if part.read is not None:
                own = part.read.gradients(own.values)
            rows.append((own.rows + part.start).to(torch.int32))
            values.append(own.values)
        return RowGradients(torch.cat(rows), torch.cat(values))

    def own_losses(self) -> dict[str, Tensor]:
        """What the tables themselves measured, summed over them: this rank's parts, 0-d.

        ``codebook``: their losses (not weighted any further); ``codes_differ``: mean over tables of
        the share of codes that running statistics would choose differently, on detailed steps.
        """
        reads = [part.read for part in self.parts if part.read is not None]
        losses = [read.loss.detach() for read in reads if read.loss is not None]
        differ = [read.codes_differ for read in reads if read.codes_differ is not None]
        found = {"codebook": torch.stack(losses).sum()} if losses else {}
        return found | ({"codes_differ": torch.stack(differ).mean()} if differ else {})
