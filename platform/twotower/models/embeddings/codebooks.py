"""Tables of codes: DPQ (arXiv 1908.09756) and MGQE (arXiv 2002.08530).

Training keeps a full row a value; its D subvectors each choose a centroid, and the row reads as the
centroids chosen. What is served is codes and centroids.

Which centroid is chosen is a response (nearness, or a product with a key), normalised over the
examples of the global batch so that no centroid takes all values. The statistics are sums over
ranks; the gradient takes them as constants. Evaluation and export use running statistics.

Shape letters:
    V values    E width    u distinct values read    D subspaces    K centroids of each
    w width of a subspace, E / D    T tiers
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.core.embedding_config import DPQSX, DPQVQ, MGQE
from twotower.core.types import DEFAULT_ID, FIRST_ID, Int64
from twotower.models.embeddings import kmeans, tiers
from twotower.models.embeddings.table import Asked, Read, Served, Size, Table, full
from twotower.models.layers import generator

_EPS = 1e-6
_CHUNK = 1 << 13
"""Values whose responses are held at once in evaluation."""


class CodebookTable(Table):
    """A row is D centroids, each one of K of its subspace."""

    centroids: nn.Parameter
    """``(D, K, w)``: what is read."""

    mean: Tensor
    variance: Tensor
    steps: Tensor
    limits: Tensor

    def __init__(self, kind: DPQVQ | DPQSX | MGQE, size: Size, counts: Int64 | None) -> None:
        """Build.

        Args:
            kind: the settings.
            size: of the table.
            counts: int64 ``(V,)``: train rows of each value; read where there are tiers.
        """
        super().__init__(size)
        self._kind = kind
        self._tiers = tiers.assign(kind, size.values, counts)
        self._shape = (kind.num_subspaces, self._tiers.most, size.width // kind.num_subspaces)
        self.centroids = nn.Parameter(self._drawn("centroids"))
        for name in ("mean", "variance"):
            self.register_buffer(name, torch.zeros(self._shape[:2]))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        limits = torch.as_tensor(self._tiers.limits_of_values())
        self.register_buffer("limits", limits, persistent=False)

    def _drawn(self, purpose: str) -> Tensor:
        source = generator(self.size.seed, purpose, self.size.name)
        return torch.empty(self._shape).normal_(0, self.size.init_std, generator=source)

    def responses(self, rows_uE: Tensor) -> Tensor:
        """How strongly each centroid answers each row, ``(D, u, K)``."""
        raise NotImplementedError

    def choose(
        self, rows: Tensor, responses: Tensor, codes: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Embeddings ``(u, E)``, and each one's own loss ``(u,)`` where the kind has any.

        Args:
            rows: ``(u, E)``, with gradient.
            responses: ``(D, u, K)``, normalised, -inf where a value may not choose.
            codes: int64 ``(D, u)``: the largest response's place.
        """
        raise NotImplementedError

    @torch.no_grad()
    def statistics(self, rows_RE: Tensor, touched_R: Tensor, asked: Asked) -> Tensor:
        """Examples, and sums of responses and of their squares, about the running mean."""
        self._before_step(rows_RE, touched_R)
        sums = rows_RE.new_zeros(1 + 2 * self.mean.numel())
        sums[0] = asked.counts.sum()
        if self._normalises():
            away_DuK = self.responses(rows_RE[asked.ids]) - self.mean[:, None]
            sums[1:] = torch.stack([asked.counts @ away_DuK, asked.counts @ away_DuK**2]).flatten()
        return sums

    def read(self, rows_RE: Tensor, asked: Asked, sums_S: Tensor, *, detail: bool) -> Read:
        """Choose centroids; rows as they are while the table warms up."""
        leaf = rows_RE.index_select(0, asked.ids).requires_grad_()
        examples = sums_S[0]
        if bool(examples == 0):
            return Read(leaf, asked.ids, leaf)
        if self._is_warm():
            self.steps += 1
            return Read(leaf, asked.ids, leaf)
        responses_DuK = self.responses(leaf)
        mean_DK, variance_DK = self._batch(sums_S)
        limits_uD = self.limits[asked.ids]
        normal_DuK = _normal(responses_DuK, mean_DK, variance_DK, limits_uD)
        codes_Du = normal_DuK.argmax(2)
        values_uE, losses_u = self.choose(leaf, normal_DuK, codes_Du)
        share_u = asked.counts / examples
        self._run(mean_DK, variance_DK)
        differ = None
        if detail:
            running = _normal(responses_DuK, self.mean, self.variance, limits_uD).argmax(2)
            differ = share_u @ (running != codes_Du).to(share_u.dtype).mean(0)
        loss = None if losses_u is None else (share_u * losses_u).sum()
        return Read(values_uE, asked.ids, leaf, loss, differ)

    @torch.no_grad()
    def codes(self, rows_VE: Tensor, touched_V: Tensor) -> Tensor:
        """Codes of all values by running statistics, int32 ``(V, D)``.

        A value that no gradient touched has those that its tier has for the default row.
        """
        found: list[Tensor] = []
        for start in range(0, len(rows_VE), _CHUNK):
            part = slice(start, start + _CHUNK)
            rows = torch.where(touched_V[part, None], rows_VE[part], rows_VE[DEFAULT_ID])
            normal = _normal(self.responses(rows), self.mean, self.variance, self.limits[part])
            found.append(normal.argmax(2).T.to(torch.int32))
        return torch.cat(found)

    def served(self, rows_RE: Tensor, touched_R: Tensor) -> Served:
        """Codes and centroids; full rows until k-means has made centroids."""
        if self._kind.warmup_steps and int(self.steps) <= self._kind.warmup_steps:
            return full(rows_RE, touched_R)
        codes_VD = self.codes(rows_RE, touched_R).cpu().numpy()
        centroids = self.centroids.detach().float().cpu().numpy().copy()
        return self._tiers.served(self.size, codes_VD, centroids)

    def _is_warm(self) -> bool:
        return int(self.steps) < self._kind.warmup_steps

    def _normalises(self) -> bool:
        return self._kind.batch_norm and not self._is_warm()

    def _batch(self, sums_S: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the responses over the global batch."""
        if not self._kind.batch_norm:
            return torch.zeros_like(self.mean), torch.ones_like(self.variance)
        away_DK, square_DK = (sums_S[1:] / sums_S[0]).view(2, *self.mean.shape)
        return self.mean + away_DK, (square_DK - away_DK**2).clamp(min=0)

    @torch.no_grad()
    def _run(self, mean_DK: Tensor, variance_DK: Tensor) -> None:
        """Move the running statistics: a plain mean at first, then an exponential one."""
        since = int(self.steps) - self._kind.warmup_steps
        share = max(self._kind.momentum, 1 / (since + 1))
        self.mean.lerp_(mean_DK, share)
        self.variance.lerp_(variance_DK, share)
        self.steps += 1

    def _before_step(self, rows_RE: Tensor, touched_R: Tensor) -> None:
        """Set centroids by k-means as the warm-up ends; later move those that no value uses."""
        step, warmup, every = int(self.steps), self._kind.warmup_steps, self._kind.revive_every
        if warmup and step == warmup:
            self._by_kmeans(_trained(rows_RE, touched_R))
        elif every and step > warmup and (step - warmup) % every == 0:
            self._revive(rows_RE, touched_R, step)

    def _by_kmeans(self, rows: tuple[Tensor, Tensor]) -> None:
        """Of all values for the centroids that all may use, then of those that may use more."""
        source = generator(self.size.seed, "kmeans", self.size.name)
        rows_nE, ids_n = rows
        for d, part_nw in enumerate(rows_nE.split(self._shape[2], dim=1)):
            limits_n = self.limits[ids_n, d]
            known = part_nw[:0]
            for limit in sorted(set(self._tiers.limits_of_subspace(d))):
                among = part_nw[limits_n >= limit]
                known = kmeans.extend(known, among, limit - len(known), source)
            self.centroids[d, : len(known)] = known

    def _revive(self, rows_RE: Tensor, touched_R: Tensor, step: int) -> None:
        """Move each centroid that no trained value chooses to a value that may choose it."""
        rows_nE, ids_n = _trained(rows_RE, touched_R)
        codes_nD = self.codes(rows_RE, touched_R)[ids_n].long()
        source = generator(self.size.seed, "revive", self.size.name, str(step))
        for d, part_nw in enumerate(rows_nE.split(self._shape[2], dim=1)):
            used_K = torch.bincount(codes_nD[:, d], minlength=self._shape[1]) > 0
            for k in (~used_K).nonzero().flatten().tolist():
                able = (self.limits[ids_n, d] > k).nonzero().flatten()
                if len(able):
                    drawn = torch.randint(len(able), (), generator=source).to(able.device)
                    self.centroids[d, k] = part_nw[able[drawn]]
                    # Its own responses are unknown; those of its subspace are the nearest guess.
                    self.mean[d, k] = self.mean[d, used_K].mean()
                    self.variance[d, k] = self.variance[d, used_K].mean()


class NearestTable(CodebookTable):
    """Codes name the centroids nearest to the row: `dpq_vq` and `mgqe`."""

    def __init__(self, kind: DPQVQ | MGQE, size: Size, counts: Int64 | None) -> None:
        """As `CodebookTable`'s."""
        super().__init__(kind, size, counts)
        self._weights = (kind.codebook, kind.commitment)

    def responses(self, rows_uE: Tensor) -> Tensor:
        """Less the squared distance; only codes come of it, so without gradient."""
        with torch.no_grad():
            rows_Duw = _by_subspace(rows_uE, self._shape[0])
            square_DK = self.centroids.square().sum(2)
            product_DuK = torch.baddbmm(
                square_DK[:, None], rows_Duw, self.centroids.transpose(1, 2), beta=-1, alpha=2
            )
            return product_DuK - rows_Duw.square().sum(2, keepdim=True)

    def choose(
        self, rows: Tensor, responses: Tensor, codes: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """The nearest centroids, the gradient straight through to the row."""
        del responses
        chosen_uE = _gathered(self.centroids, codes)
        codebook, commitment = self._weights
        losses_u = codebook * (chosen_uE - rows.detach()).square().mean(1)
        if commitment:
            losses_u = losses_u + commitment * (rows - chosen_uE.detach()).square().mean(1)
        return rows + (chosen_uE - rows).detach(), losses_u


class SoftmaxTable(CodebookTable):
    """Codes name the keys of the largest product with the row; values are read: `dpq_sx`."""

    def __init__(self, kind: DPQSX, size: Size) -> None:
        """As `CodebookTable`'s."""
        super().__init__(kind, size, None)
        self._temperature = kind.temperature
        self.keys = nn.Parameter(self._drawn("keys"))

    def responses(self, rows_uE: Tensor) -> Tensor:
        """Products with the keys, scaled by the root of their width."""
        rows_Duw = _by_subspace(rows_uE, self._shape[0])
        return rows_Duw @ self.keys.transpose(1, 2) / math.sqrt(self._shape[2])

    def choose(
        self, rows: Tensor, responses: Tensor, codes: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """One centroid, the gradient that of the softmax over all."""
        soft_DuK = (responses / self._temperature).softmax(2)
        hard_DuK = F.one_hot(codes, self._shape[1]).to(soft_DuK.dtype)
        values_Duw = (hard_DuK + (soft_DuK - soft_DuK.detach())) @ self.centroids
        return values_Duw.transpose(0, 1).reshape_as(rows), None

    def _by_kmeans(self, rows: tuple[Tensor, Tensor]) -> None:
        """Keys point where the values lie."""
        super()._by_kmeans(rows)
        self.keys.copy_(self.centroids)


def _by_subspace(rows_uE: Tensor, num_subspaces: int) -> Tensor:
    """``(u, E)`` to ``(D, u, w)``."""
    return rows_uE.unflatten(1, (num_subspaces, -1)).transpose(0, 1)


def _gathered(centroids_DKw: Tensor, codes_Du: Tensor) -> Tensor:
    """The centroids that codes name, ``(u, E)``."""
    num, most, _ = centroids_DKw.shape
    base_D1 = torch.arange(num, device=codes_Du.device)[:, None] * most
    chosen_Duw = F.embedding(codes_Du + base_D1, centroids_DKw.flatten(0, 1))
    return chosen_Duw.transpose(0, 1).flatten(1)


def _normal(
    responses_DuK: Tensor, mean_DK: Tensor, variance_DK: Tensor, limits_uD: Tensor
) -> Tensor:
    """Responses of mean 0 and variance 1 a centroid, -inf beyond a value's share of them."""
    scale_DK = (variance_DK + _EPS).rsqrt()
    normal_DuK = (responses_DuK - mean_DK[:, None]) * scale_DK[:, None]
    most = responses_DuK.shape[2]
    if bool((limits_uD == most).all()):
        return normal_DuK
    places_K = torch.arange(most, device=limits_uD.device)
    return normal_DuK.masked_fill(places_K >= limits_uD.T[:, :, None], -math.inf)


def _trained(rows_VE: Tensor, touched_V: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that a gradient touched, and their values' ids; reserved ids are left out."""
    ids = touched_V.nonzero().flatten()
    ids = ids[ids >= FIRST_ID]
    return rows_VE[ids], ids


def build(kind: Any, size: Size, counts: Int64 | None) -> CodebookTable:
    """The table of a kind with codebooks."""
    return SoftmaxTable(kind, size) if isinstance(kind, DPQSX) else NearestTable(kind, size, counts)
