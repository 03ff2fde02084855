"""A tower: what was looked up, concatenated, through an MLP, onto the unit sphere.

Shape letters:
    B rows    D width of the output
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.models.layers import MLP, generator


class Tower(nn.Module):
    """Concatenation -> MLP -> L2 norm."""

    def __init__(self, widths: Sequence[int], *, seed: int, name: str) -> None:
        """Build; ``widths`` are those of the input, the hidden layers and the output."""
        super().__init__()
        self.mlp = MLP(widths, generator(seed, name))

    def forward(self, parts: Sequence[Tensor], *, bf16: bool = False) -> Tensor:
        """Embed.

        Args:
            parts: float ``(B, .)`` each, widths summing to the input's; a width may be 0.
            bf16: matrix products in bfloat16; the norm stays in the parts' type.

        Returns:
            ``(B, D)``, rows of L2 norm 1, in the type of the parts.
        """
        # A single wide part goes in as it is: a copy of the whole input would be felt.
        wide = [part for part in parts if part.shape[1]]
        x = wide[0] if len(wide) == 1 else torch.cat(wide, dim=1)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bf16):
            out_BD = self.mlp(x)
        return F.normalize(out_BD.to(x.dtype), dim=1)
