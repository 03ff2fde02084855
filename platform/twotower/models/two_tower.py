"""The two-tower model. Single-device PyTorch: it knows nothing of workers, losses or draws.

Training goes look_up -> embed -> (a loss, backward) -> Looked.gradients; evaluation has
`embed_items` and `embed_queries`.

Shape letters:
    b rows of queries    X rows of items    D width of the output    E width of an embedding
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from twotower.core.types import Int64, Ragged
from twotower.models.embeddings.bags import Bags, RowGradients
from twotower.models.embeddings.lookup import Lookup
from twotower.models.embeddings.store import EmbeddingStore, Summed, alone
from twotower.models.encoders import Histories, HistoryEncoder
from twotower.models.features import SideInputs, SideTable
from twotower.models.noise import Noise
from twotower.models.scorers import Scorer
from twotower.models.towers import PairedViews, Tower


@dataclass(frozen=True, slots=True)
class QueryInputs:
    """What the query tower reads for some rows."""

    side: SideInputs
    context: Bags | None
    """One bag a row and context feature."""

    history: Bags | None
    histories: Histories | None


@dataclass(frozen=True, slots=True)
class Looked:
    """A fused lookup of one query pass and any number of item passes."""

    lookup: Lookup
    query: QueryInputs
    items_dense: Tensor
    views: PairedViews | None

    def gradients(self) -> RowGradients:
        """Gradient of the store by row; call after the backward pass."""
        return self.lookup.row_gradients()


@dataclass(frozen=True, slots=True)
class Parts:
    """The modules of a model, as `build` makes them."""

    store: EmbeddingStore
    items: SideTable
    queries: SideTable
    item_tower: Tower
    query_tower: Tower
    context_offsets: dict[str, int]
    """Context feature -> first store row of its table, in input order."""

    history_items: SideTable | None
    """The one feature of items that histories are looked up in."""

    history: "HistoryEncoder | None"
    scorer: Scorer


class TwoTower(nn.Module):
    """Two-tower model over one embedding store, with the scorer of its outputs."""

    def __init__(self, parts: Parts, *, bf16: bool) -> None:
        """Assemble; ``bf16`` asks for bfloat16 products in training (never in evaluation)."""
        super().__init__()
        self.store = parts.store
        self.items, self.queries = parts.items, parts.queries
        self.item_tower, self.query_tower = parts.item_tower, parts.query_tower
        self.history_items, self.history = parts.history_items, parts.history
        self.context_offsets = parts.context_offsets
        self.scorer = parts.scorer
        self.bf16 = bf16

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.store.weight.device

    def query_inputs(
        self,
        rows: Int64,
        context: Mapping[str, Int64],
        history: Ragged | None,
        noise: Noise | None = None,
    ) -> QueryInputs:
        """Gather what the query tower reads.

        Args:
            rows: int64 ``(b,)`` rows of the query table.
            context: ids ``(b,)`` of every context feature of the model.
            history: item rows, newest first; needed where the model has a history.
            noise: draws of dropout in the history; None in evaluation.
        """
        side = self.queries.inputs(self.queries.expand(rows))
        context_bags = self._context(context) if self.context_offsets else None
        if self.history is None or self.history_items is None:
            return QueryInputs(side, context_bags, None, None)
        assert history is not None, "the model has a history feature, the batch has none"
        lengths = history.lengths()
        histories = Histories(
            lengths=torch.tensor(lengths).to(self.device, non_blocking=True),
            row=torch.tensor(history.row_ids()).to(self.device, non_blocking=True),
            longest=max(1, int(lengths.max(initial=1))),
            noise=noise,
        )
        item_rows = history.values.astype(np.int64)
        single = self.history_items.inputs(self.history_items.expand(item_rows)).bags
        return QueryInputs(side, context_bags, self.history.regroup(single, histories), histories)

    def _context(self, context: Mapping[str, Int64]) -> Bags:
        ids = np.stack(
            [context[name] + offset for name, offset in self.context_offsets.items()], axis=1
        ).ravel()
        ids_N = torch.tensor(ids, dtype=torch.int32).to(self.device, non_blocking=True)
        return Bags(
            ids_N,
            torch.ones(len(ids), dtype=self.store.weight.dtype, device=self.device),
            torch.arange(len(ids), dtype=torch.int32, device=self.device),
            torch.ones_like(ids_N),
        )

    def look_up(
        self,
        query: QueryInputs,
        items: Sequence[SideInputs],
        views: PairedViews | None = None,
        summed: Summed = alone,
        *,
        detail: bool = False,
    ) -> Looked:
        """One fused lookup for the query pass and all item passes of a step.

        Args:
            query: the query pass.
            items: item passes.
            views: two more of them, computed together.
            summed: sums a tensor over the ranks, which all look up; used where tables have
                statistics.
            detail: also measure what `Lookup.own_losses` has on detailed steps.
        """
        item_bags = Bags.concat([one.bags for one in items])
        of_query, of_views = _query_bags(query), views.lookups() if views else []
        found = self.store.lookup([item_bags, *of_query, *of_views], summed, detail=detail)
        dense = items[0].dense if len(items) == 1 else torch.cat([one.dense for one in items])
        return Looked(found, query, dense, views)

    def embed(self, looked: Looked) -> tuple[Tensor, Tensor]:
        """Both towers.

        Returns:
            query ``(b, D)`` and items ``(X, D)``, as the scorer takes them; the item passes one
            after the other, views last.
        """
        item_leaf, *leaves = looked.lookup.leaves
        of_query = len(_query_bags(looked.query))
        if looked.views is None:
            item_XD = self._item_tower(item_leaf, looked.items_dense, bf16=self.bf16)
        else:
            parts = self._item_parts(item_leaf, looked.items_dense)
            item_XD = self.scorer.items(
                self.item_tower.with_views(parts, leaves[of_query:], looked.views, bf16=self.bf16)
            )
        query_bD = self._query_tower(leaves[:of_query], looked.query, bf16=self.bf16)
        return query_bD, item_XD

    def _item_tower(self, found_GE: Tensor, dense_XV: Tensor, *, bf16: bool) -> Tensor:
        return self.scorer.items(self.item_tower(self._item_parts(found_GE, dense_XV), bf16=bf16))

    def _item_parts(self, found_GE: Tensor, dense_XV: Tensor) -> list[Tensor]:
        width = self.items.num_sparse * self.store.width
        return [found_GE.view(len(dense_XV), width), dense_XV]

    def _query_tower(self, found: Sequence[Tensor], query: QueryInputs, *, bf16: bool) -> Tensor:
        rows, width = len(query.side.dense), self.store.width
        parts = [found[0].view(rows, self.queries.num_sparse * width), query.side.dense]
        if query.context is not None:
            parts.append(found[1].view(rows, len(self.context_offsets) * width))
        if self.history is not None and query.histories is not None:
            parts.append(self.history(found[-1], query.histories))
        return self.scorer.queries(self.query_tower(parts, bf16=bf16))

    @torch.no_grad()
    def embed_items(self, rows: Int64 | None = None, *, batch_size: int = 8192) -> Tensor:
        """Embed catalogue rows for evaluation, in float32.

        Args:
            rows: int64 ``(n,)``; None = the whole catalogue in order.
            batch_size: rows a pass; bounds memory.

        Returns:
            ``(n, D)`` on the model's device. Rows that no gradient ever touched read as their
            table's default row.
        """
        chosen = np.arange(self.items.num_rows, dtype=np.int64) if rows is None else rows
        look_up, out = self.store.reader(), list[Tensor]()
        for start in range(0, max(len(chosen), 1), batch_size):
            read = self.items.inputs(self.items.expand(chosen[start : start + batch_size]))
            out.append(self._item_tower(look_up(read.bags), read.dense, bf16=False))
        return torch.cat(out)

    @torch.no_grad()
    def embed_queries(
        self,
        rows: Int64,
        *,
        context: Mapping[str, Int64] | None = None,
        history: Ragged | None = None,
        batch_size: int = 8192,
    ) -> Tensor:
        """Embed queries for evaluation, in float32.

        Args:
            rows: int64 ``(n,)`` rows of the query table.
            context: ids ``(n,)`` of every context feature; needed where the model has any.
            history: item rows of each query, newest first; needed where the model has a history.
            batch_size: rows a pass; bounds memory.

        Returns:
            ``(n, D)`` on the model's device.
        """
        look_up, out = self.store.reader(), list[Tensor]()
        for start in range(0, max(len(rows), 1), batch_size):
            at = np.arange(start, min(start + batch_size, len(rows)), dtype=np.int64)
            part = {name: ids[at] for name, ids in (context or {}).items()}
            read = self.query_inputs(rows[at], part, None if history is None else history.take(at))
            found = [look_up(bags) for bags in _query_bags(read)]
            out.append(self._query_tower(found, read, bf16=False))
        return torch.cat(out)


def _query_bags(query: QueryInputs) -> list[Bags]:
    """The query pass's bags in the order of its leaves: side, context, history."""
    return [bags for bags in (query.side.bags, query.context, query.history) if bags is not None]
