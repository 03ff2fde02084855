"""Both views of items that the main task embeds anyway, of which only one is computed.

Where the contrastive task takes the batch's items, drops no values, and each feature is shown by
exactly one view, the inputs of the two views add up to what the main pass reads and one row of
defaults. The first layer W x + b is linear, so with x the main pass's input and d the defaults

    second = (W x + b) - first + W d + b

The second view costs a gather and a difference in place of a lookup and matrix products.

Shape letters:
    X rows of the other passes, of which d are the main pass's items    n items of the views
    S sparse and V dense features    E width of an embedding    W = S * E + V
    H width of the layer's output
"""

# torch.autograd.Function.apply has no types.
# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from twotower.core.types import Int64
from twotower.kernels.products import product
from twotower.models.embeddings.bags import Bags


@dataclass(frozen=True, slots=True)
class Repeats:
    """Complementary views of n items of the main pass."""

    places: Tensor
    """int64 ``(n,)``: where the items stand in the main pass."""

    order: Tensor
    """int64 ``(n,)``: the items of the views by their place."""

    starts: Tensor
    """int64 ``(d,)``: where each main item's start in ``order``."""

    shown: Tensor
    """float ``(n, S)``: 1 where view 1 shows a sparse feature, 0 where view 2 does."""

    shown_dense: Tensor
    """float ``(n, V)``."""

    defaults: Bags
    """S bags: the default row of each sparse feature, which reads where it is hidden."""

    @classmethod
    def of(
        cls, places: Int64, num_items: int, *, shown: Tensor, shown_dense: Tensor, defaults: Bags
    ) -> "Repeats":
        """Build from places on the host, among ``num_items`` (d) items."""
        order = np.argsort(places, kind="stable")
        starts = np.searchsorted(places[order], np.arange(num_items))
        placed, ordered, started = (
            torch.tensor(array).to(shown.device, non_blocking=True)
            for array in (places, order, starts)
        )
        return cls(placed, ordered, started, shown, shown_dense, defaults)

    def lookups(self) -> list[Bags]:
        """What `first_layer` wants to have been looked up."""
        return [self.defaults]

    def first_layer(
        self, layer: nn.Linear, x_XW: Tensor, found: Sequence[Tensor], dtype: torch.dtype
    ) -> Tensor:
        """Output of the layer for the other passes, then for view 1, then for view 2.

        Args:
            layer: the tower's first.
            x_XW: input of the other passes, the main one's first.
            found: what `lookups` did: ``(S, E)``.
            dtype: type of the large matrix products and of the output.

        Returns:
            ``(X + 2 n, H)``.
        """
        (defaults_SE,) = found
        out = _Repeated.apply(x_XW, defaults_SE, layer.weight, layer.bias, self, dtype)
        return cast("Tensor", out)

    def by_place(self, values_nW: Tensor) -> Tensor:
        """Sum over the views' items of each main item, ``(d, W)``."""
        return F.embedding_bag(self.order, values_nW, self.starts, mode="sum")

    def show_(self, rows_nW: Tensor, shape_SE: torch.Size) -> Tensor:
        """Set to 0, in rows of the tower's input, what view 1 hides; gives the sparse part."""
        width = shape_SE.numel()
        sparse_nSE = rows_nW[:, :width].unflatten(1, shape_SE)
        sparse_nSE.mul_(self.shown[..., None])
        rows_nW[:, width:].mul_(self.shown_dense)
        return sparse_nSE


class _Repeated(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - autograd takes its tensors one by one
        ctx: Any,
        x_XW: Tensor,
        defaults_SE: Tensor,
        weight_HW: Tensor,
        bias_H: Tensor,
        repeats: Repeats,
        dtype: torch.dtype,
    ) -> Tensor:
        rest, n = len(x_XW), len(repeats.places)
        inputs = x_XW.new_empty(rest + n, x_XW.shape[1], dtype=dtype)
        inputs[:rest] = x_XW
        torch.index_select(inputs[:rest], 0, repeats.places, out=inputs[rest:])
        sparse_nSE = repeats.show_(inputs[rest:], defaults_SE.shape)
        hidden_nS1 = (1 - repeats.shown[..., None]).to(dtype)
        sparse_nSE.addcmul_(defaults_SE.to(dtype), hidden_nS1)
        weight = weight_HW.to(dtype)
        out = product(inputs, weight, bias_H.to(dtype))
        constant_H = bias_H + weight_HW[:, : defaults_SE.numel()] @ defaults_SE.flatten()
        second = out.index_select(0, repeats.places).sub_(out[rest:]).add_(constant_H)
        ctx.save_for_backward(inputs, defaults_SE, weight, weight_HW)
        ctx.repeats, ctx.source_type = repeats, x_XW.dtype
        return torch.cat([out, second])

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides names
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        inputs, defaults_SE, weight, full_HW = ctx.saved_tensors
        repeats, exact = cast("Repeats", ctx.repeats), full_HW.dtype
        d, n, width = len(repeats.starts), len(repeats.places), defaults_SE.numel()
        rest = len(grad) - 2 * n
        first, second = grad[rest : rest + n], grad[rest + n :]
        grad_out = torch.cat([grad[:rest], first - second])
        grad_out[:d] += repeats.by_place(second)
        grad_inputs = product(grad_out, weight.T).to(ctx.source_type)
        grad_weight = product(grad_out.T, inputs.T).to(exact)
        of_view = grad_inputs[rest:]
        grad_defaults = of_view[:, :width].sum(0).view_as(defaults_SE)
        grad_defaults -= repeats.show_(of_view, defaults_SE.shape).sum(0)
        grad_inputs[:d] += repeats.by_place(of_view)
        # W d stands in every second view.
        summed_H = second.sum(0, dtype=exact)
        grad_defaults += (summed_H @ full_HW[:, :width]).view_as(defaults_SE)
        grad_weight[:, :width].addr_(summed_H, defaults_SE.flatten())
        grad_bias = grad_out.sum(0, dtype=exact) + summed_H
        return grad_inputs[:rest], grad_defaults, grad_weight, grad_bias, None, None
