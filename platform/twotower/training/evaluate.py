"""Exact evaluation of a model on a part of a prepared dataset, shared between the workers.

Shape letters:
    Q evaluated queries    N items    K items recommended    D width    W workers
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from twotower.core.config import ExperimentConfig
from twotower.core.types import EncodedFeature, Int64
from twotower.data.prepared import Prepared
from twotower.evaluation.baselines import (
    PopularityScorer,
    Profiles,
    content_scorer,
    item_knn_scorer,
)
from twotower.evaluation.evaluate import Evaluation, Task, evaluate, measure, recommend
from twotower.evaluation.pairs import Network, PairScorer
from twotower.evaluation.protocol import Json
from twotower.evaluation.scorers import CosineScorer, Scorer
from twotower.evaluation.topk import Top
from twotower.models.two_tower import TwoTower
from twotower.objectives.group import SINGLE, Group, parts
from twotower.training.questions import EvalPart, Questions, questions

_CHUNK = 8192
"""Rows embedded at once. Workers take whole chunks, so items embed alike for any W."""


class Evaluator:
    """Evaluates models of one config on one dataset; what it reads is kept for the next time."""

    def __init__(self, config: ExperimentConfig, prepared: Prepared, group: Group = SINGLE) -> None:
        """Use a dataset; a part is read when it is first asked for."""
        self._config, self._prepared, self._group = config, prepared, group
        self._questions: dict[EvalPart, Questions] = {}

    def questions(self, part: EvalPart) -> Questions:
        """The evaluated queries of a part."""
        if part not in self._questions:
            self._questions[part] = questions(self._config, self._prepared, part)
        return self._questions[part]

    def values(self, model: TwoTower, part: EvalPart) -> dict[str, float | None]:
        """Every metric's value; equal on all ranks. Collective: all ranks call it."""
        return {name: found["value"] for name, found in self.evaluate(model, part).summary.items()}

    def evaluate(self, model: TwoTower, part: EvalPart, **subject: Json) -> Evaluation:
        """Rank the catalogue for every query of a part and measure it.

        Collective: each rank embeds some items and ranks some queries, all ranks return the whole.

        Args:
            model: the model, in evaluation every row that no gradient touched is its default row.
            part: what is asked.
            subject: what the certificate says of the model, beside config, seed and data.

        Raises:
            DataError: the part has no pairs.
            RunError: the embeddings are not finite.
        """
        asked = self.questions(part)
        about = {**asked.setting.subject, "untouched": model.store.untouched(), **subject}
        setting = replace(asked.setting, subject=about)
        items_ND = self._embed_items(model)
        mine = self._rank_slice(len(asked.rows))
        queries_qD = model.embed_queries(
            asked.rows[mine],
            context={name: ids[mine] for name, ids in asked.context.items()},
            history=None if asked.history is None else asked.history.take(mine),
            batch_size=_CHUNK,
        )
        scorer = scorer_of(model, queries_qD, items_ND)
        top = recommend(scorer, _some(asked.task, mine), self._config.eval)
        return measure(self._gather(top, model.device), asked.task, self._config.eval, setting)

    def baselines(self, part: EvalPart) -> dict[str, Evaluation]:
        """Rows that every table has: popularity, content and item-kNN. Not collective.

        Content goes by all item features but the id; without any that has words there is no row.
        """
        asked, prepared = self.questions(part), self._prepared
        train = prepared.positives("train")
        profiles = Profiles(own_item=asked.task.own_item, positives=train.take(asked.rows))
        scorers: dict[str, Scorer] = {"popularity": PopularityScorer(prepared.item_counts())}
        if described := self._described():
            scorers["content"] = content_scorer(described, profiles)
        scorers["item_knn"] = item_knn_scorer(train, profiles, asked.task.tie_keys)
        data = {key: asked.setting.subject[key] for key in ("prepared", "fraction")}
        found: dict[str, Evaluation] = {}
        for name, scorer in scorers.items():
            setting = replace(asked.setting, subject={"model": name, **data})
            found[name] = evaluate(scorer, asked.task, self._config.eval, setting)
        return found

    def _described(self) -> list[EncodedFeature]:
        data = self._config.data
        ids = {n for n, f in data.features.item.items() if (f.column or n) == data.items.id}
        features = self._prepared.item_side().features
        return [f for f in features if f.kind != "dense" and f.name not in ids]

    def _embed_items(self, model: TwoTower) -> Tensor:
        """float32 ``(N, D)``, every rank having embedded its share."""
        num_items = self._prepared.num_items
        chunks = parts(-(-num_items // _CHUNK), self._group.size)
        bounds = np.minimum(np.cumsum([0, *chunks]) * _CHUNK, num_items)
        rank = self._group.rank
        rows = np.arange(bounds[rank], bounds[rank + 1], dtype=np.int64)
        own = model.embed_items(rows, batch_size=_CHUNK)
        return self._group.gather(own, np.diff(bounds).tolist())

    def _rank_slice(self, num_queries: int) -> Int64:
        """Questions of this rank: int64, rising."""
        ends = np.cumsum([0, *parts(num_queries, self._group.size)])
        return np.arange(ends[self._group.rank], ends[self._group.rank + 1], dtype=np.int64)

    def _gather(self, top: Top, device: torch.device) -> Top:
        """All ranks' recommendations, in the order of the questions."""
        if self._group.size == 1:
            return top
        found = self._group.exchange(len(top.items), top.searched)
        sizes = [int(size) for size, _ in found]

        def gathered(values: Tensor) -> Tensor:
            return self._group.gather(values.to(device), sizes).cpu()

        items = gathered(torch.from_numpy(top.items)).numpy()
        scores = gathered(torch.from_numpy(top.scores)).numpy()
        return Top(items, scores, sum(int(searched) for _, searched in found))


def scorer_of(model: TwoTower, query_QD: Tensor, item_ND: Tensor) -> Scorer:
    """What ranks a model's vectors of queries ``(Q, D)`` and of the catalogue ``(N, D)``."""
    pairs = model.scorer.pairs
    if pairs is None:
        return CosineScorer(query_QD, item_ND)
    layers = [(layer.weight.detach(), layer.bias.detach()) for layer in pairs.hidden_layers]
    network = Network(pairs.product_width, layers, pairs.last.detach())
    return PairScorer(query_QD, item_ND, network)


def _some(task: Task, at: Int64) -> Task:
    """The task of some of its queries."""
    return replace(
        task,
        truth=task.truth.take(at),
        exclude=task.exclude.take(at),
        own_item=task.own_item[at],
        groups=None if task.groups is None else task.groups[at],
    )
