"""What becomes of the towers' outputs, and how a query and an item are scored.

Each scorer gives both sides a last step of their own. After it a cosine and a `gmf` score are plain
dot products, so that the loss, exact ranking and all else that is built on those serve both. A
`neumf` score is not: it also has a network over the sums of the two sides' vectors.

Shape letters:
    B rows of either side    b queries    C items    D width of the towers' output
    X width after the last step    G width of the product part    H width of a hidden layer
"""

from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.models.layers import generator, linear


class Scorer(Protocol):
    """The last step of both towers; what is left to a score is their dot product, or `pairs`."""

    @property
    def pairs(self) -> "PairNetwork | None":
        """The network that scores pairs of them; None where that is their dot product."""
        ...

    def queries(self, x_BD: Tensor) -> Tensor:
        """Output of the query tower ``(B, D)`` -> vectors of queries ``(B, X)``."""
        ...

    def items(self, x_BD: Tensor) -> Tensor:
        """Output of the item tower ``(B, D)`` -> vectors of items ``(B, X)``."""
        ...


class Cosine(nn.Module):
    """The dot product: towers that are scored so end on the unit sphere."""

    pairs = None

    def queries(self, x_BD: Tensor) -> Tensor:
        """As they are."""
        return x_BD

    def items(self, x_BD: Tensor) -> Tensor:
        """As they are."""
        return x_BD


class GMF(nn.Module):
    """``h . (p * q)``: generalised matrix factorisation (arXiv 1708.05031 eq. 9).

    The weights go with the query. They start at 1, where the score is the plain dot product. The
    paper's sigmoid has no place in a softmax over items.
    """

    pairs = None

    def __init__(self, width: int) -> None:
        """Build for vectors of ``width``."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def queries(self, x_BD: Tensor) -> Tensor:
        """Weigh."""
        return x_BD * self.weight

    def items(self, x_BD: Tensor) -> Tensor:
        """As they are."""
        return x_BD


class PairNetwork(nn.Module):
    """``p . q + h . MLP(relu(p' + q'))`` of a query's vector [p; p'] and an item's [q; q']."""

    def __init__(
        self, product_width: int, hidden: tuple[int, ...], source: torch.Generator
    ) -> None:
        """Build for a product part of ``product_width`` and p' as wide as the first of ``hidden``.

        Args:
            product_width: G.
            hidden: widths of the hidden layers; the first one's sums are the vectors' own.
            source: what initial values are drawn from.
        """
        super().__init__()
        self.product_width = product_width
        self.hidden_layers = [linear(*widths, source) for widths in pairwise(hidden)]
        self.layers = nn.ModuleList(self.hidden_layers)
        self.last = nn.Parameter(linear(hidden[-1], 1, source).weight.detach()[0])
        self.numbers_a_pair = 1 + sum(hidden)
        """Numbers held for every pair that is scored: the hidden layers and the score."""

    def forward(self, query_bX: Tensor, item_CX: Tensor) -> Tensor:
        """Scores of all pairs: ``(b, X)``, ``(C, X)`` -> ``(b, C)``."""
        query_bG, query_bH = query_bX.tensor_split([self.product_width], dim=1)
        item_CG, item_CH = item_CX.tensor_split([self.product_width], dim=1)
        x = F.relu(query_bH[:, None] + item_CH).flatten(0, 1)
        for layer in self.hidden_layers:
            x = F.relu(layer(x))
        return query_bG @ item_CG.T + (x @ self.last).view(len(query_bG), len(item_CG))


class NeuMF(nn.Module):
    """``h . [p * q; MLP([p'; q'])]``: GMF and an MLP side by side (arXiv 1708.05031 eq. 12).

    p and q are the first halves of the towers' outputs, p' and q' the second ones: with towers that
    are the embedding itself, both parts have embeddings of their own, as in the paper. The MLP's
    first layer is a sum of a query's part and an item's; each is computed once a row, not once a
    pair, and is what the vectors hold beside the product part. A bias of the score would cancel.
    """

    def __init__(self, width: int, hidden: tuple[int, ...], seed: int) -> None:
        """Build for an even ``width`` of the towers and at least one hidden layer."""
        super().__init__()
        source = generator(seed, "scorer")
        self._half = width // 2
        self.weight = nn.Parameter(torch.ones(self._half))
        self.first = linear(width, hidden[0], source)
        self.pairs = PairNetwork(self._half, hidden, source)

    def queries(self, x_BD: Tensor) -> Tensor:
        """``(B, G + H)``: the weighed product part, and the query's part of the first layer."""
        product_BG, deep_BG = x_BD.tensor_split([self._half], dim=1)
        part_BH = F.linear(deep_BG, self.first.weight[:, : self._half], self.first.bias)
        return torch.cat([product_BG * self.weight, part_BH], dim=1)

    def items(self, x_BD: Tensor) -> Tensor:
        """``(B, G + H)``: the product part, and the item's part of the first layer."""
        product_BG, deep_BG = x_BD.tensor_split([self._half], dim=1)
        part_BH = F.linear(deep_BG, self.first.weight[:, self._half :])
        return torch.cat([product_BG, part_BH], dim=1)
