"""One store for every embedding table: a fused lookup, and gradients by touched row.

The weight is no autograd parameter. A lookup gives leaves; after the backward pass their gradients
are summed by store row, so neither time nor traffic depends on the size of the vocabulary. Where
tables aren't `full`, each distinct value of a step is read once, by its table.

Shape letters:
    R rows of the store    E width of one embedding    N ids in all bags    G bags
    U distinct values
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from twotower.core.embedding_config import Embedding, Hashed, LowRank, Scalar
from twotower.core.types import FIRST_ID, Int64
from twotower.models.embeddings import codebooks
from twotower.models.embeddings.bags import Bags, Distinct
from twotower.models.embeddings.codebooks import CodebookTable
from twotower.models.embeddings.lookup import Lookup, Part
from twotower.models.embeddings.table import (
    Asked,
    HashedTable,
    LowRankTable,
    ScalarTable,
    Served,
    Size,
    Table,
    full,
)
from twotower.models.layers import generator

Summed = Callable[[Tensor], None]
"""Sums a tensor over ranks, in place."""

Reader = Callable[[Bags], Tensor]
"""Bags to ``(G, E)``."""

_NOWHERE = ""


def alone(sums: Tensor) -> None:
    """One process: nothing to add."""


class EmbeddingStore(nn.Module):
    """All embedding tables, one after the other in one weight.

    Id 0 of a table is its default (masked or missing values) and starts at zero; it is trained like
    any other. After the last table comes one id `nowhere`, the target of entries of weight 0. Store
    rows and ids are the same but for tables that keep fewer rows than values (`hashed`).
    """

    weight: Tensor
    touched: Tensor
    starts: Tensor

    def __init__(
        self,
        tables: Mapping[str, int],
        width: int,
        *,
        init_std: float,
        seed: int,
        kinds: Mapping[str, Embedding] | None = None,
        counts: Mapping[str, Int64] | None = None,
    ) -> None:
        """Build.

        Args:
            tables: name -> values, in store order.
            width: E.
            init_std: standard deviation of the initial normal values.
            seed: experiment's seed; each table draws by (seed, its name), so tables can be added
                without moving the others' values.
            kinds: tables that aren't full.
            counts: train rows of each value, of the tables whose kind asks for them.
        """
        super().__init__()
        self.tables = dict(tables)
        self.width = width
        self._kinds: dict[str, Table] = {}
        self.offsets: dict[str, int] = {}
        self._rows: dict[str, tuple[int, int]] = {}
        ids, rows = 0, 0
        for name, size in self.tables.items():
            own = Size(size, width, init_std, seed, name)
            num_rows = size
            if kinds and name in kinds:
                table = _build(kinds[name], own, (counts or {}).get(name))
                self._kinds[name] = table
                num_rows = table.num_rows
            self.offsets[name] = ids
            self._rows[name] = (rows, rows + num_rows)
            ids, rows = ids + size, rows + num_rows
        # PyTorch allows no dot in a module's name.
        self.kinds = nn.ModuleDict({n.replace(".", "/"): t for n, t in self._kinds.items()})
        self.nowhere = ids
        self._rows[_NOWHERE] = (rows, rows + 1)
        weight = torch.zeros(rows + 1, width)
        for name, (start, end) in list(self._rows.items())[:-1]:
            table = self._kinds.get(name)
            if table is not None:
                table.draw_(weight[start:end])
            else:
                source = generator(seed, "table", name)
                weight[start + 1 : end].normal_(0, init_std, generator=source)
        self.register_buffer("weight", weight)
        self.register_buffer("touched", torch.zeros(rows + 1, dtype=torch.bool))
        starts = torch.tensor([*self.offsets.values(), ids], dtype=torch.int32)
        self.register_buffer("starts", starts, persistent=False)

    @property
    def is_full(self) -> bool:
        """Whether every table is `full`."""
        return not self._kinds

    @property
    def is_warming(self) -> bool:
        """Whether some table has no centroids yet, and is read as if it were full."""
        return any(isinstance(t, CodebookTable) and t.is_warming for t in self._kinds.values())

    def is_compressed(self, name: str) -> bool:
        """Whether a table isn't `full`."""
        return name in self._kinds

    def lookup(
        self, parts: Sequence[Bags], summed: Summed = alone, *, detail: bool = False
    ) -> Lookup:
        """One fused lookup of all parts, for training.

        Args:
            parts: bags.
            summed: sums over ranks, which all look up; called at most once.
            detail: also measure ``codes_differ``.

        Returns:
            A leaf ``(G_i, E)`` a part: sum of weight times embedding over each bag.
        """
        bags, sizes = Bags.concat(parts), [len(part.lengths) for part in parts]
        if self.is_full:
            with torch.no_grad():
                found_GE = bags.sum(self.weight)
            return Lookup(bags, _leaves(found_GE, sizes))
        distinct = Distinct.of(bags.ids)
        read = self._read(distinct, bags, summed, detail=detail)
        with torch.no_grad():
            values = [
                self.weight[part.ids + part.start] if part.read is None else part.read.values
                for part in read
            ]
            found_GE = bags.sum(torch.cat(values), distinct.inverse())
        return Lookup(bags, _leaves(found_GE, sizes), distinct, read)

    def _read(
        self, distinct: Distinct, bags: Bags, summed: Summed, *, detail: bool
    ) -> tuple[Part, ...]:
        """Read the distinct values, table by table; `nowhere` counts as a table of one row."""
        counts_U = bags.weights.new_zeros(len(distinct.rows))
        counts_U.index_add_(0, distinct.inverse(), bags.occurrences())
        slices = self._slices(distinct)
        asked = {
            name: Asked(distinct.rows[at].long() - self._first(name), counts_U[at])
            for name, at in slices.items()
        }
        sums = self._statistics(asked, summed)
        parts: list[Part] = []
        for name, own in asked.items():
            read, table = None, self._kinds.get(name)
            if table is not None:
                read = table.read(self._own(name)[0], own, sums[name], detail=detail)
            parts.append(Part(slices[name], own.ids, self._rows[name][0], read))
        return tuple(parts)

    def _statistics(self, asked: Mapping[str, Asked], summed: Summed) -> dict[str, Tensor]:
        """What each table needs to know of the global batch, in one message."""
        own = {
            name: table.statistics(*self._own(name), asked[name])
            for name, table in self._kinds.items()
        }
        flat = torch.cat(list(own.values()))
        if len(flat):
            summed(flat)
        return dict(zip(own, flat.split([len(sums) for sums in own.values()]), strict=True))

    def _slices(self, distinct: Distinct) -> dict[str, slice]:
        """Where each table's values lie among the distinct ones."""
        bounds = [*torch.searchsorted(distinct.rows, self.starts).tolist(), len(distinct.rows)]
        names = [*self.tables, _NOWHERE]
        return {n: slice(*ends) for n, ends in zip(names, pairwise(bounds), strict=True)}

    def _first(self, name: str) -> int:
        return self.nowhere if name == _NOWHERE else self.offsets[name]

    def _own(self, name: str) -> tuple[Tensor, Tensor]:
        """A table's rows, and which of them were touched."""
        start, end = self._rows[name]
        return self.weight[start:end], self.touched[start:end]

    def served(self, name: str) -> Served:
        """A table as it is evaluated and exported."""
        table = self._kinds.get(name)
        return full(*self._own(name)) if table is None else table.served(*self._own(name))

    def reader(self) -> Reader:
        """Lookup for evaluation of the store as it now is; made once, used for many bags."""
        if self.is_full:
            return self._read_full
        served = {name: self.served(name) for name in self._kinds}
        return lambda bags: self._read_served(bags, served)

    @torch.no_grad()
    def _read_full(self, bags: Bags) -> Tensor:
        """Rows never touched read as the default row."""
        start_N = self.starts[torch.bucketize(bags.ids, self.starts, right=True) - 1]
        return bags.sum(self.weight, torch.where(self.touched[bags.ids], bags.ids, start_N))

    @torch.no_grad()
    def _read_served(self, bags: Bags, served: Mapping[str, Served]) -> Tensor:
        """Each distinct value once, as it is served; full tables from the store itself."""
        distinct = Distinct.of(bags.ids)
        values: list[Tensor] = []
        for name, at in self._slices(distinct).items():
            ids = distinct.rows[at].long() - self._first(name)
            if name in served:
                table, places = served[name]
                numbers = ids.cpu().numpy()
                rows = table.rows(numbers if places is None else places[numbers])
                values.append(torch.as_tensor(rows).to(self.weight))
            else:
                weight, touched = self._own(name)
                values.append(weight[torch.where(touched[ids], ids, 0)])
        return bags.sum(torch.cat(values), distinct.inverse())

    def idle_share(self) -> Tensor | None:
        """Share of each row's numbers that its table never uses ``(R,)``; None = all are used."""
        if not any(table.idle_share for table in self._kinds.values()):
            return None
        idle_R = torch.zeros_like(self.weight[:, 0])
        for name, table in self._kinds.items():
            start, end = self._rows[name]
            idle_R[start:end] = table.idle_share
        return idle_R

    def untouched(self) -> dict[str, int]:
        """Known values (ids from 2) of each table that no gradient has touched.

        Left out are tables whose rows belong to no single value.
        """
        found: dict[str, int] = {}
        for name, size in self.tables.items():
            touched = self._own(name)[1]
            if len(touched) == size and not isinstance(self._kinds.get(name), HashedTable):
                found[name] = int((~touched[FIRST_ID:]).sum())
        return found


def _build(kind: Embedding, size: Size, counts: Int64 | None) -> Table:
    match kind:
        case Hashed():
            return HashedTable(kind, size)
        case LowRank():
            return LowRankTable(kind, size)
        case Scalar():
            return ScalarTable(kind, size)
        case _:
            return codebooks.build(kind, size, counts)


def _leaves(found_GE: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    return tuple(leaf.detach().requires_grad_() for leaf in found_GE.split_with_sizes(list(sizes)))


def merge_tables(named: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Table sizes by name; a table named twice must have one size."""
    tables: dict[str, int] = {}
    for name, size in named:
        if tables.setdefault(name, size) != size:
            raise ValueError(f"table {name!r} is used with {tables[name]} and with {size} rows")
    return tables
