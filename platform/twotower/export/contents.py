"""The files of an export from a trained model and its data, in memory.

Shape letters:
    N items    Q queries of the query table
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower.core.data_config import Feature
from twotower.core.storage import dump_json
from twotower.core.types import DEFAULT_ID, EncodedFeature, Int64, Ragged
from twotower.data.prepared import Prepared
from twotower.data.schema import column_of
from twotower.evaluation.ties import tie_keys, tie_ranks
from twotower.export.vocabularies import Vocabularies
from twotower.models.embeddings.table import Served
from twotower.models.two_tower import TwoTower
from twotower.runtime.best import Run
from twotower.runtime.results import FOLDER
from twotower.serving import files
from twotower.serving.features import FeatureSpec
from twotower.serving.sides import HistorySpec, bag_tensors
from twotower.serving.strings import Strings
from twotower.training.inputs import history_length
from twotower.training.questions import head, newest_first

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Contents:
    """What is written."""

    files: dict[str, bytes]
    tables: dict[str, Served]


def contents(run: Run, model: TwoTower, names: Sequence[str] | None) -> Contents:
    """All files of an export but the manifest.

    Args:
        run: where the model comes from.
        model: the best checkpoint's, on any device.
        names: of the items; None = they have only ids.
    """
    tables = {name: model.store.served(name) for name in model.store.tables}
    writer = _Writer(run, model, tables)
    features = writer.features()
    history = writer.history()
    found = {
        files.TABLES: {
            f"{name}/{key}": tensor
            for name, served in tables.items()
            for key, tensor in served.table.tensors.items()
        },
        files.TOWERS: _towers(model),
        files.VOCABULARIES: writer.vocabularies.tensors(),
        files.ITEMS: writer.items(names),
        files.QUERIES: writer.queries(),
    }
    document = {
        "run": run.record["name"],
        "fingerprints": run.record["fingerprints"],
        "step": run.step,
        "metrics": _metrics(run),
        "layers": len(model.item_tower.mlp.layers),
        "scorer": {"kind": run.config.model.scorer, "layers": _pair_layers(model)},
        "filter_seen": run.config.eval.filter_seen,
        "item_id": run.config.data.items.id,
        "names": names is not None,
        "features": features,
        "history": history and asdict(history),
        "vocabularies": writer.vocabularies.buckets(),
        "tables": {name: _description(served) for name, served in tables.items()},
    }
    tensors = {name: files.dump_tensors(arrays) for name, arrays in found.items()}
    return Contents({files.MODEL: dump_json(document), **tensors}, tables)


class _Writer:
    """One run's data, in the numbering of its served tables."""

    def __init__(self, run: Run, model: TwoTower, tables: dict[str, Served]) -> None:
        self._run, self._model = run, model
        self._prepared: Prepared = run.prepared
        self._shared = run.config.model.shared_tables
        self._item_side = self._prepared.item_side()
        self._query_side = self._prepared.query_side(shared_tables=self._shared)
        self._context_tables = self._prepared.context_tables(shared_tables=self._shared)
        self.vocabularies = Vocabularies(self._prepared, tables)

    def features(self) -> dict[str, list[dict[str, Any]]]:
        """Every feature as `model.json` describes it, in the order that its tower reads them."""
        known = self._prepared.features
        context = [
            self._sparse("context", name, "categorical", known.context[name], table)
            for name, table in self._context_tables.items()
        ]
        return {
            "item": [self._spec("item", f, known.item[f.name]) for f in self._item_side.features],
            "query": [
                self._spec("query", f, known.query[f.name]) for f in self._query_side.features
            ],
            "context": context,
        }

    def history(self) -> HistorySpec | None:
        """The history feature, if queries have one."""
        length = history_length(self._run.config)
        if length is None:
            return None
        ((name, table),) = self._prepared.history_tables(shared_tables=self._shared).items()
        model = self._run.config.model
        return HistorySpec(
            name, table, length, model.history, model.history_blocks, model.history_heads
        )

    def items(self, names: Sequence[str] | None) -> Tensors:
        """Tensors of `items.safetensors`."""
        ids = self._prepared.item_ids().tolist()
        found: Tensors = {
            "vectors": self._model.embed_items().cpu().numpy(),
            "tie_ranks": tie_ranks(tie_keys(ids)).astype(np.int32),
            **Strings.of(ids).tensors("ids"),
        }
        if names is not None:
            found |= Strings.of(names).tensors("names")
        history = self.history()
        if history is not None:
            share = self._prepared.features.query[history.name].share
            feature = next(f for f in self._item_side.features if f.name == share)
            assert isinstance(feature.values, Ragged)
            bags = self.vocabularies.served_ids(history.table, feature.values)
            found |= bag_tensors("history", bags)
        return found

    def queries(self) -> Tensors:
        """Tensors of `queries.safetensors`: every query as the test part asks it."""
        prepared = self._prepared
        seen = newest_first(
            [prepared.pairs("validation"), prepared.pairs("train")], prepared.num_queries
        )
        found: Tensors = {
            **Strings.of(prepared.query_ids().tolist()).tensors("ids"),
            "own_item": prepared.query_items().astype(np.int32),
            **_ragged("seen", seen),
        }
        history = self.history()
        if history is not None:
            found |= _ragged("history", head(seen, history.max_values))
        for feature in self._query_side.features:
            name = f"f.{feature.name}"
            if isinstance(feature.values, Ragged):
                bags = self.vocabularies.served_ids(feature.table, feature.values)
                found |= bag_tensors(name, bags)
            else:
                found[name] = feature.values
        for name, table in self._context_tables.items():
            ids = self._newest_context(name)
            bags = Ragged.from_lengths(np.ones(len(ids), dtype=np.int64), ids)
            found |= bag_tensors(f"f.{name}", self.vocabularies.served_ids(table, bags))
        return found

    def _newest_context(self, name: str) -> Int64:
        """int64 ``(Q,)``: of the newest pair of the last part that a query has pairs in."""
        found = np.full(self._prepared.num_queries, DEFAULT_ID, dtype=np.int64)
        for part in ("train", "validation", "test"):
            pairs = self._prepared.pairs(part)
            rows, first = np.unique(pairs.query, return_index=True)
            found[rows] = pairs.context[name][first]
        return found

    def _spec(self, side: str, encoded: EncodedFeature, feature: Feature) -> dict[str, Any]:
        if encoded.kind != "dense":
            return self._sparse(side, encoded.name, encoded.kind, feature, encoded.table)
        measured = self._prepared.manifest["features"][side][encoded.name]
        spec = FeatureSpec(
            encoded.name,
            "dense",
            column_of(encoded.name, feature),
            mean=measured["mean"],
            deviation=measured["deviation"],
        )
        return asdict(spec)

    def _sparse(
        self, side: str, name: str, kind: Any, feature: Feature, table: str
    ) -> dict[str, Any]:
        vocabulary = self.vocabularies.add(side, name, feature, table)
        column = column_of(name, feature)
        return asdict(FeatureSpec(name, kind, column, table, vocabulary, feature.max_values))


def _towers(model: TwoTower) -> Tensors:
    """Tensors of `towers.safetensors`: all dense weights of the model."""
    modules: dict[str, Any] = {
        "item_tower": model.item_tower.mlp.layers,
        "query_tower": model.query_tower.mlp.layers,
        "scorer": model.scorer,
        "history": model.history,
    }
    return {
        f"{name}.{key}": tensor.detach().cpu().numpy()
        for name, module in modules.items()
        if module is not None
        for key, tensor in module.state_dict().items()
    }


def _pair_layers(model: TwoTower) -> int:
    """Layers of the network over pairs, where the scorer has one."""
    pairs = model.scorer.pairs
    return 0 if pairs is None else len(pairs.hidden_layers)


def _description(served: Served) -> dict[str, Any]:
    table = served.table
    return {
        "kind": table.kind,
        "num_values": table.num_values,
        "width": table.width,
        "settings": table.settings,
    }


def _metrics(run: Run) -> dict[str, Any]:
    """Summaries of the evaluations that the run holds, by part."""
    parts = [part for part in ("validation", "test") if run.store.exists(f"{FOLDER}/{part}.json")]
    return {part: run.store.read_json(f"{FOLDER}/{part}.json")["summary"] for part in parts}


def _ragged(name: str, rows: Ragged) -> Tensors:
    return {name: rows.values.astype(np.int32), f"{name}.offsets": rows.offsets}
