"""The experiment schema: every knob with its meaning, unit, legal range and source.

Two runs with equal configs (less what `RESUME_SAFE` lists) and equal data are the same run.
Models are frozen and refuse unknown keys; `loading` reads them from YAML and dotted overrides.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from twotower.core.data_config import Data
from twotower.core.embedding_config import Embedding
from twotower.core.fault_config import Faults
from twotower.core.model_config import Model
from twotower.core.section import Count, Positive, Section, Share, Text
from twotower.core.tower_checks import check_towers
from twotower.core.train_config import Train

RESUME_SAFE = (
    "name",
    "storage",
    "train.num_workers",
    "train.threads",
    "train.device",
    "train.checkpoint_async",
    "cluster",
    "fault",
)
"""Keys that may change between the start of a run and its resume: they don't change its result."""

ADDED = (
    "model.embeddings",
    "ssl.hidden_features",
    "model.towers",
    "model.tower_init",
    "model.scorer",
    "model.scorer_hidden",
    "model.history_blocks",
    "model.history_heads",
    "model.history_dropout",
    "data.min_query_pairs",
)
"""Keys that came after runs were first kept. At its default such a key is no part of a run's
identity: runs made before it stay the runs they are, and their ledgers go on."""


class Loss(Section):
    """The main task: batch softmax over global in-batch negatives (arXiv 2007.12865 eq. 6)."""

    temperature: Positive = 0.07
    """Temperature tau of the softmax over scores: cosines, or those of `model.scorer`."""

    logq: Literal["none", "counted", "streaming"] = "none"
    """Sampling-bias correction. `counted`: log of an item's share of the train rows, exact.
    `streaming`: of the probability that a batch holds it, as Yi et al. 2019 estimate it (algorithm
    2); an item that comes several times in a batch counts once there, so popular items are
    corrected too little."""

    logq_rate: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Learning rate of the streaming estimate."""

    mixed_negatives: Annotated[int, Field(ge=0)] = 0
    """Extra negatives drawn uniformly from the catalogue per global batch (Yang et al. 2020)."""

    spread_out: Literal["none", "softmax", "squared"] = "none"
    """Baseline SO: spread-out regulariser on item embeddings (arXiv 2007.12865 sec. 3.2)."""

    spread_out_weight: Annotated[float, Field(ge=0)] = 0.1
    """Multiplier of the spread-out term."""

    feature_dropout: Share = 0.0
    """Baseline FD: probability that a feature of the item tower, any of them, is masked in the
    main task; `ssl` says nothing about it."""

    @model_validator(mode="after")
    def _check(self) -> "Loss":
        self.only_for("logq_rate", "logq", "streaming")
        self.only_for("spread_out_weight", "spread_out", "softmax", "squared")
        return self


class SSL(Section):
    """The contrastive task on two masked views of one item (arXiv 2007.12865 eq. 3)."""

    weight: Annotated[float, Field(ge=0)] = 0.0
    """Multiplier alpha of the term; 0 leaves it out."""

    temperature: Positive = 0.1
    """Temperature of the contrastive softmax."""

    masking: Literal["none", "rfm", "cfm", "rfm_independent"] = "cfm"
    """`rfm`: m random features an example, the rest in the other view; `cfm`: a seed feature and
    its most correlated, one seed a batch; `rfm_independent`: m features in each view; `none`."""

    mask_rate: Annotated[float, Field(gt=0, lt=1)] | Literal["paper"] = 0.5
    """Share of features masked in view 1: m = clamp(round(rate * k), 1, k - 1); `paper`: floor(k/2)
    + 1."""

    dropout_rate: Share = 0.1
    """Probability that a value of a multi-valued feature is dropped, in both views."""

    mi: Literal["raw", "normalised"] = "raw"
    """Mutual information that ranks features in `cfm`: as in the paper, or divided by the smaller
    entropy with the Miller-Madow correction."""

    mask_features: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """Item features that can be masked; null = all of them, the id too."""

    hidden_features: tuple[Text, ...] | Literal["id"] = ()
    """Item features that neither view shows; `id`: those that are the item's id. With the id here
    the task can't train the rows of ids that no train pair touches, and such items still read the
    default row."""

    items: Literal["uniform", "in_batch"] = "uniform"
    """Items of the term: drawn uniformly from the catalogue, or those of the batch."""

    batch_size: Count | None = None
    """Items of the term in a global batch where they are uniform; null = train.batch_size."""

    @model_validator(mode="after")
    def _check(self) -> "SSL":
        if self.weight > 0:
            self.only_for("mi", "masking", "cfm")
            self.only_for("batch_size", "items", "uniform")
        return self


class Eval(Section):
    """Exact evaluation over the whole catalogue."""

    k: tuple[Count, ...] = (10, 50)
    """Cut-offs of Recall, MAP, NDCG, MRR. Where each query has one true item (`data.split.kind:
    leave_last`), recall is the hit rate HR."""

    select: str = "recall@50"
    """Validation metric that picks the best checkpoint and the best trial; higher is better."""

    filter_seen: bool = True
    """Remove the query's known positives (train; at test also validation) from the candidates."""

    slices: tuple[Literal["head", "torso", "tail", "unseen", "not_head"], ...] = (
        "head",
        "torso",
        "tail",
        "unseen",
        "not_head",
    )
    """Slices of the truth by the item's count in the full train part."""

    tile_mb: Count = 256
    """Memory bound of one tile of scores, in MiB."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence of the intervals over queries."""

    @field_validator("k")
    @classmethod
    def _rising(cls, k: tuple[int, ...]) -> tuple[int, ...]:
        if not k or list(k) != sorted(set(k)):
            raise ValueError(f"cut-offs must be distinct and rising, got {list(k)}")
        return k

    @model_validator(mode="after")
    def _known(self) -> "Eval":
        names = [f"{m}@{k}" for m in ("recall", "map", "ndcg", "mrr") for k in self.k]
        if self.select not in names:
            raise ValueError(
                f"select: {self.select!r} is not measured; choose one of {', '.join(names)}"
            )
        return self


class Storage(Section):
    """Where results go: paths, or URIs that pyarrow.fs knows."""

    runs: Text = "runs"
    """Run directories: `<runs>/<name>-<8 of the fingerprint>`."""

    prepared: Text = "prepared"
    """Prepared datasets, one directory each, shared between runs."""


class Cluster(Section):
    """The Ray cluster a command uses."""

    address: Text | None = None
    """Address of a running cluster; null starts a local one (or uses the job's own)."""

    num_cpus: Count | None = None
    """CPUs of a local cluster; null = the machine's."""

    object_store_mb: Annotated[int, Field(ge=80)] = 512
    """Object store of a local cluster, in MiB."""


class ExperimentConfig(Section):
    """One experiment, whole."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
    """Stem of the run's name; lower-case letters, digits, `_`, `-` and `.`, never `..`."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Initialisation and training draws."""

    data: Data
    model: Model = Model()
    loss: Loss = Loss()
    ssl: SSL = SSL()
    train: Train = Train()
    eval: Eval = Eval()
    storage: Storage = Storage()
    cluster: Cluster = Cluster()
    fault: Faults = Faults()

    @model_validator(mode="after")
    def _check(self) -> "ExperimentConfig":
        if ".." in self.name:
            raise ValueError(f"name: must not hold '..', got {self.name!r}")
        lanes = self.data.lanes
        if self.train.batch_size % lanes:
            low = self.train.batch_size // lanes * lanes
            raise ValueError(
                f"train.batch_size: {self.train.batch_size} is not a multiple of data.lanes "
                f"({lanes}); take {max(low, lanes)} or {low + lanes}"
            )
        if self.train.num_workers > lanes:
            raise ValueError(
                f"train.num_workers: {self.train.num_workers} workers, but data.lanes is {lanes}"
            )
        for place, fault in enumerate(self.fault.plan):
            if fault.rank >= self.train.num_workers:
                raise ValueError(
                    f"fault.plan: fault {place} is rank {fault.rank}'s, but train.num_workers is "
                    f"{self.train.num_workers}"
                )
        if self.ssl.weight > 0:
            self._check_masking()
            self._check_dropout()
        self._check_scorer()
        check_towers(self.model, self.data.features)
        for side in ("item", "query", "context"):
            for name in getattr(self.model.embeddings, side):
                self._check_embedding(side, name)
        return self

    def _check_scorer(self) -> None:
        # Both terms are defined on cosines of items (arXiv 2007.12865 eq. 3, sec. 3.2).
        scorer = self.model.scorer
        if self.ssl.weight > 0 and (scorer, self.model.towers) != ("cosine", "mlp"):
            raise ValueError(
                "ssl.weight: the term compares cosines of two views after an MLP; set it to 0, or "
                f"model.scorer to cosine and model.towers to mlp (they are {scorer} and "
                f"{self.model.towers})"
            )
        if self.loss.spread_out != "none" and scorer != "cosine":
            raise ValueError(
                f"loss.spread_out: {self.loss.spread_out} is made of cosines; set it to none, or "
                f"model.scorer to cosine (it is {scorer})"
            )

    def _check_embedding(self, side: str, name: str) -> None:
        path, features = f"model.embeddings.{side}", getattr(self.data.features, side)
        if name not in features:
            known = ", ".join(features) or "none"
            raise ValueError(f"{path}: no {side} feature {name!r}; there are {known}")
        if features[name].kind == "dense":
            raise ValueError(f"{path}.{name}: a dense feature has no table")
        owner = features[name].share
        if owner is not None and self.model.shared_tables:
            raise ValueError(
                f"{path}.{name}: its table is that of the item feature {owner!r}; set "
                f"model.embeddings.item.{owner}, or model.shared_tables to false"
            )

    def embeddings(self, tables: Mapping[str, int]) -> dict[str, Embedding]:
        """Kinds of those tables (name -> values) that aren't `full`."""
        chosen = self.model.embeddings
        named: dict[str, Embedding] = {
            f"{side}.{name}": kind
            for side in ("item", "query", "context")
            for name, kind in getattr(chosen, side).items()
        }
        large = {n for n, values in tables.items() if values >= chosen.large_from}
        kinds = {n: named.get(n, chosen.large if n in large else None) for n in tables}
        return {n: kind for n, kind in kinds.items() if kind is not None and kind.kind != "full"}

    def _check_masking(self) -> None:
        hidden = self.hidden_features()
        if self.ssl.hidden_features == "id" and not hidden:
            raise ValueError(
                f"ssl.hidden_features: no item feature reads the id column "
                f"{self.data.items.id!r}; name the features"
            )
        if unknown := [n for n in hidden if n not in self.data.features.item]:
            known = ", ".join(self.data.features.item)
            raise ValueError(f"ssl.hidden_features: no item feature {unknown[0]!r}; it has {known}")
        if both := sorted({*hidden} & {*(self.ssl.mask_features or ())}):
            raise ValueError(
                f"ssl.hidden_features: {both[0]!r} is in ssl.mask_features too; keep one"
            )
        names = list(self.ssl.mask_features or self.shown_features())
        if len(set(names)) < len(names):
            raise ValueError(f"ssl.mask_features: names must be distinct, got {names}")
        if unknown := [n for n in names if n not in self.data.features.item]:
            known = ", ".join(self.data.features.item)
            raise ValueError(f"ssl.mask_features: no item feature {unknown[0]!r}; it has {known}")
        if not names:
            raise ValueError("ssl.hidden_features: hides every item feature; leave some")
        if self.ssl.masking != "none" and len(names) < 2:
            raise ValueError(
                f"ssl.masking: {self.ssl.masking} needs at least two features to mask, got {names}"
            )

    def _check_dropout(self) -> None:
        """Without masks, views differ by the values that they drop."""
        if self.ssl.masking != "none":
            return
        if self.ssl.dropout_rate == 0:
            raise ValueError(
                "ssl.masking: none with ssl.dropout_rate 0 makes two equal views; set a rate"
            )
        features = self.data.features.item
        if not any(features[name].kind == "multi" for name in self.shown_features()):
            raise ValueError(
                "ssl.masking: none makes two equal views, because values are dropped of "
                "multi-valued features alone and no item feature shown is one; take rfm or cfm"
            )

    def maskable_features(self) -> list[str]:
        """Names of the item features that SSL may mask, in the catalogue's order."""
        chosen = self.ssl.mask_features or tuple(self.shown_features())
        return [name for name in self.data.features.item if name in chosen]

    def shown_features(self) -> list[str]:
        """Names of the item features that SSL views show unless they mask them."""
        hidden = self.hidden_features()
        return [n for n in self.data.features.item if n not in hidden]

    def hidden_features(self) -> list[str]:
        """Names of the item features that neither SSL view shows."""
        if self.ssl.hidden_features != "id":
            return list(self.ssl.hidden_features)
        features = self.data.features.item
        return [n for n, f in features.items() if (f.column or n) == self.data.items.id]

    def num_masked(self) -> int:
        """Features masked in view 1: m of design section 5, in 1..k-1."""
        k = len(self.maskable_features())
        rate = self.ssl.mask_rate
        wanted = k // 2 + 1 if rate == "paper" else math.floor(rate * k + 0.5)
        return min(max(wanted, 1), max(k - 1, 1))
