"""Which centroids a value may choose: fewer the rarer it is.

Shape letters:
    V values    D subspaces    T tiers
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from twotower.core.embedding_config import DPQSX, DPQVQ, MGQE
from twotower.core.types import FIRST_ID, Float32, Int64
from twotower.models.embeddings.table import Served, Size
from twotower.serving.packing import pack
from twotower.serving.tables import ServedTable, tier_bits


@dataclass(frozen=True, slots=True)
class Tiers:
    """Values by tier. A served table is sorted by tier, so that no map of tiers is needed."""

    limits: tuple[tuple[int, ...], ...]
    """T x D: centroids that a tier's values may choose from in each subspace, the first ones."""

    order: Int64 | None
    """int64 ``(V,)``: values, most frequent first; None = as they are (one tier)."""

    sizes: tuple[int, ...]
    """Values of each tier, in that order; at least one."""

    @property
    def most(self) -> int:
        """K: the largest limit."""
        return max(max(limits) for limits in self.limits)

    def limits_of_subspace(self, subspace: int) -> list[int]:
        """Each tier's limit there."""
        return [limits[subspace] for limits in self.limits]

    @property
    def reach(self) -> list[tuple[int, int]]:
        """Of each tier: subspaces in which it chooses, and its centroids there."""
        return [(sum(k > 1 for k in limits) or 1, limits[0]) for limits in self.limits]

    def of_values(self) -> NDArray[np.uint8]:
        """Tier of each value, uint8 ``(V,)``."""
        by_order = np.repeat(np.arange(len(self.sizes), dtype=np.uint8), self.sizes)
        if self.order is None:
            return by_order
        tier = np.empty_like(by_order)
        tier[self.order] = by_order
        return tier

    def draw_able(
        self, dead_DK: NDArray[np.bool_], counts_T: Int64, source: torch.Generator
    ) -> tuple[Int64, Int64, Int64]:
        """For each dead centroid a value, any of those that may choose it alike.

        Args:
            dead_DK: bool ``(D, K)``.
            counts_T: int64 ``(T,)``: values of each tier to draw from.
            source: of the draws.

        Returns:
            Subspace and centroid of those that some value may choose, and the place of the value
            drawn among all, tier after tier; int64 ``(m,)`` each.
        """
        starts_T, (d_m, k_m) = np.cumsum(counts_T) - counts_T, np.nonzero(dead_DK)
        drawn_m = torch.rand(len(d_m), generator=source, dtype=torch.float64).numpy()
        place_m = np.full(len(d_m), -1)
        for d in np.unique(d_m):
            limits_T = np.array(self.limits_of_subspace(int(d)))
            own, rank_T = d_m == d, np.argsort(-limits_T, kind="stable")
            ends_T = np.cumsum(counts_T[rank_T])  # of tiers, those that reach furthest first
            reach = np.searchsorted(-limits_T[rank_T], -k_m[own])
            able = np.where(reach > 0, ends_T[reach - 1], 0)
            among = (drawn_m[own] * able).astype(np.int64)
            nth = np.searchsorted(ends_T, np.minimum(among, ends_T[-1] - 1), side="right")
            before = ends_T[nth] - counts_T[rank_T[nth]]
            place = starts_T[rank_T[nth]] + among - before
            place_m[own] = np.where(able > 0, place, -1)
        kept = place_m >= 0
        return d_m[kept], k_m[kept], place_m[kept]

    def served(self, size: Size, codes_VD: NDArray[Any], centroids: Float32) -> Served:
        """Codes, packed tier by tier, and centroids as they are served."""
        tiers = [
            {"rows": rows, "centroids": list(limits)}
            for rows, limits in zip(self.sizes, self.limits, strict=True)
        ]
        by_order = codes_VD if self.order is None else codes_VD[self.order]
        tensors: dict[str, NDArray[Any]] = {"centroids": centroids}
        start = 0
        for number, tier in enumerate(tiers):
            part = by_order[start : start + tier["rows"]]
            tensors[f"codes.{number}"] = pack(part, tier_bits(tier))
            start += tier["rows"]
        ids = None
        if self.order is not None:
            ids = np.empty_like(self.order)
            ids[self.order] = np.arange(len(self.order))
        table = ServedTable("dpq", size.values, size.width, {"tiers": tiers}, tensors)
        return Served(table, ids)


def assign(kind: DPQVQ | DPQSX | MGQE, num_values: int, counts: Int64 | None) -> Tiers:
    """Tiers of a table's values, those that have any: no other's centroids can be reached.

    Args:
        kind: without tiers, all values are in one.
        num_values: V.
        counts: int64 ``(V,)``: train rows of each value. Reserved ids go before all others: every
            masked or missing value reads them.
    """
    if not isinstance(kind, MGQE):
        return Tiers(((kind.num_centroids,) * kind.num_subspaces,), None, (num_values,))
    assert counts is not None, "tiers go by train counts"
    ranked = counts.copy()
    ranked[:FIRST_ID] = np.iinfo(ranked.dtype).max
    bounds = np.rint(np.cumsum([tier.share for tier in kind.tiers]) * num_values).astype(int)
    # Shares may sum to a little more than 1, or less.
    bounds = np.minimum(bounds, num_values)
    bounds[-1] = num_values
    sizes = np.diff(bounds, prepend=0).tolist()
    limits = [
        tuple(
            tier.num_centroids if d < (tier.num_subspaces or kind.num_subspaces) else 1
            for d in range(kind.num_subspaces)
        )
        for tier in kind.tiers
    ]
    kept = [tier for tier, size in enumerate(sizes) if size]
    return Tiers(
        tuple(limits[tier] for tier in kept),
        np.argsort(-ranked, kind="stable"),
        tuple(sizes[tier] for tier in kept),
    )
