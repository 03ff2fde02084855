"""What ranks the catalogue: anything that can score all items for some queries.

Shape letters:
    Q queries    N items    b queries of one tile    C items picked for each    D width    P pairs
"""

from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from twotower.core.errors import DivergedError
from twotower.core.types import Float64, Int64

_PAIR_ELEMENTS = 2**20
"""float64 numbers held at once when pairs are scored again (8 MiB): chosen, not tuned."""

_MANY_ITEMS = 4096
"""From this many items of a query on, equal vectors are scored once: chosen, not tuned."""

_INPUT_ROUNDOFF = {"tf32": 2.0**-10, "bf16": 2.0**-7}
"""Relative error of an input that a matmul may first cut to fewer bits (truncation allowed for)."""


class Scorer(Protocol):
    """Scores of queries 0..Q-1 over items 0..N-1; higher is better, -inf is never recommended."""

    @property
    def error(self) -> float:
        """Bound on ``|tile - exact|``. 0 says that tiles are exact: equal scores are real ties."""
        ...

    def tile(self, rows: Int64) -> Tensor:
        """float32 or float64 ``(b, N)`` of the given queries; fresh: the caller writes to it."""
        ...

    def exact(self, rows: Int64, items: Int64) -> Float64:
        """float64 ``(b, C)``: scores of ``items`` int64 ``(b, C)``, wherever they stand."""
        ...


class CosineScorer:
    """Dot products of a model's (unit) vectors.

    ``tile`` is a float32 matrix product, whose rounding depends on library and device. ``exact``
    multiplies in float64, where products of float32 numbers have no error, and adds them in a fixed
    tree, so that equal vectors have equal scores in any row, catalogue order and device.
    """

    def __init__(self, query_QD: Tensor, item_ND: Tensor) -> None:
        """Keep the vectors: float32 ``(Q, D)`` and ``(N, D)`` on one device.

        Raises:
            DivergedError: a vector holds NaN or infinity.
        """
        for name, vectors in (("query", query_QD), ("item", item_ND)):
            broken = (~torch.isfinite(vectors)).any(dim=1).nonzero()
            if len(broken):
                raise DivergedError(
                    f"{len(broken)} {name} vectors are not finite, first at row {int(broken[0])}: "
                    "training diverged; lower train.learning_rate or set train.clip_norm"
                )
        self.query_QD = query_QD.detach().float()
        self.item_ND = item_ND.detach().float()

    @property
    def error(self) -> float:
        """``(gamma_D + 2u + u^2) |q| |x|`` for the longest q and x.

        gamma_D = D 2^-24 / (1 - D 2^-24) holds for any order of the sum (Higham, Accuracy and
        Stability of Numerical Algorithms, 2nd ed., eq. 3.5); u is what a reduced-precision matmul
        takes from its inputs, 0 unless TF32 or bfloat16 products are switched on. For D = 64 and
        unit vectors 3.8e-6.
        """
        if not len(self.query_QD) or not len(self.item_ND):
            return 0.0
        rounding = self.item_ND.shape[1] * 2.0**-24
        cut = _input_roundoff(on_cuda=self.item_ND.is_cuda)
        longest = _longest(self.query_QD) * _longest(self.item_ND)
        return (rounding / (1 - rounding) + 2 * cut + cut * cut) * longest * 1.001 + 1e-30

    def tile(self, rows: Int64) -> Tensor:
        """float32 ``(b, N)``, within `error` of `exact`."""
        with torch.autocast(self.item_ND.device.type, enabled=False):
            return self.query_QD[torch.as_tensor(rows).to(self.query_QD.device)] @ self.item_ND.T

    def exact(self, rows: Int64, items: Int64) -> Float64:
        """float64 ``(b, C)``; at most 8 MiB of products at once."""
        if items.shape[1] < _MANY_ITEMS:
            return self._exact_pairs(rows, items)
        first = self._first_alike[items]
        needed = np.flatnonzero(np.bincount(first.ravel(), minlength=len(self.item_ND)))
        place = np.zeros(len(self.item_ND), dtype=np.int64)
        place[needed] = np.arange(len(needed))
        scores = self._exact_pairs(rows, np.tile(needed, (len(rows), 1)))
        return np.take_along_axis(scores, place[first], axis=1)

    @cached_property
    def _first_alike(self) -> Int64:
        """First item of equal vector, int64 ``(N,)``: a collapsed model has few different ones.

        Without it each query of such a model would cost N exact dot products.
        """
        vectors = np.ascontiguousarray(self.item_ND.cpu().numpy())
        rows = vectors.view(np.dtype((np.void, vectors.shape[1] * vectors.itemsize))).ravel()
        _, first, place = np.unique(rows, return_index=True, return_inverse=True)
        return first.astype(np.int64)[place]

    def _exact_pairs(self, rows: Int64, items: Int64) -> Float64:
        device = self.item_ND.device
        query_P = torch.as_tensor(np.repeat(rows, items.shape[1])).to(device)
        item_P = torch.as_tensor(items.ravel()).to(device)
        scores_P = torch.empty(len(item_P), dtype=torch.float64, device=device)
        step = max(1, _PAIR_ELEMENTS // self.item_ND.shape[1])
        for start in range(0, len(item_P), step):
            part = slice(start, start + step)
            query_PD = self.query_QD[query_P[part]].double()
            scores_P[part] = _tree_sum(query_PD * self.item_ND[item_P[part]].double())
        return scores_P.cpu().numpy().reshape(items.shape)


def _input_roundoff(*, on_cuda: bool) -> float:
    """What float32 matrix products lose of their inputs under torch's present settings."""
    backends: Any = torch.backends
    matmul = backends.cuda.matmul if on_cuda else backends.mkldnn.matmul
    return _INPUT_ROUNDOFF.get(matmul.fp32_precision, 0.0)


def _longest(vectors: Tensor) -> float:
    return float(vectors.double().square().sum(dim=1).max().sqrt())


def _tree_sum(terms_PD: Tensor) -> Tensor:
    """Sum over the last axis by halves, element-wise additions only: one order on every device."""
    width = terms_PD.shape[1]
    while width > 1:
        half = width // 2
        terms_PD[:, :half] += terms_PD[:, width - half : width]
        width -= half
    return terms_PD[:, 0]
