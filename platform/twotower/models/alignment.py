"""Towers that begin alike, so that a query and an item with common values begin close."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import cast

import torch
from torch import nn

from twotower.models.towers import Tower

Column = tuple[str, int]
"""What stands at a place of a tower's input, a table or a dense feature, and its width."""


def align(query: Tower, item: Tower, read: tuple[Sequence[Column], Sequence[Column]]) -> None:
    """Give the query tower the item tower's initial weights wherever both read the same.

    Equal columns then meet equal weights of the first layer; all that follows is the item tower's.
    From there the two are trained apart. Dual encoders of text begin so since DPR (arXiv
    2004.04906), both of whose encoders start as one BERT.

    Args:
        query: changed.
        item: as initialised.
        read: inputs of the query tower and of the item tower, in order.
    """
    theirs = dict(_places(read[1]))
    common = [(ours, theirs[name]) for name, ours in _places(read[0]) if name in theirs]
    layers = [cast("nn.Linear", layer) for layer in query.mlp.layers]
    begun = [cast("nn.Linear", layer) for layer in item.mlp.layers]
    with torch.no_grad():
        for ours, its in common:
            layers[0].weight[:, ours] = begun[0].weight[:, its]
        layers[0].bias.copy_(begun[0].bias)
        for layer, first in zip(layers[1:], begun[1:], strict=True):
            layer.weight.copy_(first.weight)
            layer.bias.copy_(first.bias)


def _places(read: Sequence[Column]) -> list[tuple[str, slice]]:
    """Each column's name, and where it stands."""
    ends = accumulate((width for _, width in read), initial=0)
    return [(name, slice(*at)) for (name, _), at in zip(read, pairwise(ends), strict=True)]
