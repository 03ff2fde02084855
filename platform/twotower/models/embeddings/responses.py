"""How strongly centroids answer to rows, normalised over the examples of a batch.

Both responses are products with the same few numbers of a subvector x, ``phi(x) = [x, |x|^2, 1]``:
nearness ``-|x - c|^2`` with ``[2 c, -1, -|c|^2]``, the product ``x . k`` with ``[k, 0, 0]``. So the
mean and variance of every centroid's response over the batch follow from the second moments of phi:
D small matrices to sum over ranks and to run, whatever the number of centroids; and a centroid that
has moved has its statistics at once.

Shape letters:
    D subspaces    u rows    K centroids    w width of a subspace    p = w + 2 numbers of phi
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from twotower.core.sums import tree_sum

_EPS = 1e-3
"""Share of the mean variance of a subspace's responses, whose scale is that of rows."""

_TINY = 1e-30

_HELD_CPU, _HELD_GPU = 1 << 20, 1 << 26
"""Responses held at once: on a CPU few enough for its caches."""


def phi(rows_uE: Tensor, num_subspaces: int, *, in_one_order: bool = False) -> Tensor:
    """``[x, |x|^2, 1]`` of every subvector, ``(D, u, p)``; without gradient added in one order."""
    rows_Duw = rows_uE.unflatten(1, (num_subspaces, -1)).transpose(0, 1)
    terms_Duw = rows_Duw.square()
    square_Du1 = (tree_sum(terms_Duw) if in_one_order else terms_Duw.sum(2))[:, :, None]
    return torch.cat([rows_Duw, square_Du1, torch.ones_like(square_Du1)], dim=2)


def nearness(centroids_DKw: Tensor) -> Tensor:
    """What phi is multiplied with for less the squared distance, ``(D, K, p)``."""
    square_DK1 = tree_sum(centroids_DKw * centroids_DKw)[:, :, None]
    return torch.cat([2 * centroids_DKw, -torch.ones_like(square_DK1), -square_DK1], dim=2)


def likeness(keys_DKw: Tensor) -> Tensor:
    """What phi is multiplied with for the product with keys over the root of their width."""
    scaled_DKw = keys_DKw / keys_DKw.shape[2] ** 0.5
    return torch.cat([scaled_DKw, scaled_DKw.new_zeros(*scaled_DKw.shape[:2], 2)], dim=2)


def moments(phi_Dup: Tensor, counts_u: Tensor) -> Tensor:
    """Sum over examples of phi's products with itself, float64 ``(D, p, p)``.

    The last number of each matrix is the number of examples.
    """
    exact_Dup = phi_Dup.double()
    return (exact_Dup * counts_u.double()[:, None]).transpose(1, 2) @ exact_Dup


def normalised(weights_DKp: Tensor, moments_Dpp: Tensor) -> Tensor:
    """Weights whose products with phi have mean 0 and variance 1 over the examples.

    Args:
        weights_DKp: of `nearness` or `likeness`.
        moments_Dpp: mean over examples of phi's products with itself; constants to the gradient.
    """
    with torch.no_grad():
        exact_DKp, moments_Dpp = weights_DKp.double(), moments_Dpp.double()
        mean_DK = (exact_DKp @ moments_Dpp[:, :, -1:]).squeeze(2)
        square_DK = ((exact_DKp @ moments_Dpp) * exact_DKp).sum(2)
    return normalise(weights_DKp, mean_DK, square_DK)


def normalise(weights_DKp: Tensor, mean_DK: Tensor, square_DK: Tensor) -> Tensor:
    """Scale and shift weights by the mean of each response and of its square, both float64.

    Equal arguments give equal bits on any machine.
    """
    with torch.no_grad():
        variance_DK = (square_DK - mean_DK * mean_DK).clamp(min=0)
        average_D = tree_sum(variance_DK.clone()) / variance_DK.shape[1]
        least_D1 = _EPS * average_D[:, None] + _TINY
        scale_DK = 1 / (variance_DK + least_D1).sqrt()
        shift_DK = (mean_DK * scale_DK).to(weights_DKp.dtype)
        scale_DK = scale_DK.to(weights_DKp.dtype)
    scaled_DKp = weights_DKp * scale_DK[:, :, None]
    last_DK1 = scaled_DKp[:, :, -1:] - shift_DK[:, :, None]
    return torch.cat([scaled_DKp[:, :, :-1], last_DK1], dim=2)


@torch.no_grad()
def largest(rows_uE: Tensor, weights_DKp: Tensor) -> Tensor:
    """The centroid of the largest response in each of the first D subspaces, int64 ``(u, D)``.

    Without gradient; of equal responses the first.

    Args:
        rows_uE: rows, their first ``D * w`` numbers are read.
        weights_DKp: as `normalised` gives them.
    """
    subspaces, _, p = weights_DKp.shape
    rows_uE = rows_uE[:, : subspaces * (p - 2)]
    codes_uD = torch.empty(len(rows_uE), subspaces, dtype=torch.int64, device=rows_uE.device)
    weights_DpK, held = weights_DKp.transpose(1, 2).contiguous(), Held(weights_DKp)
    for part in parts(len(rows_uE), weights_DKp[:, :, 0]):
        phi_Dup = phi(rows_uE[part], subspaces)
        codes_uD[part] = argmax(torch.bmm(phi_Dup, weights_DpK, out=held.of(phi_Dup))).T
    return codes_uD


def parts(num_rows: int, like: Tensor) -> Iterator[slice]:
    """Rows in parts that are held at once, each with as many numbers as ``like`` has."""
    held = _HELD_GPU if like.is_cuda else _HELD_CPU
    size = max(1, held // like.numel())
    return (slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size))


class Held:
    """Memory for the responses of one part, the same for all: it stays in the caches."""

    def __init__(self, weights_DKp: Tensor) -> None:
        self._like, self._memory = weights_DKp, weights_DKp.new_empty(0)

    def of(self, phi_Dup: Tensor) -> Tensor:
        """``(D, u, K)``, for some rows of `parts`; contents are of the part before."""
        shape = (*phi_Dup.shape[:2], self._like.shape[1])
        if self._memory.numel() < math.prod(shape):  # the first part is the largest
            self._memory = self._memory.new_empty(shape)
        return self._memory.flatten()[: math.prod(shape)].view(shape)


def argmax(answers_DuK: Tensor) -> Tensor:
    """Place of the largest, the first of equal ones; on a CPU by NumPy, four times as fast."""
    if answers_DuK.is_cuda:
        return answers_DuK.argmax(2)
    return torch.from_numpy(answers_DuK.numpy().argmax(2))
