"""Scores by a network over pairs, ranked exactly like dot products.

Shape letters:
    Q queries    N items    X width of a vector: G of the product part, H of the network's
    b queries of one tile    w items of one part of a tile    P pairs    J outputs of a layer
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from twotower.core.sums import tree_sum
from twotower.core.types import Int64
from twotower.evaluation.rounding import float32_loss, norms
from twotower.evaluation.scorers import VectorScorer

_TILE_NUMBERS = 2**20
"""float32 numbers of the hidden layers held at once (4 MiB), which stay in cache: chosen."""

_PAIR_NUMBERS = 2**18
"""float64 products of one layer held at once (2 MiB): as for dot products."""

_UNIT = 2.0**-24


@dataclass(frozen=True, slots=True)
class Network:
    """``p . q + h . MLP(relu(p' + q'))`` of the vectors [p; p'] and [q; q']; float32."""

    product_width: int
    """G, numbers of p and q."""

    layers: Sequence[tuple[Tensor, Tensor]]
    """Weight ``(J, H)`` and bias ``(J,)`` of each further hidden layer (ReLU)."""

    last: Tensor
    """``(H,)``: h."""


class PairScorer(VectorScorer):
    """A network over pairs of vectors.

    ``tile`` works in float32, a part of the catalogue at a time; ``exact`` in float64, each sum in
    a fixed tree, so that equal vectors have equal scores wherever they stand.
    """

    def __init__(self, query_QX: Tensor, item_NX: Tensor, network: Network) -> None:
        """Keep the vectors, float32 ``(Q, X)`` and ``(N, X)``, and the network, on one device.

        Raises:
            DivergedError: a vector holds NaN or infinity.
        """
        super().__init__(query_QX, item_NX)
        self._network = network

    @property
    def error(self) -> float:
        """Bound on ``|tile - exact|``: what float32 loses, layer by layer.

        With m a bound on the size of a layer's numbers over all pairs and e one on their error,
        the next layer's are ``|W| m + |b|`` and ``|W| e + gamma (|W| (m + e) + |b|)``; ReLU adds
        nothing to either. float64 loses 10^-8 of that, which the margin holds.
        """
        if not len(self.query_QD) or not len(self.item_ND):
            return 0.0
        net, on_cuda = self._network, self.item_ND.is_cuda
        first = net.product_width
        lengths = [norms(x[:, :first]).max() for x in (self.query_QD, self.item_ND)]
        size = sum(x[:, first:].abs().amax(0).double() for x in (self.query_QD, self.item_ND))
        assert isinstance(size, Tensor)
        lost = size * _UNIT
        for weight_JH, bias_J in net.layers:
            weight, bias = weight_JH.double().abs(), bias_J.double().abs()
            gamma = float32_loss(weight.shape[1] + 2, on_cuda=on_cuda)
            lost = weight @ lost + gamma * (weight @ (size + lost) + bias)
            size = weight @ size + bias
        last = net.last.double().abs()
        deep = float(last @ size)
        gamma = float32_loss(len(last) + 2, on_cuda=on_cuda)
        deep_lost = float(last @ lost) + gamma * (deep + float(last @ lost))
        product = float(lengths[0] * lengths[1])
        product_lost = float32_loss(first + 2, on_cuda=on_cuda) * product
        both = deep + deep_lost + product + product_lost
        return (deep_lost + product_lost + _UNIT * both) * 1.001 + 1e-30

    def tile(self, rows: Int64) -> Tensor:
        """float32 ``(b, N)``, within `error` of `exact`; beside it about 8 MiB, or one item's."""
        net, first = self._network, self._network.product_width
        query_bX, item_NX = self.queries(rows), self.item_ND
        with torch.autocast(item_NX.device.type, enabled=False):
            scores_bN = query_bX[:, :first] @ item_NX[:, :first].T
            query_b1H = query_bX[:, None, first:]
            widest = max(item_NX.shape[1] - first, *(len(bias) for _, bias in net.layers), 1)
            step = max(1, _TILE_NUMBERS // (max(1, len(rows)) * widest))
            for start in range(0, len(item_NX), step):
                part_wX = item_NX[start : start + step]
                x = F.relu(query_b1H + part_wX[:, first:])
                for weight, bias in net.layers:
                    x = F.relu(F.linear(x, weight, bias))
                scores_bN[:, start : start + step] += x @ net.last
        return scores_bN

    def exact_pairs(self, query_P: Tensor, item_P: Tensor) -> Tensor:
        """float64 ``(P,)``; beside the result a few MiB, or one pair's numbers."""
        net, first = self._network, self._network.product_width
        scores_P = torch.empty(len(item_P), dtype=torch.float64, device=self.item_ND.device)
        shapes = [(1, self.item_ND.shape[1]), *(weight.shape for weight, _ in net.layers)]
        step = max(1, _PAIR_NUMBERS // max(rows * columns for rows, columns in shapes))
        for start in range(0, len(item_P), step):
            part = slice(start, start + step)
            query_PX = self.query_QD.index_select(0, query_P[part]).double()
            item_PX = self.item_ND.index_select(0, item_P[part]).double()
            x_PH = (query_PX[:, first:] + item_PX[:, first:]).relu_()
            for weight, bias in net.layers:
                sums_PJ = tree_sum(x_PH[:, None] * weight.double())
                x_PH = (sums_PJ + bias.double()).relu_()
            deep_P = tree_sum(x_PH * net.last.double())
            scores_P[part] = tree_sum(query_PX[:, :first] * item_PX[:, :first]) + deep_P
        return scores_P
