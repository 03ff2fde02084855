"""What a table that isn't `full` is to the store, and the kinds without codebooks.

A table keeps rows in the store's weight like any other. Reading it makes a value's embedding of
them, with the autograd graph from the embedding back to the rows and to the table's own weights.

Shape letters:
    R rows of the table in the store    V values    E width    u distinct values read
    m rows that they read    H hashes    r rank
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twotower.core.embedding_config import Hashed, LowRank, Scalar
from twotower.core.types import DEFAULT_ID, FIRST_ID, Int64
from twotower.models.embeddings.bags import Distinct, RowGradients
from twotower.models.layers import generator
from twotower.serving.packing import pack
from twotower.serving.tables import ServedTable, buckets


class Size(NamedTuple):
    """Of a table, and how its values start."""

    values: int
    """V."""

    width: int
    """E."""

    init_std: float
    seed: int
    name: str
    """Of the table; with the seed, the key of what is drawn."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a step reads of one table."""

    ids: Tensor
    """int64 ``(u,)``: values, rising."""

    counts: Tensor
    """float ``(u,)``: examples of this rank that each occurs in."""


@dataclass(frozen=True, slots=True)
class Read:
    """What was read, differentiable."""

    values: Tensor
    """float ``(u, E)``."""

    rows: Tensor
    """int64 ``(m,)``: rows of the table that it was made of, rising."""

    leaf: Tensor
    """float ``(m, E)``: those rows, requiring grad."""

    loss: Tensor | None = None
    """0-d: this rank's part of the table's own loss."""

    codes_differ: Tensor | None = None
    """0-d: this rank's part of the share of codes that running statistics would choose
    differently."""

    def gradients(self, grad_uE: Tensor) -> RowGradients:
        """Gradient of the table's rows from that of ``values``; adds to its weights' gradients."""
        roots, grads = [self.values], [grad_uE]
        if self.loss is not None:
            roots.append(self.loss)
            grads.append(torch.ones_like(self.loss))
        torch.autograd.backward(roots, grads)
        assert self.leaf.grad is not None
        return RowGradients(self.rows, self.leaf.grad)


class Served(NamedTuple):
    """A table as it is evaluated and exported."""

    table: ServedTable
    ids: Int64 | None
    """int64 ``(V,)``: served id of each value; None = its own id."""


class Table(nn.Module, ABC):
    """A kind of table."""

    num_rows: int
    """R."""

    idle_share = 0.0
    """Share of a row's numbers in the store that is never used."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.num_rows = size.values

    def draw_(self, rows_RE: Tensor) -> None:
        """Give the table's rows their first values; the default row starts at zero."""
        source = generator(self.size.seed, "table", self.size.name)
        rows_RE[1:].normal_(0, self.size.init_std, generator=source)

    def statistics(self, rows_RE: Tensor, touched_R: Tensor, asked: Asked) -> Tensor:
        """This rank's part of the sums over all ranks that `read` needs.

        Returns:
            float64 ``(S,)``; S may be 0.
        """
        del touched_R, asked
        return rows_RE.new_empty(0, dtype=torch.float64)

    @abstractmethod
    def read(self, rows_RE: Tensor, asked: Asked, sums_S: Tensor, *, detail: bool) -> Read:
        """Read values for training.

        Args:
            rows_RE: the table's rows.
            asked: which values.
            sums_S: what `statistics` gave, summed over ranks.
            detail: also measure `Read.codes_differ`.
        """

    @abstractmethod
    def served(self, rows_RE: Tensor, touched_R: Tensor) -> Served:
        """The table as it is served, on the CPU; a value never touched reads as the default."""


class HashedTable(Table):
    """A value's embedding is the sum of its buckets' rows; reserved ids have rows of their own.

    Whether a gradient touched a value can't be told from its buckets, so every value reads them.
    """

    bucket: Tensor

    def __init__(self, kind: Hashed, size: Size) -> None:
        super().__init__(size)
        self._kind = kind
        self._buckets = max(1, round(kind.share * size.values))
        self.num_rows = FIRST_ID + self._buckets
        ids = np.arange(size.values, dtype=np.int64)
        rows = buckets(ids, kind.hashes, self._buckets) + FIRST_ID
        self.register_buffer("bucket", torch.as_tensor(rows), persistent=False)

    def draw_(self, rows_RE: Tensor) -> None:
        """A sum has the same standard deviation as a full table's row."""
        super().draw_(rows_RE)
        rows_RE[FIRST_ID:] /= math.sqrt(self._kind.hashes)

    def read(self, rows_RE: Tensor, asked: Asked, sums_S: Tensor, *, detail: bool) -> Read:
        """Sum buckets."""
        del sums_S, detail
        reserved_u = asked.ids < FIRST_ID
        used_uH = torch.ones_like(self.bucket[: len(asked.ids)], dtype=torch.bool)
        used_uH[:, 1:] = ~reserved_u[:, None]
        rows_uH = torch.where(reserved_u[:, None], asked.ids[:, None], self.bucket[asked.ids])
        lengths_u = used_uH.sum(1)
        distinct = Distinct.of(rows_uH[used_uH])
        leaf = rows_RE.index_select(0, distinct.rows).requires_grad_()
        starts_u = (lengths_u.cumsum(0) - lengths_u).to(torch.int32)
        values_uE = F.embedding_bag(distinct.inverse(), leaf, starts_u, mode="sum")
        return Read(values_uE, distinct.rows, leaf)

    def served(self, rows_RE: Tensor, touched_R: Tensor) -> Served:
        """The rows as they are."""
        del touched_R
        settings = {"hashes": self._kind.hashes, "buckets": self._buckets}
        tensors = {"rows": rows_RE.float().cpu().numpy().copy()}
        return Served(
            ServedTable("hashed", self.size.values, self.size.width, settings, tensors), None
        )


class LowRankTable(Table):
    """The first r numbers of a row, times a matrix; the rest of the row in the store is idle."""

    def __init__(self, kind: LowRank, size: Size) -> None:
        super().__init__(size)
        self._rank = kind.rank
        self.idle_share = 1 - kind.rank / size.width
        source = generator(size.seed, "projection", size.name)
        projection = torch.empty(kind.rank, size.width).normal_(
            0, 1 / math.sqrt(kind.rank), generator=source
        )
        self.projection = nn.Parameter(projection)

    def draw_(self, rows_RE: Tensor) -> None:
        """The product has the same standard deviation as a full table's row."""
        super().draw_(rows_RE)
        rows_RE[:, self._rank :] = 0

    def read(self, rows_RE: Tensor, asked: Asked, sums_S: Tensor, *, detail: bool) -> Read:
        """Multiply."""
        del sums_S, detail
        leaf = rows_RE.index_select(0, asked.ids).requires_grad_()
        return Read(leaf[:, : self._rank] @ self.projection, asked.ids, leaf)

    @torch.no_grad()
    def served(self, rows_RE: Tensor, touched_R: Tensor) -> Served:
        """Short rows and the matrix."""
        rows = defaulted(rows_RE, touched_R)[:, : self._rank].float().cpu()
        tensors = {
            "rows": rows.numpy().copy(),
            "projection": self.projection.detach().float().cpu().numpy().copy(),
        }
        settings = {"rank": self._rank}
        return Served(
            ServedTable("low_rank", self.size.values, self.size.width, settings, tensors), None
        )


class ScalarTable(Table):
    """Numbers rounded to multiples of their column's step, the gradient as if they weren't.

    The step is learned (LSQ, arXiv 1902.08153 eq. 1 to 3) as its logarithm: it stays above zero,
    and a learning rate means the same at any scale.
    """

    def __init__(self, kind: Scalar, size: Size) -> None:
        super().__init__(size)
        self._bits = kind.bits
        self._low, self._high = -(1 << (kind.bits - 1)), (1 << (kind.bits - 1)) - 1
        # LSQ's start, 2 mean|x| / sqrt(high), of normal values.
        start = 2 * size.init_std * math.sqrt(2 / math.pi) / math.sqrt(self._high)
        self.log_step = nn.Parameter(torch.full((size.width,), math.log(start)))

    def read(self, rows_RE: Tensor, asked: Asked, sums_S: Tensor, *, detail: bool) -> Read:
        """Round, straight through."""
        del sums_S, detail
        leaf = rows_RE.index_select(0, asked.ids).requires_grad_()
        step_E = self.log_step.exp()
        scaled_uE = (leaf / step_E).clamp(self._low, self._high)
        rounded_uE = scaled_uE + (scaled_uE.round() - scaled_uE).detach()
        return Read(rounded_uE * step_E, asked.ids, leaf)

    @torch.no_grad()
    def served(self, rows_RE: Tensor, touched_R: Tensor) -> Served:
        """Codes and steps."""
        step_E = _exp(self.log_step).to(rows_RE.device)
        scaled_VE = defaulted(rows_RE, touched_R).float() / step_E
        codes_VE = scaled_VE.clamp(self._low, self._high).round() - self._low
        tensors = {
            "codes": pack(codes_VE.to(torch.int16).cpu().numpy(), [self._bits] * self.size.width),
            "step": step_E.cpu().numpy().copy(),
        }
        settings = {"bits": self._bits}
        return Served(
            ServedTable("scalar", self.size.values, self.size.width, settings, tensors), None
        )


def _exp(logs_E: Tensor) -> Tensor:
    """float32 on the CPU, in decimals: a library's last bit goes by the processor."""
    return torch.tensor([float(Decimal(log).exp()) for log in logs_E.tolist()])


def defaulted(rows_VE: Tensor, touched_V: Tensor) -> Tensor:
    """Rows with the default row in place of those that no gradient touched."""
    return torch.where(touched_V[:, None], rows_VE, rows_VE[DEFAULT_ID])


def full(rows_VE: Tensor, touched_V: Tensor) -> Served:
    """A full table as it is served."""
    rows = defaulted(rows_VE, touched_V).float().cpu().numpy().copy()
    return Served(ServedTable("full", len(rows), rows.shape[1], {}, {"rows": rows}), None)
