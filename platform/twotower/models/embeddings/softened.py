"""The gradient of a softmax for a choice: forward one centroid, backward the mean of all.

What autograd would keep of it is as large as all responses, several times over. Here the responses
are made again in the backward pass, a part of the rows at a time.

Shape letters:
    u rows    D subspaces    K centroids    w width of a subspace    p = w + 2, as in `responses`
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from twotower.models.embeddings.responses import Held, parts

_CONTIGUOUS = torch.contiguous_format


def softened(
    chosen_Duw: Tensor, phi_Dup: Tensor, weights_DKp: Tensor, centroids_DKw: Tensor
) -> Tensor:
    """What was chosen, the gradient as if it were ``softmax(phi @ weights) @ centroids`` as well.

    Args:
        chosen_Duw: centroids chosen; their gradient goes through.
        phi_Dup: of the rows.
        weights_DKp: of the responses, over the temperature.
        centroids_DKw: what the softmax is a mean of; constants.
    """
    inputs = (chosen_Duw, phi_Dup, weights_DKp, centroids_DKw.detach())
    return cast("Tensor", _Softened.apply(*inputs))


class _Softened(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, chosen_Duw: Tensor, phi_Dup: Tensor, weights_DKp: Tensor, centroids_DKw: Tensor
    ) -> Tensor:
        ctx.save_for_backward(phi_Dup, weights_DKp, centroids_DKw)
        return chosen_Duw.clone()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides names
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad_Duw,) = grad_outputs
        phi_Dup, weights_DKp, centroids_DKw = ctx.saved_tensors
        weights_DpK = weights_DKp.transpose(1, 2).contiguous()
        centroids_DwK = centroids_DKw.transpose(1, 2).contiguous()
        grad_phi_Dpu = torch.empty_like(phi_Dup.transpose(1, 2), memory_format=_CONTIGUOUS)
        grad_weights_DpK = torch.zeros_like(weights_DpK)
        soft, inner = Held(weights_DKp), Held(weights_DKp)
        for part in parts(phi_Dup.shape[1], weights_DKp[:, :, 0]):
            phi = phi_Dup[:, part]
            soft_DuK = torch.bmm(phi, weights_DpK, out=soft.of(phi))
            torch.softmax(soft_DuK, 2, out=soft_DuK)
            inner_DuK = torch.bmm(grad_Duw[:, part], centroids_DwK, out=inner.of(phi))
            inner_DuK.mul_(soft_DuK)
            inner_DuK.sub_(soft_DuK.mul_(inner_DuK.sum(2, keepdim=True)))
            # The transposed product: with p columns MKL takes three times as long.
            grad_phi_Dpu[:, :, part] = weights_DpK @ inner_DuK.transpose(1, 2)
            grad_weights_DpK.baddbmm_(phi.transpose(1, 2), inner_DuK)
        return grad_Duw, grad_phi_Dpu.transpose(1, 2), grad_weights_DpK.transpose(1, 2), None
