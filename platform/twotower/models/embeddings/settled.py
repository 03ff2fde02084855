"""Codes as they are served: the same on every machine, whatever chose them in training.

Which of two nearly equal responses is the larger would go by the order in which a library adds,
and that by the processor. Here a library's float64 products find the largest wherever their
rounding can't change it; elsewhere responses are added again in one order, of operations that
IEEE 754 rounds. So codes follow from a checkpoint alone: an export has those that were evaluated.

Shape letters:
    D subspaces    u rows    K centroids    w width of a subspace    p = w + 2, as in `responses`
    n pairs of a row and a subspace whose largest responses are too close to tell
"""

import torch
from torch import Tensor

from twotower.core.sums import tree_sum
from twotower.models.embeddings.responses import Held, argmax, normalise, parts, phi

_ROUNDOFF = 2.0**-53


@torch.no_grad()
def normalised(weights_DKp: Tensor, moments_Dpp: Tensor) -> Tensor:
    """As `responses.normalised`, float64 and added in one order.

    Args:
        weights_DKp: float64, of `responses.nearness` or `responses.likeness`.
        moments_Dpp: float64: mean over examples of phi's products with itself.
    """
    columns_DpK = [
        tree_sum(weights_DKp * column_Dp[:, None]) for column_Dp in moments_Dpp.unbind(2)
    ]
    square_DK = tree_sum(torch.stack(columns_DpK, dim=2) * weights_DKp)
    return normalise(weights_DKp, columns_DpK[-1], square_DK)


@torch.no_grad()
def largest(rows_uE: Tensor, weights_DKp: Tensor) -> Tensor:
    """The centroid of the largest response in each of the first D subspaces, int64 ``(u, D)``.

    Of equal responses the first.

    Args:
        rows_uE: rows, their first ``D * w`` numbers are read.
        weights_DKp: float64, as `normalised` gives them.
    """
    subspaces, _, p = weights_DKp.shape
    rows_uE = rows_uE[:, : subspaces * (p - 2)]
    codes_uD = torch.empty(len(rows_uE), subspaces, dtype=torch.int64, device=rows_uE.device)
    weights_DpK, held = weights_DKp.transpose(1, 2).contiguous(), Held(weights_DKp)
    # Twice what p products can be off by, in either order: the gap is rounded, and the bound too.
    bound_Dp1 = 2 * p * _ROUNDOFF * weights_DKp.abs().amax(1)[:, :, None]
    for part in parts(len(rows_uE), weights_DKp[:, :, 0]):
        phi_Dup = phi(rows_uE[part].double(), subspaces, in_one_order=True)
        answers_DuK = torch.bmm(phi_Dup, weights_DpK, out=held.of(phi_Dup))
        codes_Du = argmax(answers_DuK)
        best_Du1 = answers_DuK.gather(2, codes_Du[:, :, None])
        answers_DuK.scatter_(2, codes_Du[:, :, None], -torch.inf)
        gap_Du = best_Du1.squeeze(2) - answers_DuK.amax(2)
        told_Du = gap_Du > 4 * (phi_Dup.abs() @ bound_Dp1).squeeze(2)
        d_n, u_n = (~told_Du).nonzero(as_tuple=True)
        for some in parts(len(d_n), weights_DKp[0]):
            terms_nKp = phi_Dup[d_n[some], u_n[some], None] * weights_DKp[d_n[some]]
            codes_Du[d_n[some], u_n[some]] = tree_sum(terms_nKp).argmax(1)
        codes_uD[part] = codes_Du.T
    return codes_uD
