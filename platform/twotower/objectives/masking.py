"""Which features and values a view hides (arXiv 2007.12865 sec. 3.2), by keyed draws.

Every draw is a pure function of (seed, purpose, step, position in the global batch), or of
(seed, purpose, step) where the whole batch shares it: results don't depend on the workers.

Shape letters:
    n rows of this rank    A features of the item side    k features that may be masked    N entries
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twotower.core.seeding import integers, uniform, words
from twotower.core.types import Float64

_ROWS_A_RUN = 256
"""Items a run of equal masks must have on average to be worth products of its own (measured)."""

Kind = Literal["none", "rfm", "cfm", "rfm_independent"]


@dataclass(frozen=True, slots=True)
class Draws:
    """Source of the draws of one step."""

    seed: int
    step: int


def correlated_sets(mutual_information: Float64, num_masked: int) -> NDArray[np.bool_]:
    """The masked set that each seed feature leads to in CFM.

    Args:
        mutual_information: ``(k, k)``, symmetric; the diagonal is not read.
        num_masked: m, in 1..k-1.

    Returns:
        bool ``(k, k)``; row s holds s and its m - 1 most correlated features (ties: the earlier
        feature).
    """
    k = len(mutual_information)
    masked = np.eye(k, dtype=np.bool_)
    for seed in range(k):
        others = [f for f in range(k) if f != seed]
        nearest = sorted(others, key=lambda f, s=seed: (-mutual_information[s, f], f))
        masked[seed, nearest[: num_masked - 1]] = True
    return masked


@dataclass(frozen=True, slots=True)
class Views:
    """What is hidden in the two views of n items."""

    hidden: tuple[Tensor, Tensor]
    """Hidden features, bool ``(n, A)``, of view 1 and of view 2."""

    order: Tensor | None = None
    """int64 ``(n,)``: the order in which the items were put to make equal masks neighbours; None
    where they stayed as they were."""

    patterns: NDArray[np.bool_] | None = None
    """bool ``(P, A)``, on the host: features hidden in view 1 of each run of equal masks, where
    each feature is hidden in exactly one view; None where the views share nothing."""

    rows: tuple[int, ...] = ()
    """Items of each run, summing to n."""


class ViewMasks:
    """Draws the features that are hidden in the two views of an item."""

    def __init__(
        self,
        kind: Kind,
        num_masked: int,
        columns: list[int],
        num_features: int,
        sets: NDArray[np.bool_] | None = None,
        never: Sequence[int] = (),
    ) -> None:
        """Build.

        Args:
            kind: the masking.
            num_masked: m, features hidden in view 1 (in each view for `rfm_independent`).
            columns: the k features that may be masked, as columns of the side.
            num_features: A.
            sets: what `correlated_sets` gave; needed by `cfm`.
            never: columns that neither view shows.
        """
        if kind == "cfm" and sets is None:
            raise ValueError("cfm needs the correlated sets")
        self._kind, self._num_masked = kind, num_masked
        self._columns, self._num_features = columns, num_features
        self._sets, self._never = sets, list(never)

    @property
    def are_complements(self) -> bool:
        """Whether every feature of an item is shown by exactly one view."""
        return self._kind in {"rfm", "cfm"} and len(self._columns) == self._num_features

    def draw(self, draws: Draws, position_n: Tensor, *, runs: bool = False) -> Views | None:
        """Draw the masks of both views; None where nothing is masked.

        In `rfm` and `cfm` each feature that may be masked is hidden in exactly one of the views.

        Args:
            draws: seed and step.
            position_n: int64, place of each row in the global batch of the task.
            runs: name the runs of equal masks, if the views are complements and the runs few.
        """
        if self._kind == "none":
            nothing = torch.zeros(len(position_n), len(self._columns), dtype=torch.bool)
            hidden = self._spread(nothing.to(position_n.device))
            return Views((hidden, hidden)) if self._never else None
        if self._kind == "cfm":
            return self._correlated(draws, position_n, runs=runs)
        ranks = _random_ranks(draws, position_n, len(self._columns))
        first = ranks[0] < self._num_masked
        if self._kind == "rfm_independent":
            return Views((self._spread(first), self._spread(ranks[1] < self._num_masked)))
        patterns = math.comb(len(self._columns), self._num_masked)
        few = not first.is_cuda and patterns * _ROWS_A_RUN <= len(first)
        if runs and few and self.are_complements:
            return _sorted(self._spread(first))
        return Views((self._spread(first), self._spread(~first)))

    def _correlated(self, draws: Draws, position_n: Tensor, *, runs: bool) -> Views:
        assert self._sets is not None
        at = np.zeros(1, dtype=np.int64)
        seed = int(integers(draws.seed, "cfm", draws.step, at, len(self._columns))[0])
        chosen = self._sets[seed]
        first = torch.as_tensor(chosen).to(position_n.device).expand(len(position_n), -1)
        hidden = self._spread(first), self._spread(~first)
        if not (runs and self.are_complements):
            return Views(hidden)
        pattern = np.zeros((1, self._num_features), dtype=np.bool_)
        pattern[0, self._columns] = chosen
        return Views(hidden, patterns=pattern, rows=(len(position_n),))

    def _spread(self, hidden_nk: Tensor) -> Tensor:
        hidden_nA = hidden_nk.new_zeros(len(hidden_nk), self._num_features)
        hidden_nA[:, self._columns] = hidden_nk
        hidden_nA[:, self._never] = True
        return hidden_nA


def _sorted(first_nA: Tensor) -> Views:
    """Complementary views on the host, put in an order where equal masks are neighbours."""
    code_n = (first_nA.long() << torch.arange(first_nA.shape[1])).sum(1)
    sorted_n, order_n = torch.sort(code_n, stable=True)
    _, rows = torch.unique_consecutive(sorted_n, return_counts=True)
    first_nA = first_nA[order_n]
    patterns = first_nA[rows.cumsum(0) - rows].numpy()
    return Views((first_nA, ~first_nA), order_n, patterns, tuple(rows.tolist()))


def _random_ranks(draws: Draws, position_n: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Two independent uniform permutations of 0..k-1 a row: int64 ``(n, k)`` each."""
    column_k = torch.arange(k, device=position_n.device)
    index_nk = position_n[:, None] * k + column_k
    both = words(draws.seed, "mask", draws.step, index_nk)
    # The column breaks ties of 32-bit draws, so that ranks are always a permutation.
    distinct = [word_nk * k + column_k for word_nk in both]
    first, second = ((w[:, :, None] > w[:, None, :]).sum(2) for w in distinct)
    return first, second


def feature_dropout(
    draws: Draws,
    position_n: Tensor,
    columns: list[int],
    num_features: int,
    rate: float,
    *,
    lane: int,
) -> Tensor:
    """Baseline FD: each feature of ``columns`` hidden with probability ``rate``; bool ``(n, A)``.

    ``lane`` tells the passes of the main task apart, which count positions of their own.
    """
    k = len(columns)
    index_nk = position_n[:, None] * k + torch.arange(k, device=position_n.device)
    hidden_nA = torch.zeros(
        len(position_n), num_features, dtype=torch.bool, device=position_n.device
    )
    hidden_nA[:, columns] = (
        uniform(draws.seed, "feature_dropout", draws.step, index_nk, lane) < rate
    )
    return hidden_nA


def value_dropout(
    draws: Draws, position_N: Tensor, slot_N: Tensor, num_slots: int, rate: float
) -> tuple[Tensor, Tensor]:
    """Values that are dropped in view 1 and in view 2, independently: bool ``(N,)`` each.

    Args:
        draws: seed and step.
        position_N: int64, place in the global batch of the row of each value.
        slot_N: int64, number of the value within its row, in [0, num_slots).
        num_slots: most values of any row of the catalogue.
        rate: probability, in [0, 1).
    """
    index_N = position_N * num_slots + slot_N
    below = round(rate * (1 << 32))
    first_N, second_N = words(draws.seed, "value_dropout", draws.step, index_N)
    return first_N < below, second_N < below
