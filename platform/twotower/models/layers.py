"""Dense layers whose initial values come from a seed of their own, not the global generator."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from twotower.core.seeding import derive
from twotower.kernels.products import Linear


def generator(seed: int, *names: str) -> torch.Generator:
    """A CPU generator for one purpose; the same on every rank and device."""
    return torch.Generator().manual_seed(derive(seed, "init", *names) >> 1)


def linear(inputs: int, outputs: int, source: torch.Generator) -> Linear:
    """A linear layer, uniform in 1 / sqrt(inputs) as PyTorch's own, drawn from ``source``."""
    layer = Linear(inputs, outputs)
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=source)
        layer.bias.uniform_(-bound, bound, generator=source)
    return layer


class MLP(nn.Module):
    """Linear layers with ReLU between them; the last one is linear."""

    def __init__(self, widths: Sequence[int], source: torch.Generator) -> None:
        """Build.

        Args:
            widths: input, hidden ... , output widths; the input's alone makes it the identity.
            source: what initial values are drawn from.
        """
        super().__init__()
        self.layers = nn.ModuleList(
            linear(inputs, outputs, source) for inputs, outputs in pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, widths[0])`` -> ``(B, widths[-1])``."""
        return self.after_first(self.layers[0](x)) if len(self.layers) else x

    def after_first(self, x: Tensor) -> Tensor:
        """The rest, from the first layer's output on, which is changed in place."""
        for layer in list(self.layers)[1:]:
            x = layer(x.relu_())
        return x
