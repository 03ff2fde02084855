"""The tasks that a config switches on, and their sum.

`Planner.plan` comes before the towers and `Objective.losses` after them; a rank's losses are its
rows' parts of the global means, so losses and gradients are summed over ranks, never averaged.

Shape letters:
    b rows of this rank    d distinct items of them    C candidates of all ranks    D width
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from twotower.core.config import ExperimentConfig
from twotower.core.types import Int64
from twotower.objectives.contrastive import contrastive_loss
from twotower.objectives.group import Group
from twotower.objectives.logq import CountedLogQ, LogQ, StreamingLogQ, column_bias
from twotower.objectives.pairs import ScorePairs
from twotower.objectives.plan import ObjectiveInputs, Plan, Planner, SSLPass
from twotower.objectives.retrieval import RetrievalRows, retrieval_loss
from twotower.objectives.spread_out import spread_out_loss


@dataclass(frozen=True, slots=True)
class _Gathered:
    """Item embeddings of the batch, from all ranks."""

    vectors: Tensor
    """``(C, D)``, with gradient."""

    items: Tensor
    """int64 ``(C,)``."""

    counts: Tensor
    """float ``(C,)``: rows that each stands for."""

    own: slice
    """This rank's part."""


class Objective:
    """All losses of a step."""

    def __init__(
        self,
        config: ExperimentConfig,
        inputs: ObjectiveInputs,
        device: torch.device,
        pairs: ScorePairs | None = None,
    ) -> None:
        """Build, with what scores a pair (None = the dot product); every rank builds the same."""
        self._loss, self._ssl, self._device = config.loss, config.ssl, device
        self._bf16 = config.train.precision == "bf16"
        self._pairs = pairs
        self._query_items = inputs.query_items
        self.planner = Planner(config, inputs, device)
        self._logq = _logq(config, inputs, device)

    def state_tensors(self) -> dict[str, Tensor]:
        """What must survive a restart (live tensors): the streaming estimate of logQ."""
        return self._logq.state_tensors() if self._logq else {}

    def losses(
        self, plan: Plan, query_bD: Tensor, items: Sequence[Tensor], group: Group
    ) -> dict[str, Tensor]:
        """Losses of this rank's embeddings; a collective.

        Args:
            plan: what the planner gave.
            query_bD: the batch's queries.
            items: embeddings of the item passes, sized as `Plan.pass_sizes`.
            group: the workers.

        Returns:
            0-d tensors, this rank's parts: ``loss``, the weighted total (with gradient), then
            ``main``, and ``ssl`` and ``spread_out`` where they are on.
        """
        batch = self._gather(plan, items[0], group)
        losses = {"main": self._main(plan, query_bD, batch, items[1], group)}
        total = losses["main"]
        if plan.ssl:
            losses["ssl"] = self._contrastive(plan.ssl, items[2], items[3], group)
            total = total + self._ssl.weight * losses["ssl"]
        if self._loss.spread_out != "none":
            losses["spread_out"] = spread_out_loss(
                self._loss.spread_out,
                batch.vectors,
                batch.items,
                batch.counts,
                batch.own,
                temperature=self._loss.temperature,
            )
            total = total + self._loss.spread_out_weight * losses["spread_out"]
        return {"loss": total, **losses}

    def _gather(self, plan: Plan, item_dD: Tensor, group: Group) -> _Gathered:
        sizes = plan.main.sizes
        both_d2 = torch.stack([self._ids(plan.main.items), self._ids(plan.counts)], dim=1)
        both_C2 = group.gather(both_d2, sizes)
        first = sum(sizes[: group.rank])
        return _Gathered(
            vectors=group.gather(item_dD, sizes),
            items=both_C2[:, 0].contiguous(),
            counts=both_C2[:, 1].to(item_dD.dtype),
            own=slice(first, first + sizes[group.rank]),
        )

    def _main(
        self, plan: Plan, query_bD: Tensor, batch: _Gathered, mixed_mD: Tensor, group: Group
    ) -> Tensor:
        vectors_CD, items_C, counts_C = batch.vectors, batch.items, batch.counts
        if self._logq is not None:
            self._logq.observe(items_C, plan.batch.step)
        if self._loss.mixed_negatives:
            mixed = self._ids(self.planner.mixed_items(plan.draws))
            vectors_CD = torch.cat([vectors_CD, group.gather(mixed_mD, plan.mixed.sizes)])
            items_C = torch.cat([items_C, mixed])
            counts_C = torch.cat([counts_C, counts_C.new_ones(len(mixed))])
        bias_C = None
        if self._logq is not None:
            bias_C = column_bias(
                self._logq,
                items_C,
                num_rows=plan.num_rows,
                num_mixed=self._loss.mixed_negatives,
                num_items=self.planner.num_items,
            ).to(query_bD.dtype)
        rows = RetrievalRows(
            items=self._ids(plan.batch.item),
            own=self._ids(self._query_items[plan.batch.query]),
            weight=torch.tensor(plan.batch.weight).to(query_bD) / plan.weight_sum,
            positive=self._ids(plan.row_to_main) + batch.own.start,
            columns=items_C,
            log_counts=counts_C.log(),
            bias=bias_C,
        )
        return retrieval_loss(
            query_bD,
            vectors_CD,
            rows,
            temperature=self._loss.temperature,
            pairs=self._pairs,
            bf16=self._bf16,
        )

    def _contrastive(
        self, ssl: SSLPass, first_nD: Tensor, second_nD: Tensor, group: Group
    ) -> Tensor:
        own_n = self._ids(ssl.items)
        return contrastive_loss(
            first_nD,
            group.gather(second_nD, ssl.sizes),
            (own_n, group.gather(own_n, ssl.sizes)),
            sum(ssl.sizes[: group.rank]),
            temperature=self._ssl.temperature,
            bf16=self._bf16,
        )

    def _ids(self, values: Int64) -> Tensor:
        return torch.tensor(values).to(self._device, non_blocking=True)


def _logq(config: ExperimentConfig, inputs: ObjectiveInputs, device: torch.device) -> LogQ | None:
    if config.loss.logq == "counted":
        return CountedLogQ(inputs.item_counts, device)
    if config.loss.logq == "streaming":
        rows = config.train.batch_size
        return StreamingLogQ(len(inputs.item_counts), rows, config.loss.logq_rate, device)
    return None
