"""A tower: what was looked up, concatenated, through an MLP, onto the unit sphere if asked.

Shape letters:
    B rows    D width of the output
"""

from collections.abc import Sequence
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.models.embeddings.bags import Bags
from twotower.models.layers import MLP, generator


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
        return F.normalize(out_BD, dim=1) if self.unit else out_BD


def _joined(parts: Sequence[Tensor]) -> Tensor:
    # A single wide part goes in as it is: a copy of the whole input would be felt.
    wide = [part for part in parts if part.shape[1]]
    return wide[0] if len(wide) == 1 else torch.cat(wide, dim=1)
