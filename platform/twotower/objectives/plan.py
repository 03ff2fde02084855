"""What a rank embeds at one step: its real rows, their items, and items drawn by key.

Shape letters:
    b real rows of this rank    d items embedded for them    m mixed negatives of this rank
    n SSL items of this rank    A features of the item side
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from twotower.core.config import ExperimentConfig
from twotower.core.errors import DataError
from twotower.core.seeding import integers
from twotower.core.types import Batch, Float64, Int64
from twotower.objectives.group import Group, parts
from twotower.objectives.masking import (
    Draws,
    ViewMasks,
    Views,
    correlated_sets,
    feature_dropout,
)

_COLUMNS = 64
"""Distinct items of a rank are embedded in multiples of this, so that products have few shapes:
oneDNN compiles a kernel for every new one, which takes as long as a small product."""


@dataclass(frozen=True, slots=True)
class ObjectiveInputs:
    """What the tasks know of the data, besides the config."""

    item_features: tuple[str, ...]
    """Names in the order of the item side."""

    query_items: Int64
    """int64 ``(Q,)``: the catalogue row that each query is itself, -1 where none."""

    item_counts: Int64
    """int64 ``(N,)``: train rows of each item."""

    mutual_information: Float64 | None = None
    """``(A, A)`` in the order of the item side; read by `cfm`."""


@dataclass(frozen=True, slots=True)
class ItemPass:
    """Items that go through the item tower together."""

    items: Int64
    """int64 rows of the catalogue."""

    hidden: Tensor | None
    """Hidden features, bool, a row an item; None hides nothing."""

    sizes: list[int]
    """Items of this pass on every rank."""


@dataclass(frozen=True, slots=True)
class SSLPass:
    """Items of the contrastive task, which are embedded twice."""

    items: Int64
    """int64 ``(n,)``."""

    position: Tensor
    """int64 ``(n,)``: places in the global SSL batch."""

    views: Views | None
    """What the views hide; None where nothing is masked."""

    sizes: list[int]
    """n of every rank."""

    places: Int64 | None
    """int64 ``(n,)``: where the items stand in the main pass, if both views can be had from its
    rows: they drop no values, and each feature is shown by exactly one of them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one rank embeds: the batch's items, mixed negatives, two views of SSL items."""

    batch: Batch
    """Without padding."""

    draws: Draws
    num_rows: int
    """Real rows of the global batch."""

    weight_sum: float
    """Sum of their weights."""

    main: ItemPass
    """Items of the rows: each once but for a few (`_COLUMNS`), unless features are dropped row by
    row."""

    row_to_main: Int64
    """int64 ``(b,)``: place of each row's item in ``main``."""

    counts: Int64
    """int64 ``(d,)``: rows that each item of ``main`` stands for."""

    mixed: ItemPass
    ssl: SSLPass | None

    def examples(self) -> Tensor:
        """Examples that each item of ``main`` stands for: its rows, and views made of its row."""
        repeated = self.ssl is not None and self.ssl.places is not None
        return torch.tensor(self.counts * 2 if repeated else self.counts)

    def pass_sizes(self) -> list[int]:
        """Rows of the item passes on this rank, in the order in which they are embedded."""
        views = [len(self.ssl.items)] * 2 if self.ssl else []
        return [len(self.main.items), len(self.mixed.items), *views]


class Planner:
    """Makes the plan of each step; a pure function of config, data and batch."""

    def __init__(
        self, config: ExperimentConfig, inputs: ObjectiveInputs, device: torch.device
    ) -> None:
        """Build; every rank builds the same."""
        self._config, self._device = config, device
        self.num_items = len(inputs.item_counts)
        # In the order of the config, by which the draws are numbered.
        self._columns = [inputs.item_features.index(n) for n in config.data.features.item]
        self._masks = _view_masks(config, inputs) if config.ssl.weight > 0 else None

    def plan(self, batch: Batch, group: Group) -> Plan:
        """Decide what this rank embeds; a collective."""
        real = _without_padding(batch)
        draws = Draws(self._config.seed, batch.step)
        items, row_to_main, counts = real.item, np.arange(len(real.item)), np.ones_like(real.item)
        places: Int64 | None = None
        hidden = self._feature_dropout(draws, real.position, lane=0)
        if hidden is None:
            items, row_to_main, counts = distinct(real.item)
            places = row_to_main
        weight = float(real.weight.sum(dtype=np.float64))
        ranks = group.exchange(len(items), len(real.item), weight)
        return Plan(
            batch=real,
            draws=draws,
            num_rows=int(sum(rows for _, rows, _ in ranks)),
            weight_sum=sum(weight for _, _, weight in ranks),
            main=ItemPass(items, hidden, [int(items) for items, _, _ in ranks]),
            row_to_main=row_to_main,
            counts=counts,
            mixed=self._mixed(draws, group),
            ssl=self._ssl(real, draws, group, [int(rows) for _, rows, _ in ranks], places),
        )

    def mixed_items(self, draws: Draws) -> Int64:
        """The mixed negatives of the global batch, in rank order."""
        return self._uniform(draws, "mixed", np.arange(self._config.loss.mixed_negatives))

    def _mixed(self, draws: Draws, group: Group) -> ItemPass:
        total = self._config.loss.mixed_negatives
        position = _own_part(total, group)
        hidden = self._feature_dropout(draws, position, lane=1)
        return ItemPass(self._uniform(draws, "mixed", position), hidden, parts(total, group.size))

    def _ssl(
        self, batch: Batch, draws: Draws, group: Group, rows: list[int], places: Int64 | None
    ) -> SSLPass | None:
        if self._masks is None:
            return None
        items, position, sizes = batch.item, batch.position, rows
        if self._config.ssl.items == "uniform":
            total = self._config.ssl.batch_size or self._config.train.batch_size
            position, sizes = _own_part(total, group), parts(total, group.size)
            items, places = self._uniform(draws, "ssl_items", position), None
        if self._config.ssl.dropout_rate > 0 or not self._masks.are_complements:
            places = None
        at = torch.tensor(position).to(self._device, non_blocking=True)
        views = self._masks.draw(draws, at, runs=places is None)
        if views is not None and views.order is not None:
            items, at = items[views.order.numpy()], at[views.order]
        return SSLPass(items, at, views, sizes, places)

    def _uniform(self, draws: Draws, purpose: str, position: Int64) -> Int64:
        return integers(draws.seed, purpose, draws.step, position, self.num_items)

    def _feature_dropout(self, draws: Draws, position: Int64, *, lane: int) -> Tensor | None:
        rate = self._config.loss.feature_dropout
        if rate == 0:
            return None
        at = torch.tensor(position).to(self._device, non_blocking=True)
        return feature_dropout(draws, at, self._columns, len(self._columns), rate, lane=lane)


def distinct(items_b: Int64) -> tuple[Int64, Int64, Int64]:
    """Each item once, then as many rows on their own as fill up a multiple of `_COLUMNS`.

    An item may stand in several columns: the softmax leaves out all of its columns but the
    positive's own, and a column counts for its own rows.

    Returns:
        Items ``(d,)``, the place of each row's ``(b,)``, rows that each stands for ``(d,)``.
    """
    items, first, row_to_item, counts = np.unique(
        items_b, return_index=True, return_inverse=True, return_counts=True
    )
    repeats = np.ones(len(items_b), dtype=np.bool_)
    repeats[first] = False
    alone = np.flatnonzero(repeats)[: -len(items) % _COLUMNS]
    np.subtract.at(counts, row_to_item[alone], 1)
    row_to_item[alone] = len(items) + np.arange(len(alone))
    return (
        np.concatenate([items, items_b[alone]]),
        row_to_item,
        np.concatenate([counts, np.ones(len(alone), dtype=counts.dtype)]),
    )


def _view_masks(config: ExperimentConfig, inputs: ObjectiveInputs) -> ViewMasks:
    columns = [inputs.item_features.index(name) for name in config.maskable_features()]
    sets = None
    if config.ssl.masking == "cfm":
        if inputs.mutual_information is None:
            raise DataError("ssl.masking: cfm needs the mutual information of the prepared dataset")
        among = inputs.mutual_information[np.ix_(columns, columns)]
        sets = correlated_sets(among, config.num_masked())
    never = [inputs.item_features.index(name) for name in config.hidden_features()]
    return ViewMasks(
        config.ssl.masking, config.num_masked(), columns, len(inputs.item_features), sets, never
    )


def _own_part(total: int, group: Group) -> Int64:
    """Positions of this rank among ``total`` of the global batch."""
    sizes = parts(total, group.size)
    first = sum(sizes[: group.rank])
    return np.arange(first, first + sizes[group.rank], dtype=np.int64)


def _without_padding(batch: Batch) -> Batch:
    """The rows of weight above 0: padding is absent from everything that follows."""
    real = batch.weight > 0
    if real.all():
        return batch
    at = np.flatnonzero(real)
    return Batch(
        query=batch.query[at],
        item=batch.item[at],
        weight=batch.weight[at],
        position=batch.position[at],
        epoch=batch.epoch,
        step=batch.step,
        context={name: ids[at] for name, ids in batch.context.items()},
        history=None if batch.history is None else batch.history.take(at),
    )
