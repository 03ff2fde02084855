"""K-means (Lloyd), on top of centroids that stay.

Shape letters:
    N points    w width    F centroids that stay    K new ones
"""

import torch
from torch import Tensor

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
        sums_Kw = torch.zeros_like(new_Kw).index_add_(0, nearest_N[own], points_Nw[own])
        count_K1 = torch.bincount(nearest_N[own], minlength=num_new)[:, None]
        new_Kw = torch.where(count_K1 > 0, sums_Kw / count_K1.clamp(min=1), new_Kw)
    return torch.cat([fixed_Fw, new_Kw])


def _nearest(points_Nw: Tensor, centroids_Cw: Tensor) -> Tensor:
    """Place of each point's nearest centroid."""
    return torch.cat([torch.cdist(p, centroids_Cw).argmin(1) for p in points_Nw.split(_CHUNK)])
