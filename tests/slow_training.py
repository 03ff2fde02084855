"""One training step written the slow and obvious way: dense tables, Python loops, plain autograd.

Shares with the package the draws (who is masked, which items are drawn) and nothing of the maths.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from twotower.core.config import ExperimentConfig
from twotower.core.seeding import four_words, integers, uniform, words
from twotower.core.types import Batch, EncodedFeature, Ragged, Side
from twotower.training.state import TrainInputs, TrainState


@dataclass
class SlowModel:
    """Leaf copies of a state's weights, the table as one dense leaf."""

    table: Tensor
    dense: dict[str, Tensor]
    offsets: dict[str, int]
    inputs: TrainInputs

    @classmethod
    def of(cls, state: TrainState, inputs: TrainInputs) -> "SlowModel":
        store = state.model.store
        dense = {n: p.detach().clone().requires_grad_() for n, p in state.model.named_parameters()}
        return cls(store.weight.clone().requires_grad_(), dense, store.offsets, inputs)

    def feature(
        self, f: EncodedFeature, row: int, *, hidden: bool = False, kept: list[bool] | None = None
    ) -> Tensor:
        if not isinstance(f.values, Ragged):
            return torch.tensor([0.0 if hidden else float(f.values[row])]).double()
        values = f.values.row(row).tolist() or [0]
        left = [] if hidden else [v for i, v in enumerate(values) if kept is None or kept[i]]
        return torch.stack([self.table[self.offsets[f.table] + v] for v in left or [0]]).mean(0)

    def tower(self, name: str, side: Side, sparse: list[Tensor], dense: list[Tensor]) -> Tensor:
        n = sum(f.kind != "dense" for f in side.features)
        x = torch.cat([*sparse[:n], *dense, *sparse[n:]])  # then context and history
        layer = 0
        while f"{name}.mlp.layers.{layer}.weight" in self.dense:
            if layer:
                x = F.relu(x)
            x = (
                self.dense[f"{name}.mlp.layers.{layer}.weight"] @ x
                + self.dense[f"{name}.mlp.layers.{layer}.bias"]
            )
            layer += 1
        return x if "scorer.weight" in self.dense else x / x.norm()

    def score(self, p: Tensor, q: Tensor) -> Tensor:
        """Of a query's output and an item's; of vectors of norm 1 where that is their cosine."""
        if "scorer.weight" not in self.dense:
            return p @ q
        h = self.dense["scorer.weight"]
        product = (h * p[: len(h)] * q[: len(h)]).sum()
        if "scorer.pairs.last" not in self.dense:
            return product
        layers = ["first", *(f"pairs.layers.{n}" for n in range(9))]
        x = torch.cat([p[len(h) :], q[len(h) :]])
        for layer in layers:
            if f"scorer.{layer}.weight" in self.dense:
                weight, bias = (self.dense[f"scorer.{layer}.{n}"] for n in ("weight", "bias"))
                x = F.relu(weight @ x + bias)
        return product + self.dense["scorer.pairs.last"] @ x

    def item(self, row: int, hidden: set[int], kept: dict[int, list[bool]] | None = None) -> Tensor:
        sparse: list[Tensor] = []
        dense: list[Tensor] = []
        for i, f in enumerate(self.inputs.item.features):
            found = self.feature(f, row, hidden=i in hidden, kept=(kept or {}).get(i))
            (dense if f.kind == "dense" else sparse).append(found)
        return self.tower("item_tower", self.inputs.item, sparse, dense)

    def attention(self, x: Tensor, noise: "SlowNoise") -> Tensor:
        """All positions of all blocks of one history, newest first; its first position's output."""
        blocks = sum(n.endswith("inner.weight") for n in self.dense if n.startswith("history."))
        x = noise(x + self.dense["history.positions"][: len(x)], 0)
        for n in range(blocks):
            name = f"history.earlier.{n}" if n < blocks - 1 else "history"

            def layer(kind: str, value: Tensor, name: str = name) -> Tensor:
                weight, bias = (self.dense[f"{name}.{kind}.{part}"] for part in ("weight", "bias"))
                if kind.endswith("norm"):
                    return F.layer_norm(value, value.shape[-1:], weight, bias)
                return value @ weight.T + bias

            q = layer("attention_norm", x)
            heads = [part.chunk(noise.num_heads, dim=1) for part in (
                layer("query", q), layer("key", x), layer("value", x))]  # fmt: skip
            mixed: list[Tensor] = []
            for query, key, value in zip(*heads, strict=True):
                scores = query @ key.T / query.shape[1] ** 0.5
                newer = torch.ones(len(x), len(x), dtype=torch.bool).tril(-1)
                mixed.append(scores.masked_fill(newer, -torch.inf).softmax(1) @ value)
            x = layer("feed_norm", q + noise(torch.cat(mixed, dim=1), 1 + 2 * n))
            x = x + noise(layer("outer", F.relu(layer("inner", x))), 2 + 2 * n)
        weight, bias = (self.dense[f"history.last_norm.{part}"] for part in ("weight", "bias"))
        return F.layer_norm(x[0], x.shape[-1:], weight, bias)

    def query(
        self, row: int, country: int, history: list[int] | None, noise: "SlowNoise | None" = None
    ) -> Tensor:
        sparse: list[Tensor] = []
        dense: list[Tensor] = []
        for f in self.inputs.query.features:
            (dense if f.kind == "dense" else sparse).append(self.feature(f, row))
        sparse.append(self.table[self.offsets["context.country"] + country])
        if history is not None:
            id_feature = self.inputs.item.features[0]
            past = [self.feature(id_feature, item) for item in history]
            if not past:
                sparse.append(torch.zeros_like(self.table[0]))
            elif noise is not None and "history.positions" in self.dense:
                sparse.append(self.attention(torch.stack(past), noise))
            else:
                sparse.append(torch.stack(past).mean(0))
        return self.tower("query_tower", self.inputs.query, sparse, dense)


@dataclass
class SlowNoise:
    """Dropout in one row's history."""

    config: ExperimentConfig
    step: int
    position: int

    @property
    def num_heads(self) -> int:
        return self.config.model.history_heads

    def __call__(self, x: Tensor, site: int) -> Tensor:
        dropped = round(self.config.model.history_dropout * 256)
        out = torch.zeros_like(x)
        longest = self.config.data.features.query["past"].max_values
        for place in range(x.shape[0]):
            for column in range(x.shape[1]):
                number = (self.position * longest + place) * -(-x.shape[1] // 16) + column // 16
                drawn = four_words(
                    self.config.seed, "history_dropout", self.step, np.array([number]), site
                )
                word = int(drawn[column % 16 // 4][0])
                if (word >> 8 * (column % 4)) % 256 >= dropped:
                    out[place, column] = x[place, column] * 256 / (256 - dropped)
        return out


def slow_losses(config: ExperimentConfig, model: SlowModel, batch: Batch) -> dict[str, Tensor]:
    """The step's losses over the whole global batch; `counted` is the only logQ it knows."""
    rows = [i for i in range(len(batch.item)) if batch.weight[i] > 0]
    query = [
        model.query(
            int(batch.query[i]),
            int(batch.context["country"][i]),
            None if batch.history is None else batch.history.row(i).tolist(),
            SlowNoise(config, batch.step, int(batch.position[i])),
        )
        for i in rows
    ]
    items = [int(batch.item[i]) for i in rows]
    vectors = [
        model.item(item, _dropped_features(config, batch.step, int(batch.position[i]), 0))
        for item, i in zip(items, rows, strict=True)
    ]
    mixed = (
        integers(
            config.seed,
            "mixed",
            batch.step,
            np.arange(config.loss.mixed_negatives),
            len(model.inputs.item_counts),
        ).tolist()
        if config.loss.mixed_negatives
        else []
    )
    candidates = items + mixed
    all_vectors = vectors + [
        model.item(m, _dropped_features(config, batch.step, p, 1)) for p, m in enumerate(mixed)
    ]
    tau = config.loss.temperature
    weight_sum = float(batch.weight.sum())
    main = torch.zeros(()).double()
    for i, row in enumerate(rows):
        own = int(model.inputs.query_items[batch.query[row]])
        logits = [
            model.score(query[i], all_vectors[j]) / tau
            - _log_q(config, model.inputs, candidates[j], len(rows))
            for j in range(len(candidates))
            if j == i or candidates[j] not in (items[i], own)
        ]
        positive = model.score(query[i], vectors[i]) / tau
        positive = positive - _log_q(config, model.inputs, items[i], len(rows))
        main = main + float(batch.weight[row]) / weight_sum * (
            torch.logsumexp(torch.stack(logits), 0) - positive
        )
    losses = {"main": main}
    total = main
    if config.ssl.weight > 0:
        losses["ssl"] = _contrastive(
            config, model, batch, items, [int(batch.position[i]) for i in rows]
        )
        total = total + config.ssl.weight * losses["ssl"]
    if config.loss.spread_out != "none":
        losses["spread_out"] = _spread_out(config, vectors, items)
        total = total + config.loss.spread_out_weight * losses["spread_out"]
    return {"loss": total, **losses}


def _dropped_features(config: ExperimentConfig, step: int, position: int, lane: int) -> set[int]:
    names = config.maskable_features()
    columns = [list(config.data.features.item).index(n) for n in names]
    index = position * len(columns) + np.arange(len(columns))
    drawn = uniform(config.seed, "feature_dropout", step, index, lane)
    return {c for c, u in zip(columns, drawn, strict=True) if u < config.loss.feature_dropout}


def _log_q(config: ExperimentConfig, inputs: TrainInputs, item: int, num_rows: int) -> float:
    if config.loss.logq == "none":
        return 0.0
    assert config.loss.logq == "counted"
    share = inputs.item_counts[item] / inputs.item_counts.sum()
    extra = config.loss.mixed_negatives
    return float(np.log((num_rows * share + extra / len(inputs.item_counts)) / (num_rows + extra)))


def _contrastive(
    config: ExperimentConfig, model: SlowModel, batch: Batch, items: list[int], positions: list[int]
) -> Tensor:
    if config.ssl.items == "uniform":
        total = config.ssl.batch_size or config.train.batch_size
        positions = list(range(total))
        items = integers(
            config.seed, "ssl_items", batch.step, np.arange(total), len(model.inputs.item_counts)
        ).tolist()
    first, second = zip(
        *(
            _views(config, model, batch.step, p, item)
            for p, item in zip(positions, items, strict=True)
        ),
        strict=True,
    )
    loss = torch.zeros(()).double()
    for i, item in enumerate(items):
        logits = [
            first[i] @ second[j] / config.ssl.temperature
            for j in range(len(items))
            if j == i or items[j] != item
        ]
        loss = loss + (
            torch.logsumexp(torch.stack(logits), 0) - first[i] @ second[i] / config.ssl.temperature
        ) / len(items)
    return loss


def _views(
    config: ExperimentConfig, model: SlowModel, step: int, position: int, item: int
) -> tuple[Tensor, Tensor]:
    columns = [list(config.data.features.item).index(n) for n in config.maskable_features()]
    k, m = len(columns), config.num_masked()
    if config.ssl.masking == "cfm":
        mutual = model.inputs.mutual_information
        assert mutual is not None
        seed = int(integers(config.seed, "cfm", step, np.zeros(1, dtype=np.int64), k)[0])
        near = sorted(
            (f for f in range(k) if f != seed),
            key=lambda f: -mutual[columns[seed], columns[f]],
        )
        chosen = [{seed, *near[: m - 1]}] * 2
    else:
        drawn = words(config.seed, "mask", step, position * k + np.arange(k))
        chosen = [set(np.argsort(word, kind="stable")[:m].tolist()) for word in drawn]
    if config.ssl.masking != "rfm_independent":
        chosen[1] = set(range(k)) - chosen[0]
    if config.ssl.masking == "none":
        chosen = [set(), set()]
    never = {list(config.data.features.item).index(n) for n in config.hidden_features()}
    out = []
    for view in (0, 1):
        kept: dict[int, list[bool]] = {}
        slot = 0
        for i, f in enumerate(model.inputs.item.features):
            if isinstance(f.values, Ragged):
                length = max(1, len(f.values.row(item)))
                if f.kind == "multi":
                    index = position * _most_values(model.inputs.item) + slot + np.arange(length)
                    drawn = words(config.seed, "value_dropout", step, index)[view]
                    kept[i] = (drawn >= round(config.ssl.dropout_rate * 2**32)).tolist()
                slot += length
        out.append(model.item(item, {columns[c] for c in chosen[view]} | never, kept))
    return out[0], out[1]


def _most_values(side: Side) -> int:
    return max(
        sum(max(1, len(f.values.row(r))) for f in side.features if isinstance(f.values, Ragged))
        for r in range(side.num_rows)
    )


def _spread_out(config: ExperimentConfig, vectors: list[Tensor], items: list[int]) -> Tensor:
    loss = torch.zeros(()).double()
    tau, n = config.loss.temperature, len(items)
    for i in range(n):
        others = torch.stack([vectors[i] @ vectors[j] for j in range(n) if items[j] != items[i]])
        if config.loss.spread_out == "squared":
            loss = loss + others.square().sum() / n
        else:
            one = torch.tensor(1 / tau, dtype=torch.float64)
            loss = loss + (torch.logsumexp(torch.cat([one[None], others / tau]), 0) - one) / n
    return loss
