"""Tables of codes: DPQ (arXiv 1908.09756) and MGQE (arXiv 2002.08530).

Training keeps a full row a value; its D subvectors each choose a centroid, and the row reads as the
centroids chosen. What is served is codes and centroids.

Which centroid is chosen is a response (nearness, or a product with a key), normalised over the
examples of the global batch so that no centroid takes all values. Evaluation and export use running
statistics.

Shape letters:
    V values    E width    u distinct values read    D subspaces    K centroids of each
    w width of a subspace, E / D    p = w + 2, as in `responses`
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.core.embedding_config import DPQSX, DPQVQ, MGQE
from twotower.core.types import DEFAULT_ID, FIRST_ID, Int64
from twotower.models.embeddings import kmeans, responses, settled, tiers
from twotower.models.embeddings.softened import softened
from twotower.models.embeddings.table import Asked, Read, Served, Size, Table, full
from twotower.models.layers import generator


class Choice(NamedTuple):
    """What rows became."""

    values: Tensor
    """``(u, E)``, with gradient."""

    codes: Tensor
    """int64 ``(u, D)``."""

    loss: Tensor | None
    """``(u,)``: each one's own loss, where the kind has any."""


class CodebookTable(Table):
    """A row is D centroids, each one of K of its subspace."""

    centroids: nn.Parameter
    """``(D, K, w)``: what is read."""

    moments: Tensor
    """float64 ``(D, p, p)``: running mean of phi's products with itself."""

    steps: Tensor
    """int64, on the CPU: steps in which some value was read."""

    tier: Tensor
    """uint8 ``(V,)``."""

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
        p = self._shape[2] + 2
        moments = torch.zeros(kind.num_subspaces, p, p, dtype=torch.float64)
        self.register_buffer("moments", moments)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        tier = torch.as_tensor(self._tiers.of_values())
        self.register_buffer("tier", tier, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CodebookTable":
        """Move, but keep moments as exact as they are, and steps where Python reads them."""
        moments, steps = self.moments, self.steps
        super()._apply(fn, recurse)
        self.moments, self.steps = moments.to(self.moments.device), steps
        return self

    @property
    def revive_every(self) -> int:
        """Steps between looks for centroids that no value uses; 0 = never."""
        return self._kind.revive_every

    def _drawn(self, purpose: str) -> Tensor:
        source = generator(self.size.seed, purpose, self.size.name)
        return torch.empty(self._shape).normal_(0, self.size.init_std, generator=source)

    @abstractmethod
    def weights(self, dtype: torch.dtype) -> Tensor:
        """What phi is multiplied with for the responses, ``(D, K, p)``."""

    @abstractmethod
    def choose(self, rows_uE: Tensor, ids_u: Tensor, weights_DKp: Tensor) -> Choice:
        """Read rows as centroids, differentiably.

        Args:
            rows_uE: with gradient.
            ids_u: their values.
            weights_DKp: normalised weights of the responses.
        """

    @torch.no_grad()
    def statistics(self, rows_RE: Tensor, touched_R: Tensor, asked: Asked) -> Tensor:
        """Moments of phi over this rank's examples."""
        made = self._before_step(rows_RE, touched_R)
        phi_Dup = responses.phi(rows_RE[asked.ids], self._shape[0])
        parts = [responses.moments(phi_Dup, asked.counts).flatten()]
        if made:  # all ranks go on with the mean of what each has made, should their bits differ
            parts += [rows_RE.new_ones(1), *(w.flatten() for w in self.parameters())]
        return torch.cat([part.double() for part in parts])

    def read(self, rows_RE: Tensor, asked: Asked, sums_S: Tensor, *, detail: bool) -> Read:
        """Choose centroids; rows as they are while the table warms up."""
        leaf = rows_RE.index_select(0, asked.ids).requires_grad_()
        sums_S = self._agreed(sums_S)
        examples = sums_S[-1]
        if bool(examples == 0):
            return Read(leaf, asked.ids, leaf)
        warm = int(self.steps) < self._kind.warmup_steps
        batch_Dpp = (sums_S / examples).view(self.moments.shape)
        self._run(batch_Dpp)
        if warm:
            return Read(leaf, asked.ids, leaf)
        chosen = self.choose(leaf, asked.ids, self._normalised(batch_Dpp))
        share_u = asked.counts / examples.to(asked.counts.dtype)
        loss = None if chosen.loss is None else (share_u * chosen.loss).sum()
        differ = None
        if detail:
            running_uD = self.codes(leaf.detach(), asked.ids)
            differ = share_u @ (running_uD != chosen.codes).to(share_u.dtype).mean(1)
        return Read(chosen.values, asked.ids, leaf, loss, differ)

    @torch.no_grad()
    def _agreed(self, sums_S: Tensor) -> Tensor:
        """The moments; what follows them are centroids (and keys) just made, summed over ranks."""
        own = self.moments.numel()
        if len(sums_S) > own:
            ranks, *made = sums_S[own:].split([1, *(w.numel() for w in self.parameters())])
            for weight, summed in zip(self.parameters(), made, strict=True):
                weight.copy_((summed / ranks).view_as(weight))
        return sums_S[:own]

    @torch.no_grad()
    def codes(self, rows_uE: Tensor, ids_u: Tensor, weights_DKp: Tensor | None = None) -> Tensor:
        """The centroid of the largest response in each subspace, int64 ``(u, D)``.

        Args:
            rows_uE: rows.
            ids_u: their values: each has its tier's centroids to choose from, tier by tier, so that
                rare values cost less.
            weights_DKp: normalised weights; None = by the running statistics, as they are served.
        """
        largest, weights = responses.largest, weights_DKp
        if weights is None:
            largest, weights = settled.largest, self._settled()
        reach = self._tiers.reach
        if len(reach) == 1 and reach[0] == self._shape[:2]:
            return largest(rows_uE, weights)
        codes_uD = ids_u.new_zeros(len(ids_u), self._shape[0])
        tier_u = self.tier[ids_u]
        for number, (columns, limit) in enumerate(reach):
            own = (tier_u == number).nonzero().squeeze(1)
            found = largest(rows_uE[own], weights[:columns, :limit])
            codes_uD[own, :columns] = found
        return codes_uD

    def codes_of_all(self, rows_VE: Tensor, touched_V: Tensor) -> Tensor:
        """Codes of all values by running statistics, int64 ``(V, D)``.

        A value that no gradient touched has those that its tier has for the default row.
        """
        rows_VE = torch.where(touched_V[:, None], rows_VE, rows_VE[DEFAULT_ID])
        return self.codes(rows_VE, torch.arange(len(rows_VE), device=rows_VE.device))

    @torch.no_grad()
    def served(self, rows_RE: Tensor, touched_R: Tensor) -> Served:
        """Codes and centroids; full rows until k-means has made centroids."""
        if self.is_warming:
            return full(rows_RE, touched_R)
        codes_VD = self.codes_of_all(rows_RE, touched_R).cpu().numpy()
        centroids = self.centroids.detach().float().cpu().numpy().copy()
        return self._tiers.served(self.size, codes_VD, centroids)

    @property
    def is_warming(self) -> bool:
        """Whether centroids are still to be made: until then rows are read as they are."""
        return 0 < self._kind.warmup_steps >= int(self.steps)

    def _normalised(self, moments_Dpp: Tensor) -> Tensor:
        weights_DKp = self.weights(self.centroids.dtype)
        if not self._kind.batch_norm:
            return weights_DKp
        return responses.normalised(weights_DKp, moments_Dpp)

    def _settled(self) -> Tensor:
        """Normalised by the running statistics, float64."""
        weights_DKp = self.weights(torch.float64).detach()
        if not self._kind.batch_norm:
            return weights_DKp
        return settled.normalised(weights_DKp, self.moments)

    @torch.no_grad()
    def _run(self, batch_Dpp: Tensor) -> None:
        """Move the running moments: a plain mean at first, then an exponential one."""
        share = max(self._kind.momentum, 1 / (int(self.steps) + 1))
        self.moments.lerp_(batch_Dpp, share)
        self.steps += 1

    @torch.no_grad()
    def _before_step(self, rows_RE: Tensor, touched_R: Tensor) -> bool:
        """Set centroids by k-means as the warm-up ends; later move those that no value uses.

        Returns:
            Whether it did; the same on all ranks.
        """
        step, warmup, every = int(self.steps), self._kind.warmup_steps, self._kind.revive_every
        if warmup and step == warmup:
            self._by_kmeans(*_trained(rows_RE, touched_R, FIRST_ID))
        elif every and step > warmup and (step - warmup) % every == 0:
            # What only a reserved value chooses is in use too.
            self._revive(*_trained(rows_RE, touched_R, DEFAULT_ID), step)
        else:
            return False
        return True

    def _by_kmeans(self, rows_nE: Tensor, ids_n: Tensor) -> None:
        """Of all values for the centroids that all may use, then of those that may use more."""
        source = generator(self.size.seed, "kmeans", self.size.name)
        for d, part_nw in enumerate(rows_nE.split(self._shape[2], dim=1)):
            limits_n = self._limits(d)[self.tier[ids_n].long()]
            known = part_nw[:0]
            for limit in sorted(set(self._limits(d).tolist())):
                among = part_nw[limits_n >= limit]
                known = kmeans.extend(known, among, limit - len(known), source)
            self.centroids[d, : len(known)] = known

    def _revive(self, rows_nE: Tensor, ids_n: Tensor, step: int) -> None:
        """Move each centroid that no trained value chooses to a value that may choose it."""
        codes_nD = self.codes(rows_nE, ids_n)
        used_DK = torch.zeros(self._shape[:2], dtype=torch.bool, device=codes_nD.device)
        used_DK.scatter_(1, codes_nD.T, True)
        known = (ids_n >= FIRST_ID).nonzero().flatten()
        tier_n = self.tier[ids_n[known]]
        counts_T = torch.bincount(tier_n, minlength=len(self._tiers.sizes))
        source = generator(self.size.seed, "revive", self.size.name, str(step))
        found = self._tiers.draw_able(~used_DK.cpu().numpy(), counts_T.cpu().numpy(), source)
        d_m, k_m, place_m = (torch.as_tensor(one, device=codes_nD.device) for one in found)
        row_m = known[tier_n.argsort(stable=True)][place_m]
        rows_mw = rows_nE.unflatten(1, (self._shape[0], -1))[row_m, d_m]
        self._move(d_m, k_m, rows_mw, codes_nD[row_m, d_m])

    def _move(self, d_m: Tensor, k_m: Tensor, rows_mw: Tensor, codes_m: Tensor) -> None:
        """Put centroids where rows are, which now read the centroids ``codes_m``."""
        del codes_m
        self.centroids[d_m, k_m] = rows_mw

    def _chosen(self, codes_uD: Tensor) -> Tensor:
        """The centroids that codes name, ``(u, E)``, with gradient."""
        base_D = torch.arange(self._shape[0], device=codes_uD.device) * self._shape[1]
        return F.embedding(codes_uD + base_D, self.centroids.flatten(0, 1)).flatten(1)

    def _limits(self, subspace: int) -> Tensor:
        """int64: centroids of a subspace that each tier may use."""
        return torch.tensor(self._tiers.limits_of_subspace(subspace), device=self.tier.device)


class NearestTable(CodebookTable):
    """Codes name the centroids nearest to the row: `dpq_vq` and `mgqe`."""

    def __init__(self, kind: DPQVQ | MGQE, size: Size, counts: Int64 | None) -> None:
        """As `CodebookTable`'s."""
        super().__init__(kind, size, counts)
        self._weights = (kind.codebook, kind.commitment)

    def weights(self, dtype: torch.dtype) -> Tensor:
        """Less the squared distance; only codes come of it, so without gradient."""
        return responses.nearness(self.centroids.detach().to(dtype))

    def choose(self, rows_uE: Tensor, ids_u: Tensor, weights_DKp: Tensor) -> Choice:
        """The nearest centroids, the gradient straight through to the row."""
        codes_uD = self.codes(rows_uE, ids_u, weights_DKp)
        chosen_uE = self._chosen(codes_uD)
        codebook, commitment = self._weights
        loss_u = codebook * (chosen_uE - rows_uE.detach()).square().mean(1)
        if commitment:
            loss_u = loss_u + commitment * (rows_uE - chosen_uE.detach()).square().mean(1)
        return Choice(rows_uE + (chosen_uE - rows_uE).detach(), codes_uD, loss_u)


class SoftmaxTable(CodebookTable):
    """Codes name the keys of the largest product with the row; values are read: `dpq_sx`."""

    def __init__(self, kind: DPQSX, size: Size) -> None:
        """As `CodebookTable`'s."""
        super().__init__(kind, size, None)
        self._temperature = kind.temperature
        self.keys = nn.Parameter(self._drawn("keys"))

    def weights(self, dtype: torch.dtype) -> Tensor:
        """Products with the keys, scaled by the root of their width."""
        return responses.likeness(self.keys.to(dtype))

    def choose(self, rows_uE: Tensor, ids_u: Tensor, weights_DKp: Tensor) -> Choice:
        """One centroid, the gradient that of the softmax over all."""
        codes_uD = self.codes(rows_uE, ids_u, weights_DKp)
        subspaces, _, w = self._shape
        chosen_Duw = self._chosen(codes_uD).unflatten(1, (subspaces, w)).transpose(0, 1)
        phi_Dup = responses.phi(rows_uE, subspaces)
        softer_DKp = weights_DKp / self._temperature
        values_Duw = softened(chosen_Duw, phi_Dup, softer_DKp, self.centroids)
        return Choice(values_Duw.transpose(0, 1).reshape_as(rows_uE), codes_uD, None)

    def _move(self, d_m: Tensor, k_m: Tensor, rows_mw: Tensor, codes_m: Tensor) -> None:
        """Keys go to the rows; values begin as what the rows read, another space."""
        self.keys[d_m, k_m] = rows_mw
        self.centroids[d_m, k_m] = self.centroids[d_m, codes_m]

    def _by_kmeans(self, rows_nE: Tensor, ids_n: Tensor) -> None:
        """Keys point where the values lie."""
        super()._by_kmeans(rows_nE, ids_n)
        self.keys.copy_(self.centroids)


def _trained(rows_VE: Tensor, touched_V: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Rows from ``first`` on that a gradient touched, and their ids; the default row always."""
    reads = touched_V.clone()
    reads[DEFAULT_ID] = True
    ids = reads.nonzero().flatten()
    ids = ids[ids >= first]
    return rows_VE[ids], ids


def build(kind: Any, size: Size, counts: Int64 | None) -> CodebookTable:
    """The table of a kind with codebooks."""
    return SoftmaxTable(kind, size) if isinstance(kind, DPQSX) else NearestTable(kind, size, counts)
