"""The features of one side beside the model: log rows carry ids only, features are gathered here.

Shape letters:
    R rows of the side    b rows asked for    A features of the side, S sparse and V dense ones
    N entries of the rows asked for           G = b * S bags

Long gathers are `index_select`: on a CPU three times as fast as indexing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from twotower.core.types import DEFAULT_ID, EncodedFeature, Int64, Ragged, Side
from twotower.models.embeddings.bags import Bags
from twotower.models.embeddings.store import EmbeddingStore
from twotower.models.repeats import Repeats
from twotower.models.views import Run, SharedViews

Int32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Entries:
    """The values of some rows, row after row and feature after feature within a row."""

    rows: Tensor
    """int64 ``(b,)``: rows of the side."""

    ids: Tensor
    """int32 ``(N,)``: store rows."""

    index: Tensor
    """int64 ``(N,)``: place of each entry in the side's values."""

    row: Tensor
    """int64 ``(N,)``: place in ``rows`` of each entry."""

    bag: Tensor
    """int32 ``(N,)``: (place in ``rows``) * S + sparse feature."""

    lengths: Tensor
    """int32 ``(G,)``, at least 1: a missing value is an entry of its table's default row."""


@dataclass(frozen=True, slots=True)
class SideInputs:
    """What a tower reads for some rows."""

    bags: Bags
    """b * S bags, row after row."""

    dense: Tensor
    """float ``(b, V)``."""

    def standing_for(self, examples_b: Tensor) -> "SideInputs":
        """The same rows, where each stands for that many examples."""
        num_sparse = len(self.bags.lengths) // max(len(examples_b), 1)
        examples_G = examples_b.to(self.dense.device).repeat_interleave(num_sparse)
        return replace(self, bags=self.bags.standing_for(examples_G))


class SideTable(nn.Module):
    """A `Side` as arrays on the device, its ids already moved to store rows."""

    starts: Tensor
    values: Tensor
    lengths: Tensor
    dense: Tensor
    multi: Tensor
    defaults: Tensor

    def __init__(self, side: Side, store: EmbeddingStore) -> None:
        """Build from encoded features; ``store`` must hold the tables they name."""
        super().__init__()
        sparse = [f for f in side.features if f.kind != "dense"]
        dense = [f.values for f in side.features if not isinstance(f.values, Ragged)]
        self.num_rows = side.num_rows
        self.num_sparse, self.num_dense = len(sparse), len(dense)
        self.sparse_columns = [i for i, f in enumerate(side.features) if f.kind != "dense"]
        self.dense_columns = [i for i, f in enumerate(side.features) if f.kind == "dense"]
        self.nowhere = store.nowhere
        values, lengths = _merge(
            [_filled(f, store.offsets[f.table]) for f in sparse], side.num_rows
        )
        # Kept on the host: the number of entries of a batch is known without asking the device.
        self.entries_by_row: Int64 = lengths.sum(axis=1, dtype=np.int64)
        self.max_entries = int(self.entries_by_row.max(initial=1))
        starts = np.zeros(side.num_rows + 1, dtype=np.int64)
        np.cumsum(self.entries_by_row, out=starts[1:])
        for name, array in {
            "starts": starts,
            "values": values,
            "lengths": lengths,
            "multi": np.array([f.kind == "multi" for f in sparse], dtype=np.bool_),
            "defaults": np.array([store.offsets[f.table] for f in sparse], dtype=np.int32),
            "dense": np.stack(dense, axis=1) if dense else np.empty((side.num_rows, 0), np.float32),
        }.items():
            self.register_buffer(name, torch.as_tensor(array), persistent=False)

    def expand(self, rows: Int64) -> Entries:
        """The entries of some rows, in their order; nothing waits for the device."""
        total = int(self.entries_by_row[rows].sum())
        rows_b = torch.tensor(rows).to(self.starts.device, non_blocking=True)
        starts_b = self.starts[rows_b]
        totals_b = self.starts[rows_b + 1] - starts_b
        row_N = torch.repeat_interleave(totals_b, output_size=total)
        # An entry lies (start of its row in the side - start of its row here) further on.
        shift_b = starts_b - (totals_b.cumsum(0) - totals_b)
        index_N = torch.arange(total, device=row_N.device) + shift_b.index_select(0, row_N)
        lengths_G = self.lengths[rows_b].flatten()
        return Entries(
            rows=rows_b,
            ids=self.values.index_select(0, index_N),
            index=index_N,
            row=row_N,
            bag=torch.repeat_interleave(lengths_G, output_size=total),
            lengths=lengths_G,
        )

    def slots(self, entries: Entries) -> tuple[Tensor, Tensor]:
        """Where value dropout may act.

        Returns:
            slot int64 ``(N,)``: number of the entry within its row, in [0, `max_entries`), and
            droppable bool ``(N,)``: the entry is a value of a multi-valued feature.
        """
        starts_b = self.starts[entries.rows]
        multi_G = self.multi.repeat(len(entries.rows))
        slot_N = entries.index - starts_b.index_select(0, entries.row)
        return slot_N, multi_G.index_select(0, entries.bag)

    def inputs(
        self, entries: Entries, hidden_bA: Tensor | None = None, dropped_N: Tensor | None = None
    ) -> SideInputs:
        """Bags and dense numbers of the rows, as one view of them.

        Args:
            entries: what `expand` gave for the rows.
            hidden_bA: bool, columns in the side's order: hidden features read as their table's
                default row (weight 1), hidden dense ones as 0.
            dropped_N: bool, values that don't count; a feature that loses all of them reads as
                its default row.

        Returns:
            One bag a row and sparse feature: the mean of the values that are left.
        """
        dense_bV = self.dense[entries.rows]
        if hidden_bA is not None and self.num_dense:
            dense_bV = dense_bV.masked_fill(hidden_bA[:, self.dense_columns], 0)
        if hidden_bA is None and dropped_N is None:
            share_G = entries.lengths.to(self.dense.dtype).reciprocal()
            weights_N = share_G.index_select(0, entries.bag)
            return SideInputs(Bags(entries.ids, weights_N, entries.bag, entries.lengths), dense_bV)
        return SideInputs(self._masked(entries, hidden_bA, dropped_N), dense_bV)

    def shared_views(
        self,
        entries: Entries,
        hidden_PA: NDArray[np.bool_],
        rows: Sequence[int],
        dropped: tuple[Tensor, Tensor] | None = None,
    ) -> SharedViews:
        """Both views of some rows, each feature shown by exactly one of them.

        Args:
            entries: what `expand` gave for the rows.
            hidden_PA: on the host, columns in the side's order: features that view 1 of a run of
                rows hides; view 2 hides the others.
            rows: rows of each of the P runs.
            dropped: bool ``(N,)``, values that don't count in view 1 and in view 2.
        """
        hidden_PS = hidden_PA[:, self.sparse_columns]
        counts = torch.tensor(rows, dtype=torch.int64)
        total, device = sum(rows), self.dense.device

        def by_row(hidden: NDArray[np.bool_]) -> Tensor:
            of_run = torch.as_tensor(hidden)
            return of_run.repeat_interleave(counts, dim=0, output_size=total).to(device)

        dropped_N = None
        if dropped is not None:
            in_second_N = by_row(hidden_PS).flatten().index_select(0, entries.bag)
            dropped_N = torch.where(in_second_N, dropped[1], dropped[0])
        shown = self.inputs(entries, None, dropped_N)
        first_nV = by_row(hidden_PA[:, self.dense_columns])
        return SharedViews(
            bags=shown.bags,
            defaults=self._defaults(total),  # one of the views hides the feature
            dense=(shown.dense.masked_fill(first_nV, 0), shown.dense.masked_fill(~first_nV, 0)),
            runs=tuple(
                Run(count, tuple(map(bool, hidden)))
                for count, hidden in zip(rows, hidden_PS, strict=True)
            ),
        )

    def repeats(self, main: SideInputs, places: Int64, hidden_nA: Tensor) -> Repeats:
        """Both views of items that the main pass reads, each feature shown by exactly one of them.

        Args:
            main: what that pass reads.
            places: int64 ``(n,)``, where the items stand in it.
            hidden_nA: bool, what view 1 hides; view 2 hides the others.
        """
        shown_nA = (~hidden_nA).to(self.dense.dtype)
        return Repeats.of(
            places,
            len(main.dense),
            shown=shown_nA[:, self.sparse_columns],
            shown_dense=shown_nA[:, self.dense_columns],
            defaults=self._defaults(len(places)),
        )

    def _defaults(self, times: int) -> Bags:
        """The default row of each sparse feature, which is shown so many times."""
        single = torch.ones_like(self.defaults)
        places = torch.arange(len(single), dtype=torch.int32, device=single.device)
        examples = torch.full_like(single, times, dtype=self.dense.dtype)
        return Bags(self.defaults, single.to(self.dense.dtype), places, single, examples)

    def _masked(self, entries: Entries, hidden_bA: Tensor | None, dropped_N: Tensor | None) -> Bags:
        """Bags of the values left; the first entry of a bag without any becomes its default row.

        Entries that don't count keep their place with weight 0, so sizes don't depend on the draws.
        """
        bag_N, lengths_G = entries.bag, entries.lengths
        left_N = torch.ones_like(entries.ids) if dropped_N is None else (~dropped_N).to(torch.int32)
        if hidden_bA is not None:
            visible_G = (~hidden_bA[:, self.sparse_columns]).to(torch.int32).flatten()
            left_N = left_N * visible_G.index_select(0, bag_N)
        ends_G = lengths_G.cumsum(0)
        running_N = torch.cat([left_N.new_zeros(1), left_N.cumsum(0, dtype=torch.int32)])
        first_G = ends_G - lengths_G
        count_G = running_N[ends_G] - running_N[first_G]
        empty_G = count_G == 0
        share_G = count_G.clamp(min=1).to(self.dense.dtype).reciprocal()
        weights_N = left_N * share_G.index_select(0, bag_N)
        ids_N = torch.where(left_N.bool(), entries.ids, self.nowhere)
        defaults_G = self.defaults.repeat(len(entries.rows))
        ids_N[first_G] = torch.where(empty_G, defaults_G, ids_N[first_G])
        weights_N[first_G] = torch.where(empty_G, 1, weights_N[first_G])
        return Bags(ids_N, weights_N, bag_N, lengths_G)


def _filled(feature: EncodedFeature, offset: int) -> tuple[Int32, Int32]:
    """Lengths and store rows of one sparse feature, rows without a value given the default id."""
    assert isinstance(feature.values, Ragged)
    values, lengths = feature.values.values, feature.values.lengths()
    filled = np.full(int(np.maximum(lengths, 1).sum()), DEFAULT_ID, dtype=np.int32)
    filled[np.repeat(lengths > 0, np.maximum(lengths, 1))] = values
    return np.maximum(lengths, 1).astype(np.int32), (filled + offset).astype(np.int32)


def _merge(features: Sequence[tuple[Int32, Int32]], num_rows: int) -> tuple[Int32, Int32]:
    """Values of all features, row after row ``(N,)``, and their lengths ``(R, S)``."""
    if not features:
        return np.empty(0, dtype=np.int32), np.empty((num_rows, 0), dtype=np.int32)
    lengths = np.stack([lengths for lengths, _ in features], axis=1)
    starts = np.zeros(lengths.size + 1, dtype=np.int64)
    np.cumsum(lengths.ravel(), out=starts[1:])
    merged = np.empty(starts[-1], dtype=np.int32)
    for f, (length, values) in enumerate(features):
        ends = np.cumsum(length, dtype=np.int64)
        shift = starts[:-1].reshape(lengths.shape)[:, f] - (ends - length)
        merged[np.repeat(shift, length) + np.arange(len(values))] = values
    return merged, lengths
