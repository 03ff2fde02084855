"""Matrix products by the fastest library this processor has.

torch hands float32 products to MKL, which keeps to AVX2 on processors that are not Intel's. oneDNN,
in the same build of torch, uses AVX-512 wherever it is: 440 against 190 GFLOP/s on two AMD EPYC
cores (`docs/log.md`). bfloat16 goes to oneDNN anyway, float64 and GPUs to torch's own.

Shape letters:
    M rows    K inner width    N columns
"""

# Operators of torch.ops have no types.
# pyright: reportUnknownMemberType=false

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_STEP = 64
"""Sizes that vary from step to step are cut into a multiple of this and a rest."""

_LEAST_WORK = 1 << 20
"""Multiply-adds below which oneDNN's call, 10 us longer, costs more than it saves."""


def product(a_MK: Tensor, b_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """``a @ b.T + bias``, without gradients; either factor may be a transposed view.

    Args:
        a_MK: ``(M, K)``.
        b_NK: ``(N, K)``, of the same type.
        bias_N: ``(N,)``.

    Returns:
        ``(M, N)``, new memory. The same shapes, types and threads give the same bits.
    """
    if _by_onednn(a_MK, len(b_NK)):
        return _onednn(a_MK, b_NK, bias_N)
    return F.linear(a_MK, b_NK, bias_N)


def product_by_rows(a_MK: Tensor, b_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """`product` for an M that varies from call to call.

    oneDNN compiles a kernel for every new shape, which takes as long as a small product does. In
    two parts, a multiple of 64 and less than 64, the shapes soon repeat.
    """
    whole = len(a_MK) - len(a_MK) % _STEP
    if a_MK.is_cuda or whole in (0, len(a_MK)):
        return product(a_MK, b_NK, bias_N)
    parts = (a_MK[:whole], a_MK[whole:])
    return torch.cat([product(part, b_NK, bias_N) for part in parts])


def product_over_rows(a_KM: Tensor, b_KN: Tensor) -> Tensor:
    """``a.T @ b`` for a K that varies from call to call; see `product_by_rows`."""
    whole = len(a_KM) - len(a_KM) % _STEP
    if a_KM.is_cuda or whole in (0, len(a_KM)):
        return product(a_KM.T, b_KN.T)
    parts = ((a_KM[:whole], b_KN[:whole]), (a_KM[whole:], b_KN[whole:]))
    first, rest = (product(a.T, b.T) for a, b in parts)
    return first + rest


class Linear(nn.Linear):
    """`nn.Linear` over rows, its three float32 products by `product`."""

    def forward(self, input: Tensor) -> Tensor:
        """``(M, K)`` -> ``(M, N)``."""
        if torch.is_autocast_enabled(input.device.type) or not _by_onednn(input, len(self.weight)):
            return F.linear(input, self.weight, self.bias)
        return cast("Tensor", _Linear.apply(input, self.weight, self.bias))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_MK: Tensor, weight_NK: Tensor, bias_N: Tensor) -> Tensor:
        ctx.save_for_backward(x_MK, weight_NK)
        return product(x_MK, weight_NK, bias_N)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides names
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad_MN,) = grad_outputs
        x_MK, weight_NK = ctx.saved_tensors
        grad_x = product(grad_MN, weight_NK.T) if ctx.needs_input_grad[0] else None
        return grad_x, product(grad_MN.T, x_MK.T), grad_MN.sum(0)


def _by_onednn(a_MK: Tensor, columns: int) -> bool:
    return (
        a_MK.dtype == torch.float32
        and a_MK.device.type == "cpu"
        and a_MK.dim() == 2
        and a_MK.numel() * columns >= _LEAST_WORK
        and torch.backends.mkldnn.is_available()
    )


def _onednn(a_MK: Tensor, b_NK: Tensor, bias_N: Tensor | None) -> Tensor:
    # The operator that torch.compile emits; it takes plain tensors, strided ones too.
    return torch.ops.mkldnn._linear_pointwise(a_MK, b_NK, bias_N, "none", [], "")
