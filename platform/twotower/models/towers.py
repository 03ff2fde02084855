"""A tower: what was looked up, concatenated, through an MLP, onto the unit sphere if asked.

Shape letters:
    B rows    D width of the output
"""

# torch.autograd.Function.apply has no types.
# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from twotower.models.embeddings.bags import Bags
from twotower.models.layers import MLP, generator

_SHORT = 0.1
"""A vector shorter than this is turned as slowly as one of this length. So long is a row of four
numbers at first (`model.init_std`). Chosen, not tuned."""


class PairedViews(Protocol):
    """Both views of n items, computed together."""

    def lookups(self) -> list[Bags]:
        """What must be looked up for them."""
        ...

    def first_layer(
        self, layer: nn.Linear, x_XW: Tensor, found: Sequence[Tensor], dtype: torch.dtype
    ) -> Tensor:
        """``layer`` on X other rows, then on view 1, then on view 2: ``(X + 2 n, H)``."""
        ...


class Tower(nn.Module):
    """Concatenation -> MLP -> L2 norm."""

    def __init__(self, widths: Sequence[int], *, seed: int, name: str, unit: bool = True) -> None:
        """Build.

        Args:
            widths: of the input, the hidden layers and the output; the input's alone makes the
                tower the concatenation itself.
            seed: the experiment's.
            name: tells its initial values from those of other towers.
            unit: bring the output to L2 norm 1.
        """
        super().__init__()
        self.unit = unit
        self.mlp = MLP(widths, generator(seed, name))

    def forward(self, parts: Sequence[Tensor], *, bf16: bool = False) -> Tensor:
        """Embed.

        Args:
            parts: float ``(B, .)`` each, widths summing to the input's; a width may be 0.
            bf16: matrix products in bfloat16; the norm stays in the parts' type.

        Returns:
            ``(B, D)``, rows of L2 norm 1 where `unit`, in the type of the parts.
        """
        x = _joined(parts)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bf16):
            out_BD = self.mlp(x)
        return self._ended(out_BD.to(x.dtype))

    def with_views(
        self,
        parts: Sequence[Tensor],
        found: Sequence[Tensor],
        views: PairedViews,
        *,
        bf16: bool = False,
    ) -> Tensor:
        """Embed some rows, then both views of n items.

        Needs a layer: the identity has none that views could share.

        Args:
            parts: of the rows, as of `forward`.
            found: what ``views.lookups()`` looked up.
            views: the views.
            bf16: as of `forward`.

        Returns:
            ``(B + 2 n, D)``, rows of L2 norm 1 where `unit`.
        """
        x = _joined(parts)
        dtype = torch.bfloat16 if bf16 else x.dtype
        first = views.first_layer(cast("nn.Linear", self.mlp.layers[0]), x, found, dtype)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bf16):
            out_BD = self.mlp.after_first(first)
        return self._ended(out_BD.to(x.dtype))

    def _ended(self, out_BD: Tensor) -> Tensor:
        if not self.unit:
            return out_BD
        if len(self.mlp.layers):
            return F.normalize(out_BD, dim=1)
        return cast("Tensor", _Unit.apply(out_BD))


class _Unit(torch.autograd.Function):
    """`F.normalize` whose slope, 1 / norm, is at most 1 / `_SHORT`.

    Biases keep the output of layers away from zero; embeddings themselves may be there: default
    rows begin at it. By a slope of 1e12 a row's first step would be the last that Adagrad lets it
    make, and clipping would leave nothing of all other gradients. Values are F.normalize's, so that
    nobody who reads a model has to know of this.
    """

    @staticmethod
    def forward(ctx: Any, x_BD: Tensor) -> Tensor:
        out_BD = F.normalize(x_BD, dim=1)
        ctx.save_for_backward(out_BD, x_BD.norm(dim=1, keepdim=True))
        return out_BD

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides names
        ctx: Any, *grad_outputs: Tensor
    ) -> Tensor:
        (grad_BD,) = grad_outputs
        out_BD, norm_B1 = ctx.saved_tensors
        along_B1 = (grad_BD * out_BD).sum(1, keepdim=True)
        return (grad_BD - along_B1 * out_BD) / norm_B1.clamp(min=_SHORT)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    # A single wide part goes in as it is: a copy of the whole input would be felt.
    wide = [part for part in parts if part.shape[1]]
    return wide[0] if len(wide) == 1 else torch.cat(wide, dim=1)
