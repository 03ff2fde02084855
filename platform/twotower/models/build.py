"""From a config and encoded features to a model: the one place that chooses modules by config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from twotower.core.config import ExperimentConfig
from twotower.core.types import EncodedFeature, Int64, Side
from twotower.models.alignment import Column, align
from twotower.models.embeddings.store import EmbeddingStore, merge_tables
from twotower.models.encoders import AttentionHistory, HistoryEncoder, MeanHistory
from twotower.models.features import SideTable
from twotower.models.scorers import GMF, Cosine, NeuMF, Scorer
from twotower.models.towers import Tower
from twotower.models.two_tower import Parts, TwoTower


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """What a model is built over, besides the config."""

    item: Side
    """The catalogue."""

    query: Side
    """The query table, without history and context features."""

    context: Mapping[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    """Context feature -> (table, rows of the table)."""

    value_counts: Mapping[str, Int64] = field(default_factory=dict[str, Int64])
    """Table -> int64 ``(V,)``, train rows of each value; of tables with tiers."""


def build(config: ExperimentConfig, inputs: ModelInputs) -> TwoTower:
    """Build a model on the CPU in float32; initial values depend on ``config.seed`` only."""
    history = _history(config, inputs.item)
    features = [*inputs.item.features, *inputs.query.features, *([history] if history else [])]
    tables = merge_tables(
        [(f.table, f.vocab_size) for f in features if f.kind != "dense"]
        + list(inputs.context.values())
    )
    model = config.model
    store = EmbeddingStore(
        tables,
        model.embed_dim,
        init_std=model.init_std,
        seed=config.seed,
        kinds=config.embeddings(tables),
        counts=inputs.value_counts,
    )
    items, queries = SideTable(inputs.item, store), SideTable(inputs.query, store)
    of_item = _columns(inputs.item.features, model.embed_dim)
    beside = [table for table, _ in inputs.context.values()] + ([history.table] if history else [])
    of_query = _columns(inputs.query.features, model.embed_dim)
    of_query += [(table, model.embed_dim) for table in beside]
    item_width, query_width = (sum(width for _, width in read) for read in (of_item, of_query))
    tail = (*model.hidden, model.out_dim) if model.towers == "mlp" else ()
    unit = model.scorer == "cosine"
    parts = Parts(
        store=store,
        items=items,
        queries=queries,
        item_tower=Tower((item_width, *tail), seed=config.seed, name="item_tower", unit=unit),
        query_tower=Tower((query_width, *tail), seed=config.seed, name="query_tower", unit=unit),
        context_offsets={name: store.offsets[table] for name, (table, _) in inputs.context.items()},
        history_items=SideTable(Side(inputs.item.num_rows, (history,)), store) if history else None,
        history=_encoder(config) if history else None,
        scorer=_scorer(config, item_width),
    )
    if model.tower_init == "aligned":
        align(parts.query_tower, parts.item_tower, (of_query, of_item))
    return TwoTower(parts, bf16=config.train.precision == "bf16")


def _columns(features: Sequence[EncodedFeature], dim: int) -> list[Column]:
    """What a tower reads of its side, in order: embeddings, then dense features."""
    sparse = [(f.table, dim) for f in features if f.kind != "dense"]
    return sparse + [(f"dense {f.name}", 1) for f in features if f.kind == "dense"]


def _scorer(config: ExperimentConfig, item_width: int) -> Scorer:
    """The scorer that the config asks for; the item tower's input has this width."""
    model = config.model
    width = model.out_dim if model.towers == "mlp" else item_width
    if model.scorer == "cosine":
        return Cosine()
    if model.scorer == "gmf":
        return GMF(width)
    return NeuMF(width, model.scorer_hidden, config.seed)


def _history(config: ExperimentConfig, item: Side) -> EncodedFeature | None:
    """The item feature that histories are looked up in, under the table of the history."""
    names = [n for n, f in config.data.features.query.items() if f.kind == "history"]
    if not names:
        return None
    share = config.data.features.query[names[0]].share
    shared = next(f for f in item.features if f.name == share)
    return shared if config.model.shared_tables else replace(shared, table=f"query.{names[0]}")


def _encoder(config: ExperimentConfig) -> HistoryEncoder:
    """The encoder of histories that the config asks for."""
    if config.model.history == "mean":
        return MeanHistory()
    longest = max(f.max_values for f in config.data.features.query.values() if f.kind == "history")
    model = config.model
    return AttentionHistory(
        model.embed_dim,
        longest,
        config.seed,
        num_blocks=model.history_blocks,
        num_heads=model.history_heads,
        dropout=model.history_dropout,
    )
