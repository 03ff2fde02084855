"""What ranks the catalogue: anything that can score all items for some queries.

Shape letters:
    Q queries    N items    b queries of one tile    C items picked for each    D width    P pairs
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from twotower.core.errors import DivergedError
from twotower.core.sums import tree_sum
from twotower.core.types import Float64, Int64
from twotower.evaluation import coarse
from twotower.evaluation.rounding import float32_loss, norms

_PAIR_ELEMENTS = 2**18
"""float64 numbers of one side held at once when pairs are scored again (2 MiB): in cache they are
scored three times as fast as at 2^20."""

_MANY_ITEMS = 4096
"""From this many items of a query on, equal vectors are scored once: chosen, not tuned."""


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


class VectorScorer(ABC):
    """Scores that are a function of a model's vectors of query and item.

    ``exact`` gives equal vectors equal scores, in any row, catalogue order and device, if
    ``exact_pairs`` does.
    """

    def __init__(self, query_QD: Tensor, item_ND: Tensor) -> None:
        """Keep the vectors: float32 ``(Q, D)`` and ``(N, D)`` on one device.

        Raises:
            DivergedError: a vector holds NaN or infinity.
        """
        for name, vectors in (("query", query_QD), ("item", item_ND)):
            broken = _broken(vectors)
            if len(broken):
                raise DivergedError(
                    f"{len(broken)} {name} vectors are not finite, first at row {int(broken[0])}: "
                    "training diverged; lower train.learning_rate or set train.clip_norm"
                )
        self.query_QD = query_QD.detach().float()
        self.item_ND = item_ND.detach().float()

    @property
    @abstractmethod
    def error(self) -> float:
        """As `Scorer.error`."""

    @abstractmethod
    def tile(self, rows: Int64) -> Tensor:
        """As `Scorer.tile`."""

    @abstractmethod
    def exact_pairs(self, query_P: Tensor, item_P: Tensor) -> Tensor:
        """float64 ``(P,)``: scores of pairs, int64 rows of both sides on the vectors' device."""

    def queries(self, rows: Int64) -> Tensor:
        """float32 ``(b, D)``: vectors of the given queries."""
        return self.query_QD[torch.as_tensor(rows).to(self.query_QD.device)]

    def exact(self, rows: Int64, items: Int64) -> Float64:
        """float64 ``(b, C)``."""
        if items.shape[1] < _MANY_ITEMS:
            return self._exact_block(rows, items)
        first = self._first_alike[items]
        needed = np.flatnonzero(np.bincount(first.ravel(), minlength=len(self.item_ND)))
        place = np.zeros(len(self.item_ND), dtype=np.int64)
        place[needed] = np.arange(len(needed))
        scores = self._exact_block(rows, np.tile(needed, (len(rows), 1)))
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

    def _exact_block(self, rows: Int64, items: Int64) -> Float64:
        device = self.item_ND.device
        query_P = torch.as_tensor(np.repeat(rows, items.shape[1])).to(device)
        scores_P = self.exact_pairs(query_P, torch.as_tensor(items.ravel()).to(device))
        return scores_P.cpu().numpy().reshape(items.shape)


class CosineScorer(VectorScorer):
    """Dot products of a model's vectors, of norm 1 or any other.

    ``tile`` is a float32 matrix product, whose rounding depends on library and device. ``exact``
    multiplies in float64, where products of float32 numbers have no error, and adds them in a fixed
    tree, so that equal vectors have equal scores in any row, catalogue order and device.
    """

    def __init__(
        self, query_QD: Tensor, item_ND: Tensor, shortlists: Sequence[torch.dtype] | None = None
    ) -> None:
        """Keep the vectors: float32 ``(Q, D)`` and ``(N, D)`` on one device.

        Args:
            query_QD: the queries.
            item_ND: the catalogue.
            shortlists: in which types to look for candidates before whole rows are ranked, one
                after the other; by default what the device is fast at. The result is the same.

        Raises:
            DivergedError: a vector holds NaN or infinity.
        """
        super().__init__(query_QD, item_ND)
        self.shortlists = coarse.dtypes(item_ND.device) if shortlists is None else shortlists

    @property
    def error(self) -> float:
        """`float32_loss` for the longest query and item. D = 64 and unit vectors: 3.8e-6."""
        if not len(self.query_QD) or not len(self.item_ND):
            return 0.0
        loss = float32_loss(self.item_ND.shape[1], on_cuda=self.item_ND.is_cuda)
        return loss * float(norms(self.query_QD).max() * norms(self.item_ND).max()) + 1e-30

    def tile(self, rows: Int64) -> Tensor:
        """float32 ``(b, N)``, within `error` of `exact`."""
        with torch.autocast(self.item_ND.device.type, enabled=False):
            return self.queries(rows) @ self.item_ND.T

    def exact_pairs(self, query_P: Tensor, item_P: Tensor) -> Tensor:
        """float64 ``(P,)``: scores of pairs, int64 rows of both sides on the vectors' device.

        Beside the result at most 10 MiB, or one pair's vectors.
        """
        scores_P = torch.empty(len(item_P), dtype=torch.float64, device=self.item_ND.device)
        step = max(1, _PAIR_ELEMENTS // self.item_ND.shape[1])
        for start in range(0, len(item_P), step):
            part = slice(start, start + step)
            query_PD = self.query_QD.index_select(0, query_P[part]).double()
            item_PD = self.item_ND.index_select(0, item_P[part]).double()
            scores_P[part] = _tree_dot(query_PD, item_PD)
        return scores_P


def _broken(rows_RD: Tensor) -> Tensor:
    """Rows with a number that is not finite; beside them memory for one number a row."""
    suspects = (~rows_RD.sum(dim=1).isfinite()).nonzero()[:, 0]  # finite rows may overflow, too
    return suspects[~rows_RD[suspects].isfinite().all(dim=1)]


def _tree_dot(query_PD: Tensor, item_PD: Tensor) -> Tensor:
    """Dot products of float32 numbers held as float64, added by halves: one order on every device.

    Products are exact, so that a fused multiply-add rounds as an addition does. Writes to both.
    """
    half, width = query_PD.shape[1] // 2, -(-query_PD.shape[1] // 2)
    terms_PD = query_PD[:, :width].mul_(item_PD[:, :width])
    terms_PD[:, :half].addcmul_(query_PD[:, width:], item_PD[:, width:])
    return tree_sum(terms_PD[:, :width])
