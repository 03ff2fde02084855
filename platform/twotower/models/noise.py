"""Dropout whose draws are a function of the row's place in the global batch, not of the workers.

Shape letters:
    b rows    R places of all rows    E width
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from twotower.core.seeding import four_words
from twotower.core.types import Int64

_LEVELS = 256
"""A draw is one byte: rates are multiples of 1/256, and a counter of Philox gives 16 draws."""

_BYTES = 16


@dataclass(frozen=True, slots=True)
class Noise:
    """Source of the draws of one step."""

    seed: int
    step: int
    position: Int64
    """int64 ``(b,)``: places of the rows in the global batch."""

    def dropped(self, x_RE: Tensor, place_R: Tensor, *, rate: float, site: int) -> Tensor:
        """Dropout of vectors: each number is 0, or divided by the share that is kept.

        Args:
            x_RE: the vectors.
            place_R: int64, a number of its own for each vector of the global batch.
            rate: probability of 0, rounded to a multiple of 1/256; below 1.
            site: tells dropouts of one step apart.
        """
        width = x_RE.shape[1]
        counters = -(-width // _BYTES)
        each = torch.arange(counters, device=place_R.device)
        index_RC = place_R[:, None] * counters + each
        words = four_words(self.seed, "history_dropout", self.step, index_RC, site)
        drawn = [(word >> shift) & (_LEVELS - 1) for word in words for shift in (0, 8, 16, 24)]
        drawn_RE = torch.stack(drawn, dim=2).flatten(1)[:, :width]
        dropped = min(round(rate * _LEVELS), _LEVELS - 1)
        return torch.where(drawn_RE >= dropped, x_RE * (_LEVELS / (_LEVELS - dropped)), 0)
