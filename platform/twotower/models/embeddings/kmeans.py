"""K-means (Lloyd), on top of centroids that stay.

Shape letters:
    N points    w width    F centroids that stay    K new ones
"""

import torch
from torch import Tensor

from twotower.models.embeddings.bags import sum_by_row

_ROUNDS = 10
_CHUNK = 1 << 14
_MAX_POINTS = 1 << 16


def extend(fixed_Fw: Tensor, points_Nw: Tensor, num_new: int, source: torch.Generator) -> Tensor:
    """Add centroids to those that stay.

    Args:
        fixed_Fw: centroids that don't move.
        points_Nw: points; more than 65,536 are thinned by chance.
        num_new: K; centroids beyond the number of points repeat some of them.
        source: CPU generator that the first places are drawn from.

    Returns:
        ``(F + K, w)``, those that stay first.
    """
    if num_new <= 0 or not len(points_Nw):
        return fixed_Fw
    order = torch.randperm(len(points_Nw), generator=source).to(points_Nw.device)
    points_Nw = points_Nw[order[:_MAX_POINTS]]
    first = torch.arange(num_new, device=points_Nw.device) % len(points_Nw)
    new_Kw = points_Nw[first]
    for _ in range(_ROUNDS):
        nearest_N = _nearest(points_Nw, torch.cat([fixed_Fw, new_Kw])) - len(fixed_Fw)
        own = nearest_N >= 0
        nearest, points = nearest_N[own], points_Nw[own]
        # Sums in a fixed order: `index_add_` has none on a GPU.
        sums = sum_by_row(nearest, torch.arange(len(points), device=points.device), points)
        counts = torch.bincount(nearest, minlength=num_new)[sums.rows, None]
        new_Kw = new_Kw.index_copy(0, sums.rows, sums.values / counts)
    return torch.cat([fixed_Fw, new_Kw])


def _nearest(points_Nw: Tensor, centroids_Cw: Tensor) -> Tensor:
    """Place of each point's nearest centroid."""
    return torch.cat([torch.cdist(p, centroids_Cw).argmin(1) for p in points_Nw.split(_CHUNK)])
