"""Softmax over candidates where a score is a network over a pair, not a dot product.

As in `softmax`, pairs live only as blocks of rows, and the gradient is made in the forward pass;
here by autograd on one block at a time: all hidden layers of a (B, C) matrix would not fit.

Shape letters:
    B anchors    C candidates    X width    b rows of a block
"""

# torch.autograd.Function.apply has no types.
# pyright: reportUnknownMemberType=false

from collections.abc import Iterator
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from twotower.objectives.softmax import Candidates, block_rows, softmax_gradient_


class ScorePairs(Protocol):
    """Scores pairs."""

    @property
    def numbers_a_pair(self) -> int:
        """Numbers held for every pair."""
        ...

    def __call__(self, query_bX: Tensor, item_CX: Tensor) -> Tensor:
        """``(b, C)``."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights."""
        ...


def pair_softmax_loss(
    pairs: ScorePairs,
    anchor_BX: Tensor,
    candidates: Candidates,
    weight_B: Tensor,
    *,
    temperature: float,
    bf16: bool = False,
) -> Tensor:
    """`softmax.softmax_loss` with ``pairs(anchor_i, candidate_j)`` for the dot product.

    Returns:
        0-d, differentiable once in the anchors, the candidates' vectors and the network's weights.
    """
    form = (1 / temperature, bf16)
    weights = tuple(pairs.parameters())
    return cast(
        "Tensor",
        _BlockedPairs.apply(
            anchor_BX, candidates.vectors, candidates, weight_B, form, pairs, *weights
        ),
    )


class _BlockedPairs(torch.autograd.Function):
    """Forward pass in blocks of rows that keeps the gradients, not the layers."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - autograd takes its tensors one by one
        ctx: Any,
        anchor_BX: Tensor,
        vectors_CX: Tensor,
        candidates: Candidates,
        weight_B: Tensor,
        form: tuple[float, bool],
        pairs: ScorePairs,
        *weights: Tensor,
    ) -> Tensor:
        scale, bf16 = form
        dtype, device = anchor_BX.dtype, anchor_BX.device.type
        positive_B1 = candidates.exclusions.positive[:, None]
        grads = [torch.zeros_like(x) for x in (anchor_BX, vectors_CX, *weights)]
        loss = anchor_BX.new_zeros(())
        rows = block_rows(anchor_BX, len(vectors_CX) * pairs.numbers_a_pair)
        item_CX = vectors_CX.detach().requires_grad_()
        for start in range(0, len(anchor_BX), rows):
            at = slice(start, start + rows)
            query_bX = anchor_BX[at].detach().requires_grad_()
            with (
                torch.enable_grad(),
                torch.autocast(device, dtype=torch.bfloat16, enabled=bf16),
            ):
                scores_bC = pairs(query_bX, item_CX)
            logits_bC = scores_bC.detach().to(dtype) * scale
            loss += weight_B[at] @ softmax_gradient_(logits_bC, start, positive_B1[at], candidates)
            upstream_bC = logits_bC * (scale * weight_B[at, None])
            found = torch.autograd.grad(
                scores_bC, (query_bX, item_CX, *weights), upstream_bC.to(scores_bC.dtype)
            )
            grads[0][at] = found[0]
            for place, part in enumerate(found[1:], 1):
                grads[place] += part
        ctx.save_for_backward(*grads)
        return loss

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides names
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        anchor, vectors, *weights = (grad * found for found in ctx.saved_tensors)
        return anchor, vectors, None, None, None, None, *weights
