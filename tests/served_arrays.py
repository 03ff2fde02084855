"""Weights of torch modules as an export stores them, and drawn numbers, for tests of the reader."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch

from twotower.core.types import Float32
from twotower.serving.layers import Linear
from twotower.serving.scores import PairNetwork


def arrays(module: torch.nn.Module, prefix: str) -> dict[str, Any]:
    """A module's weights by the names they are stored under."""
    return {f"{prefix}.{name}": t.detach().numpy() for name, t in module.state_dict().items()}


def drawn(seed: int, *shape: int) -> Float32:
    """Normal float32 numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def pair_network(seed: int, product_width: int, hidden: tuple[int, ...]) -> PairNetwork:
    """A network over pairs with drawn weights; vectors have ``product_width + hidden[0]``."""
    layers = tuple(
        Linear(drawn(seed + n, outputs, inputs), drawn(seed + n + 9, outputs))
        for n, (inputs, outputs) in enumerate(pairwise(hidden))
    )
    return PairNetwork(product_width, hidden[0], layers, drawn(seed + 99, hidden[-1]))
