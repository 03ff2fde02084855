"""The item tower's first layer over two views that between them show every feature once.

A view that hides a feature reads its table's default row d_f, the same for every item. So

    view(i) = b + sum over shown f of W_f x_if + sum over hidden f of W_f d_f

where the last sum is one vector for all items that hide the same features. Complementary views
(arXiv 2007.12865 sec. 3.2) look up and multiply every x_if once, where two full views do it twice.

Shape letters:
    X rows of the other passes    n items of the views    S sparse and V dense features
    E width of an embedding    W = S * E + V    H width of the layer's output
"""

# torch.autograd.Function.apply has no types.
# pyright: reportUnknownMemberType=false

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from twotower.kernels.products import product, product_by_rows, product_over_rows
from twotower.models.embeddings.bags import Bags


@dataclass(frozen=True, slots=True)
class Run:
    """Items that follow each other and whose views hide the same features."""

    rows: int
    hidden: tuple[bool, ...]
    """Of each sparse feature: whether view 1 hides it. View 2 hides the others."""


@dataclass(frozen=True, slots=True)
class SharedViews:
    """What the item tower reads for both views of n items."""

    bags: Bags
    """n * S bags, row after row: each feature as the view that shows it sees it."""

    defaults: Bags
    """S bags: the default row of each sparse feature."""

    dense: tuple[Tensor, Tensor]
    """float ``(n, V)`` of view 1 and of view 2, 0 where hidden."""

    runs: tuple[Run, ...]
    """In the order of the items; their rows sum to n."""

    def lookups(self) -> list[Bags]:
        """What `first_layer` wants to have been looked up."""
        return [self.bags, self.defaults]

    def first_layer(
        self, layer: nn.Linear, x_XW: Tensor, found: Sequence[Tensor], dtype: torch.dtype
    ) -> Tensor:
        """Output of the layer for the other passes, then for view 1, then for view 2.

        Args:
            layer: the tower's first.
            x_XW: input of the other passes.
            found: what `lookups` did: ``(n * S, E)`` and ``(S, E)``.
            dtype: type of the large matrix products and of the output.

        Returns:
            ``(X + 2 n, H)``.
        """
        shown_GE, defaults_SE = found
        shown_nSE = shown_GE.view(-1, *defaults_SE.shape)
        weights = layer.weight, layer.bias
        out = _SharedLinear.apply(x_XW, shown_nSE, defaults_SE, *weights, self, dtype)
        return cast("Tensor", out)


@dataclass(frozen=True, slots=True)
class _Part:
    """One view of one run: where its rows are, and the sparse features it shows and hides."""

    source: slice
    out: slice
    view: int
    shown: Tensor
    hidden: Tensor


class _SharedLinear(torch.autograd.Function):
    """Writes all passes into one output; the backward pass gathers from one gradient."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - autograd takes its tensors one by one
        ctx: Any,
        x_XW: Tensor,
        shown_nSE: Tensor,
        defaults_SE: Tensor,
        weight_HW: Tensor,
        bias_H: Tensor,
        views: SharedViews,
        dtype: torch.dtype,
    ) -> Tensor:
        x, shown, weight = (t.to(dtype) for t in (x_XW, shown_nSE, weight_HW))
        weight_HSE, weight_HV = _split(weight, defaults_SE)
        constant_SH = torch.einsum("hse,se->sh", _split(weight_HW, defaults_SE)[0], defaults_SE)
        out = x.new_empty(len(x) + 2 * len(shown), len(weight))
        out[: len(x)] = product(x, weight, bias_H.to(dtype))
        for part in _parts(views, len(x), x.device):
            bias = (bias_H + constant_SH.index_select(0, part.hidden).sum(0)).to(dtype)
            inputs, columns = _gathered(shown, weight_HSE, part)
            out[part.out] = product_by_rows(inputs, columns, bias)
            if weight_HV.shape[1]:
                dense = views.dense[part.view][part.source].to(dtype)
                out[part.out].addmm_(dense, weight_HV.T)
        ctx.save_for_backward(x, shown, defaults_SE, weight, weight_HW)
        ctx.views, ctx.source_type = views, shown_nSE.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides names
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        x, shown, defaults_SE, weight, full_HW = ctx.saved_tensors
        views, exact = cast("SharedViews", ctx.views), full_HW.dtype
        others = grad[: len(x)]
        grad_x = product(others, weight.T).to(ctx.source_type)
        grad_weight = product_over_rows(others, x).to(exact)
        grad_HSE, grad_HV = _split(grad_weight, defaults_SE)
        grad_shown = torch.empty_like(shown, dtype=ctx.source_type)
        hidden_SH = grad_weight.new_zeros(len(defaults_SE), len(weight))
        weight_HSE, _ = _split(weight, defaults_SE)
        for part in _parts(views, len(x), x.device):
            grad_part = grad[part.out]
            inputs, columns = _gathered(shown, weight_HSE, part)
            into = (len(grad_part), len(part.shown), shown.shape[2])
            grad_shown[part.source].index_copy_(
                1, part.shown, product_by_rows(grad_part, columns.T).view(into).to(ctx.source_type)
            )
            grad_columns = product_over_rows(grad_part, inputs).view(len(weight), *into[1:])
            grad_HSE.index_add_(1, part.shown, grad_columns.to(exact))
            summed_H = grad_part.sum(0, dtype=exact)
            hidden_SH.index_add_(0, part.hidden, summed_H.expand(len(part.hidden), -1))
            if grad_HV.shape[1]:
                dense = views.dense[part.view][part.source].to(grad_part.dtype)
                grad_HV.add_((grad_part.T @ dense).to(exact))
        full_HSE, _ = _split(full_HW, defaults_SE)
        grad_defaults = torch.einsum("sh,hse->se", hidden_SH, full_HSE)
        grad_HSE.add_(torch.einsum("sh,se->hse", hidden_SH, defaults_SE))
        grad_bias = grad.sum(0, dtype=exact)
        return grad_x, grad_shown, grad_defaults, grad_weight, grad_bias, None, None


def _split(weight_HW: Tensor, defaults_SE: Tensor) -> tuple[Tensor, Tensor]:
    """Views of a matrix of the layer's shape: by sparse feature ``(H, S, E)``, and ``(H, V)``."""
    width = defaults_SE.numel()
    return weight_HW[:, :width].unflatten(1, defaults_SE.shape), weight_HW[:, width:]


def _parts(views: SharedViews, first: int, device: torch.device) -> Iterator[_Part]:
    total, start = sum(run.rows for run in views.runs), 0
    for run in views.runs:
        places = [
            torch.tensor([f for f, h in enumerate(run.hidden) if h is hides], device=device)
            for hides in (False, True)
        ]
        for view in (0, 1):
            at = first + view * total + start
            yield _Part(
                source=slice(start, start + run.rows),
                out=slice(at, at + run.rows),
                view=view,
                shown=places[view].long(),
                hidden=places[1 - view].long(),
            )
        start += run.rows


def _gathered(shown_nSE: Tensor, weight_HSE: Tensor, part: _Part) -> tuple[Tensor, Tensor]:
    """Inputs ``(rows, s * E)`` and columns ``(H, s * E)`` of the s features that a part shows."""
    inputs = shown_nSE[part.source].index_select(1, part.shown).flatten(1)
    return inputs, weight_HSE.index_select(1, part.shown).flatten(1)
