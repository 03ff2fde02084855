"""Tuned PyTorch on W1: what an expert would write by hand for a CPU.

One table for all features and one fused lookup of all bags; row-wise Adagrad on touched rows only;
the in-batch softmax in blocks that stay in cache, its gradient made on the way; the three item
passes of the masked views as one matrix product; bfloat16 products with ``--bf16``.

Shape letters: B batch, C rows of a block, F features of a side, E `EMBED_DIM`, O `OUT_DIM`,
N ids of a batch, R distinct ids of a batch.
"""

from typing import Any

import common
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch_parts import tower

BLOCK = 512
EPSILON = 1e-8


class BlockedSoftmax(torch.autograd.Function):
    """`torch_parts.in_batch_softmax` without (B, B) logits: only BLOCK rows of them at a time."""

    @staticmethod
    def forward(
        ctx: Any, x_BO: Tensor, y_BO: Tensor, temperature: float, dtype: torch.dtype
    ) -> Tensor:
        """Return the mean loss and save its gradient to both inputs."""
        rows = len(x_BO)
        scaled_BO, y_low_BO = (x_BO / temperature).to(dtype), y_BO.to(dtype)
        grad_x_BO, grad_y_BO = torch.empty_like(x_BO), torch.zeros_like(y_BO)
        loss = x_BO.new_zeros(())
        for first in range(0, rows, BLOCK):
            block = slice(first, first + BLOCK)
            share_CB = torch.softmax((scaled_BO[block] @ y_low_BO.T).float(), 1)
            own_C = torch.diagonal(share_CB, first)
            loss -= own_C.clamp_min(1e-30).log().sum()
            own_C -= 1  # the shares are now the gradient to the logits
            share_CB = share_CB.to(dtype)
            grad_x_BO[block] = share_CB @ y_low_BO
            grad_y_BO += share_CB.T @ scaled_BO[block]
        ctx.save_for_backward(grad_x_BO / (rows * temperature), grad_y_BO / rows)
        return loss / rows

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Scale the saved gradients."""
        grad_x_BO, grad_y_BO = ctx.saved_tensors
        return grads[0] * grad_x_BO, grads[0] * grad_y_BO, None, None


class Table:
    """The rows of all features, (rows, E), with one lookup and one update a step."""

    def __init__(self, rows: int) -> None:
        self.weight = torch.randn(rows, common.EMBED_DIM) * 0.05
        self.squares = torch.zeros(rows)

    @torch.no_grad()
    def lookup(self, ids_N: Tensor, lengths: Tensor) -> Tensor:
        """Mean of each bag, (bags, E); its gradient is what `update` takes."""
        first = torch.cumsum(lengths, 0, dtype=torch.int32) - lengths
        return F.embedding_bag(ids_N, self.weight, first, mode="mean").requires_grad_()

    @torch.no_grad()
    def update(self, ids_N: Tensor, lengths: Tensor, grad: Tensor) -> None:
        """Adagrad with one accumulator a row, on the summed gradient of each touched row."""
        sorted_N, order_N = torch.sort(ids_N)
        ids_R, counts_R = torch.unique_consecutive(sorted_N, return_counts=True)
        bag_N = torch.repeat_interleave(torch.arange(len(lengths), dtype=torch.int32), lengths)
        first_R = (torch.cumsum(counts_R, 0) - counts_R).int()
        each = grad / lengths[:, None]
        grad_RE = F.embedding_bag(bag_N[order_N], each, first_R, mode="sum")
        squares_R = self.squares[ids_R].add_(grad_RE.square().mean(1))
        self.squares[ids_R] = squares_R
        rate_R = -common.LEARNING_RATE / (squares_R.sqrt() + EPSILON)
        self.weight.index_add_(0, ids_R, grad_RE.mul_(rate_R[:, None]))


class Side:
    """All features of one side merged: a row's ids of every feature lie side by side."""

    def __init__(self, columns: dict[str, common.Column], base: int) -> None:
        """Number the values from ``base`` on, one feature after another."""
        self.lengths = np.stack([np.diff(column.offsets) for column in columns.values()], 1)
        ends = np.cumsum(self.lengths.ravel(), dtype=np.int32)
        starts = (ends - self.lengths.ravel()).reshape(self.lengths.shape)
        ids = np.empty(ends[-1], np.int32)
        for feature, column in enumerate(columns.values()):
            shift = starts[:, feature] - column.offsets[:-1]
            at = np.repeat(shift, self.lengths[:, feature]) + np.arange(len(column.values))
            ids[at] = column.values + base
            base += column.distinct
        self.end = base
        offsets = np.append(starts[:, 0], ends[-1])
        self._merged = common.Column(offsets, ids, base, len(ids))

    def take(self, rows: NDArray[np.integer]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the ids of some rows and the lengths of their bags, feature after feature."""
        return self._merged.take(rows)[1], self.lengths[rows].ravel()


def normed_towers(
    query_BFE: Tensor, item_BFE: Tensor, towers: tuple[Any, Any], a: Any
) -> tuple[Tensor, Tensor]:
    """Outputs (B, O) and (B or 3 * B, O): the items', then with ``--ssl`` both views'."""
    if a.ssl:
        features = item_BFE.shape[1] // common.EMBED_DIM
        kept = (torch.rand(len(item_BFE), features).argsort(1) >= common.MASKED).float()
        kept_BFE = kept.repeat_interleave(common.EMBED_DIM, 1)
        item_BFE = torch.cat([item_BFE, item_BFE * kept_BFE, item_BFE * (1 - kept_BFE)])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.bf16):
        query_BO, item_BO = towers[0](query_BFE), towers[1](item_BFE)
    return F.normalize(query_BO.float(), dim=1), F.normalize(item_BO.float(), dim=1)


def main() -> None:
    """Time the steps and print the figures."""
    a = common.arguments("torch_tuned", bf16=True)
    torch.set_num_threads(a.threads)
    dtype = torch.bfloat16 if a.bf16 else torch.float32
    data = common.read(a.folder)
    query = Side(data.query, 0)
    item = Side(data.item, query.end)
    table, towers = Table(item.end), (tower(len(data.query)), tower(len(data.item)))
    dense = [weight for part in towers for weight in part.parameters()]
    optimiser = torch.optim.Adagrad(dense, lr=common.LEARNING_RATE, foreach=True)
    ahead, bags = common.batches(len(data.clicked), a.batch), a.batch * len(data.query)

    def step() -> float:
        rows = next(ahead)
        parts = (query.take(rows), item.take(data.clicked[rows]))
        ids_N, lengths = (
            torch.from_numpy(np.concatenate(both)) for both in zip(*parts, strict=True)
        )
        pooled = table.lookup(ids_N, lengths)
        query_BO, item_BO = normed_towers(
            pooled[:bags].view(a.batch, -1), pooled[bags:].view(a.batch, -1), towers, a
        )
        main_BO, *views = item_BO.split(a.batch)
        loss = BlockedSoftmax.apply(query_BO, main_BO, common.TEMPERATURE, dtype)
        if views:
            between = BlockedSoftmax.apply(*views, common.SSL_TEMPERATURE, dtype)
            loss = loss + common.SSL_WEIGHT * between
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert pooled.grad is not None
        table.update(ids_N, lengths, pooled.grad)
        return loss.item()

    common.report(a, common.time_steps(step, a), [torch])


if __name__ == "__main__":
    main()
