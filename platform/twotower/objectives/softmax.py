"""Softmax cross-entropy of anchors over candidates: the one loss code of all three tasks.

Logits live only as blocks of rows, and the gradient is made in the forward pass: the plain form
walks a (B, C) matrix six times, which on a CPU costs more than the matrix products.

Shape letters:
    B anchors    C candidates    D width    P pairs left out    b rows of a block
"""

# torch.autograd.Function.apply has no types.
# pyright: reportUnknownMemberType=false

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from twotower.kernels.products import product

_BLOCK_CPU, _BLOCK_GPU = 1 << 21, 1 << 28
"""Logits in a block: 8 MB stay in a CPU's last-level cache; a GPU wants few and large kernels."""


@dataclass(frozen=True)
class Exclusions:
    """Pairs that are no negatives: the candidate's item is one of the anchor's keys.

    The anchor's own positive column is never left out.
    """

    keys: Tensor
    """int64 ``(B, K)``: items that are no negatives of the anchor; -1 where there is none."""

    columns: Tensor
    """int64 ``(C,)``: item of each candidate, at least 0."""

    positive: Tensor
    """int64 ``(B,)``: column of each anchor's positive."""

    def fill_(self, block_bC: Tensor, start: int, value: float) -> None:
        """Write ``value`` at the left-out pairs of rows [start, start + b)."""
        # A GPU compares all pairs: to list those left out, it would be asked how many there are.
        (self._fill_all_ if block_bC.is_cuda else self._fill_listed_)(block_bC, start, value)

    def _fill_all_(self, block_bC: Tensor, start: int, value: float) -> None:
        at = slice(start, start + len(block_bC))
        same_bC = (self.keys[at, :, None] == self.columns).any(1)
        same_bC.scatter_(1, self.positive[at, None], value=False)
        block_bC.masked_fill_(same_bC, value)

    def _fill_listed_(self, block_bC: Tensor, start: int, value: float) -> None:
        first = start * len(self.columns)
        last = first + block_bC.numel()
        bounds = torch.searchsorted(self.pairs, torch.tensor([first, last]))
        inside = self.pairs[int(bounds[0]) : int(bounds[1])]
        block_bC.view(-1).index_fill_(0, inside - first, value)

    @cached_property
    def pairs(self) -> Tensor:
        """Left-out pairs as row * C + column, int64 ``(P,)``, rows rising; some may come twice."""
        sorted_C, order_C = torch.sort(self.columns)
        keys = self.keys.flatten()
        first = torch.searchsorted(sorted_C, keys)
        counts = torch.searchsorted(sorted_C, keys, right=True) - first
        index_P = torch.repeat_interleave(torch.arange(len(keys), device=keys.device), counts)
        nth_P = (
            torch.arange(len(index_P), device=keys.device) - (counts.cumsum(0) - counts)[index_P]
        )
        row_P = index_P // self.keys.shape[1]
        column_P = order_C[first[index_P] + nth_P]
        other_P = column_P != self.positive[row_P]
        return (row_P * len(self.columns) + column_P)[other_P]


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the anchors of a softmax are scored against."""

    vectors: Tensor
    """float ``(C, D)``."""

    exclusions: Exclusions
    """Also says which column is each anchor's positive."""

    bias: Tensor | None = None
    """float ``(C,)``, added to the logits of each column; no gradient."""

    log_counts: Tensor | None = None
    """float ``(C,)``: log of the number of candidates that a column stands for, all of its vector.
    As a row's positive it stands for that one alone: the others are left out with its item."""


def softmax_loss(
    anchor_BD: Tensor,
    candidates: Candidates,
    weight_B: Tensor,
    *,
    temperature: float,
    bf16: bool = False,
) -> Tensor:
    """Weighted sum of cross-entropies ``sum_i w_i (log sum_j exp(s_ij) - s_i,positive)``.

    ``s_ij = <anchor_i, candidate_j> / temperature + bias_j``; left-out pairs are absent from the
    sum, and a column is in it as often as it stands for a candidate.

    Args:
        anchor_BD: float.
        candidates: vectors, biases and exclusions.
        weight_B: float, already divided by the global sum of weights.
        temperature: tau > 0.
        bf16: matrix products in bfloat16, all else in the anchors' type.

    Returns:
        0-d, differentiable once in the anchors and the candidates' vectors.
    """
    form = (1 / temperature, bf16)
    vectors = candidates.vectors
    return cast("Tensor", _BlockedSoftmax.apply(anchor_BD, vectors, candidates, weight_B, form))


class _BlockedSoftmax(torch.autograd.Function):
    """Forward pass in blocks of rows that keeps the two gradients, not the logits."""

    @staticmethod
    def forward(
        ctx: Any,
        anchor_BD: Tensor,
        vectors_CD: Tensor,
        candidates: Candidates,
        weight_B: Tensor,
        form: tuple[float, bool],
    ) -> Tensor:
        scale, bf16 = form
        product_type = torch.bfloat16 if bf16 else anchor_BD.dtype
        vectors = vectors_CD.to(product_type)
        positive_B1 = candidates.exclusions.positive[:, None]
        grad_anchor_BD = torch.empty_like(anchor_BD)
        grad_vectors_DC = vectors_CD.new_zeros(vectors_CD.shape[::-1])
        loss = anchor_BD.new_zeros(())
        rows = block_rows(anchor_BD, len(vectors_CD))
        for start in range(0, len(anchor_BD), rows):
            at = slice(start, start + rows)
            positive_b1, weight_b = positive_B1[at], weight_B[at]
            scaled_bD = (anchor_BD[at] * scale).to(product_type)
            logits_bC = product(scaled_bD, vectors).to(anchor_BD.dtype)
            loss += weight_b @ softmax_gradient_(logits_bC, start, positive_b1, candidates)
            grad_bC = logits_bC.to(product_type)
            grad_anchor_BD[at] = product(grad_bC, vectors.T).to(anchor_BD.dtype) * (
                scale * weight_b[:, None]
            )
            weighted_bD = scaled_bD * weight_b[:, None].to(product_type)
            # This way round the small factor is the one that oneDNN copies.
            grad_vectors_DC += product(weighted_bD.T, grad_bC.T).to(grad_vectors_DC.dtype)
        ctx.save_for_backward(grad_anchor_BD, grad_vectors_DC.T.contiguous())
        return loss

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides names
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        grad_anchor_BD, grad_vectors_CD = ctx.saved_tensors
        return grad * grad_anchor_BD, grad * grad_vectors_CD, None, None, None


def softmax_gradient_(
    logits_bC: Tensor, start: int, positive_b1: Tensor, candidates: Candidates
) -> Tensor:
    """Turn a block of scores into the gradient of its rows' losses, in place.

    Args:
        logits_bC: scores of rows [start, start + b), already divided by the temperature.
        start: first row of the block.
        positive_b1: int64 ``(b, 1)``, column of each row's positive.
        candidates: biases, counts and exclusions.

    Returns:
        The rows' cross-entropies ``(b,)``, without their weights, as the gradient is.
    """
    _correct_(logits_bC, positive_b1, candidates)
    candidates.exclusions.fill_(logits_bC, start, -math.inf)
    losses_b = _softmax_(logits_bC, positive_b1)
    # Softmax minus one at the positive.
    one_b1 = logits_bC.new_ones(()).expand_as(positive_b1)
    logits_bC.scatter_add_(1, positive_b1, -one_b1)
    return losses_b


def _correct_(logits_bC: Tensor, positive_b1: Tensor, candidates: Candidates) -> None:
    """Add biases and counts to a block of logits; a row's positive counts once."""
    added = [x for x in (candidates.bias, candidates.log_counts) if x is not None]
    if added:
        logits_bC += sum(added[1:], added[0])
    if candidates.log_counts is not None:
        logits_bC.scatter_add_(1, positive_b1, -candidates.log_counts[positive_b1])


def _softmax_(logits_bC: Tensor, positive_b1: Tensor) -> Tensor:
    """Turn logits into their softmax in place; returns the cross-entropies ``(b,)``.

    log-sum-exp is read off the largest probability, which can't underflow (the positive's can).
    """
    positive_b = logits_bC.gather(1, positive_b1).squeeze(1)
    top_b = logits_bC.amax(1)
    torch.softmax(logits_bC, 1, out=logits_bC)
    return top_b - logits_bC.amax(1).log() - positive_b


def block_rows(anchor_BD: Tensor, numbers_a_row: int) -> int:
    """Rows of a block where each row needs so many numbers."""
    size = _BLOCK_GPU if anchor_BD.is_cuda else _BLOCK_CPU
    return max(1, size // max(numbers_a_row, 1))
