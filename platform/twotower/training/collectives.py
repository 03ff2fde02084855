"""The `Group` of several workers over `torch.distributed` (gloo or NCCL)."""

# torch.distributed has no types: its members are unknown to the checker.
# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


class DistributedGroup:
    """Workers of the default process group, which must be initialised.

    All collectives work with sizes that differ between ranks: rows are padded to the largest.
    """

    def __init__(self, device: torch.device) -> None:
        """Take rank and size from the process group; ``device`` is where its tensors live."""
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._device = device

    def exchange(self, *numbers: float) -> list[tuple[float, ...]]:
        """Every rank's few numbers, in rank order, on the host (waits for the device)."""
        mine = torch.tensor(numbers, dtype=torch.float64, device=self._device)
        everyone = mine.new_empty(self.size * len(numbers))
        dist.all_gather_single(everyone, mine)
        host = cast("list[list[float]]", everyone.view(self.size, -1).tolist())
        return [tuple(row) for row in host]

    def gather(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        """Concatenate over ranks; the backward pass sums over ranks and takes this rank's rows."""
        return cast("Tensor", _Gather.apply(x, list(sizes), self.rank))

    def sum_(self, x: Tensor) -> None:
        """Sum over ranks, in place."""
        dist.all_reduce(x)


class _Gather(torch.autograd.Function):
    """Concatenation over ranks, rows padded to the largest part on the way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int], rank: int) -> Tensor:
        ctx.sizes, ctx.rank = sizes, rank
        largest = max(sizes)
        mine = x.contiguous()
        if len(x) < largest:
            mine = torch.cat([mine, mine.new_zeros(largest - len(x), *x.shape[1:])])
        everyone = mine.new_empty(len(sizes) * largest, *x.shape[1:])
        dist.all_gather_single(everyone, mine)
        if min(sizes) == largest:
            return everyone
        chunks = everyone.split_with_sizes([largest] * len(sizes))
        return torch.cat([chunk[:size] for chunk, size in zip(chunks, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides names
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        # gloo has no reduce_scatter: all is summed everywhere, and this rank's rows are kept.
        (grad,) = grad_outputs
        summed = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        first = sum(ctx.sizes[: ctx.rank])
        return summed[first : first + ctx.sizes[ctx.rank]], None, None
