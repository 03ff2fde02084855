"""How strongly centroids answer to rows, normalised over the examples of a batch.

Both responses are products with the same few numbers of a subvector x, ``phi(x) = [x, |x|^2, 1]``:
nearness ``-|x - c|^2`` with ``[2 c, -1, -|c|^2]``, the product ``x . k`` with ``[k, 0, 0]``. So the
mean and variance of every centroid's response over the batch follow from the second moments of phi:
D small matrices to sum over ranks and to run, whatever the number of centroids; and a centroid that
has moved has its statistics at once.

Shape letters:
    D subspaces    u rows    K centroids    w width of a subspace    p = w + 2 numbers of phi
"""

import torch
from torch import Tensor

_EPS = 1e-3
"""Share of the mean variance of a subspace's responses, whose scale is that of rows."""

_TINY = 1e-30


def phi(rows_uE: Tensor, num_subspaces: int) -> Tensor:
    """``[x, |x|^2, 1]`` of every subvector, ``(D, u, p)``."""
    rows_Duw = rows_uE.unflatten(1, (num_subspaces, -1)).transpose(0, 1)
    square_Du1 = rows_Duw.square().sum(2, keepdim=True)
    return torch.cat([rows_Duw, square_Du1, torch.ones_like(square_Du1)], dim=2)


def nearness(centroids_DKw: Tensor) -> Tensor:
    """What phi is multiplied with for less the squared distance, ``(D, K, p)``."""
    square_DK1 = centroids_DKw.square().sum(2, keepdim=True)
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
        variance_DK = (square_DK - mean_DK**2).clamp(min=0)
        least_D1 = _EPS * variance_DK.mean(1, keepdim=True) + _TINY
        scale_DK = (variance_DK + least_D1).rsqrt()
        shift_DK = (mean_DK * scale_DK).to(weights_DKp.dtype)
        scale_DK = scale_DK.to(weights_DKp.dtype)
    scaled_DKp = weights_DKp * scale_DK[:, :, None]
    last_DK1 = scaled_DKp[:, :, -1:] - shift_DK[:, :, None]
    return torch.cat([scaled_DKp[:, :, :-1], last_DK1], dim=2)
