"""A committed prepared dataset, opened for reading: its tables as NumPy arrays.

Shape letters:
    N items    Q queries    P pairs of a part    k item features
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from twotower.core.data_config import Feature, Features
from twotower.core.errors import DataError
from twotower.core.storage import MANIFEST, Store
from twotower.core.types import EncodedFeature, Float32, Float64, Int64, Ragged, Side
from twotower.data import committed, order

SCHEMA_VERSION = 1
"""Version of the layout; a dataset of another one has to be prepared again."""

ITEMS = "items.parquet"
QUERIES = "queries.parquet"

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Bucket:
    """One file of train rows: positions ``first .. first + rows - 1`` of the keyed permutation."""

    file: str
    rows: int
    first: int


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of one part, grouped by query ascending, within a query newest first."""

    query: Int64
    """int64 ``(P,)``: rows of the query table."""

    item: Int64
    """int64 ``(P,)``: rows of the catalogue."""

    weight: Float32
    """float32 ``(P,)``: times the pair was seen."""

    time: Int64 | None
    """int64 ``(P,)`` in the log's own unit; None where the log has no time."""

    context: dict[str, Int64]
    """Ids of the log's own features, by name."""


@dataclass(frozen=True, slots=True)
class MutualInformation:
    """Mutual information of item features over the catalogue."""

    features: tuple[str, ...]
    matrix: Float64
    """float64 ``(k, k)``, symmetric."""


class Prepared:
    """A prepared dataset. Tables are read when asked for and not kept.

    Methods with ``shared_tables`` name the embedding tables of a model: a feature that shares an
    item feature's vocabulary has that feature's table, or with false an equally large one of its
    own (`model.shared_tables`).
    """

    def __init__(self, store: Store, manifest: dict[str, Any]) -> None:
        """Use `open`, which checks the files first."""
        self.store = store
        self.manifest = manifest
        self.fingerprint: str = manifest["fingerprint"]
        self.lanes: int = manifest["lanes"]
        self.seed: int = manifest["data"]["seed"]
        """`data.seed`: what the training order is keyed by."""
        self.features = Features.model_validate(manifest["data"]["features"])
        self.buckets = tuple(Bucket(b["file"], b["rows"], b["first"]) for b in manifest["buckets"])
        self.num_items: int = manifest["files"][ITEMS]["rows"]
        self.num_queries: int = manifest["files"][QUERIES]["rows"]
        self.num_train = sum(bucket.rows for bucket in self.buckets)

    @classmethod
    def open(cls, path: str | Path | Store, verify: bool = False) -> "Prepared":
        """Open a committed dataset.

        Args:
            path: its directory, or a URI.
            verify: also compare the SHA-256 of every file; otherwise only the sizes.

        Raises:
            DataError: nothing was committed there, or by another version of the layout, or a file
                is missing, cut or (with ``verify``) changed; the file is named.
        """
        store = path if isinstance(path, Store) else Store(path)
        if not store.exists(MANIFEST):
            raise DataError(
                f"{store.uri}: holds no prepared dataset (no {MANIFEST}); run `twotower prepare`"
            )
        manifest = store.read_json(MANIFEST)
        version = manifest.get("schema_version") if isinstance(manifest, dict) else None
        if version != SCHEMA_VERSION:
            raise DataError(
                f"{store.uri}: written in layout {version}, but this version reads layout "
                f"{SCHEMA_VERSION}; run `twotower prepare` again"
            )
        committed.check_files(store, manifest["files"], verify)
        return cls(store, manifest)

    def item_side(self) -> Side:
        """Features of every catalogue item, in the order of the config."""
        return self._side(ITEMS, self.num_items, "item", self.features.item, True)

    def query_side(self, *, shared_tables: bool = True) -> Side:
        """Features of every query, in the order of the config, less history and context."""
        encoded = {n: f for n, f in self.features.query.items() if f.kind != "history"}
        return self._side(QUERIES, self.num_queries, "query", encoded, shared_tables)

    def query_items(self) -> Int64:
        """int64 ``(Q,)``: the catalogue row of the same thing, -1 where a query is no item."""
        return self._column(QUERIES, "item").astype(np.int64)

    def context_tables(self, *, shared_tables: bool = True) -> dict[str, str]:
        """Embedding table of each context feature, by name."""
        features = self.features.context
        return {n: _table("context", n, f, shared_tables) for n, f in features.items()}

    def history_tables(self, *, shared_tables: bool = True) -> dict[str, str]:
        """Embedding table of each history feature, by name."""
        features = {n: f for n, f in self.features.query.items() if f.kind == "history"}
        return {n: _table("query", n, f, shared_tables) for n, f in features.items()}

    def tables(self, *, shared_tables: bool = True) -> dict[str, int]:
        """Every embedding table of a model and its vocabulary size, reserved ids counted."""
        return {
            _table(side, name, feature, shared_tables): self._vocab_size(side, name, feature)
            for side, features in (
                ("item", self.features.item),
                ("query", self.features.query),
                ("context", self.features.context),
            )
            for name, feature in features.items()
            if feature.kind != "dense"
        }

    def item_counts(self) -> Int64:
        """int64 ``(N,)``: train rows of each item, the fraction applied."""
        return self._column(ITEMS, "count").astype(np.int64)

    def item_full_counts(self) -> Int64:
        """int64 ``(N,)``: rows of each item in the whole train part; what slices go by."""
        return self._column(ITEMS, "full_count").astype(np.int64)

    def item_ids(self) -> NDArray[np.object_]:
        """Item ids as text ``(N,)``, rising."""
        return self._column(ITEMS, "item_id")

    def query_ids(self) -> NDArray[np.object_]:
        """Query ids as text ``(Q,)``, ordered by the 64-bit hash of the id."""
        return self._column(QUERIES, "query_id")

    def groups(self) -> NDArray[np.object_] | None:
        """Each item's group as text or None ``(N,)``, where the split is by group."""
        if "group" not in committed.column_names(self.store, ITEMS):
            return None
        return self._column(ITEMS, "group")

    def pairs(self, part: Part) -> Pairs:
        """Distinct pairs of one part, both directions where edges are undirected."""
        table = self._pairs(part)
        columns = {name: table.column(name).to_numpy() for name in table.column_names}
        return Pairs(
            query=columns["query"].astype(np.int64),
            item=columns["item"].astype(np.int64),
            weight=columns["weight"].astype(np.float32),
            time=columns["time"].astype(np.int64) if "time" in columns else None,
            context={n: columns[f"c.{n}"].astype(np.int64) for n in self.features.context},
        )

    def positives(self, part: Part, dtype: type[np.signedinteger[Any]] = np.int64) -> Ragged:
        """Item rows of each query's pairs in one part, newest first: Q rows of ``dtype``."""
        table = self._pairs(part, ["query", "item"])
        query, item = table.column("query").to_numpy(), table.column("item").to_numpy()
        if (np.diff(query) < 0).any():
            raise DataError(f"{self.store.uri}/pairs/{part}-*.parquet: not grouped by query")
        lengths = np.bincount(query, minlength=self.num_queries)
        return Ragged.from_lengths(lengths, item.astype(dtype))

    def read_bucket(self, bucket: Bucket, lanes: Int64) -> dict[str, NDArray[Any]]:
        """Train rows of some lanes of a bucket, lane after lane, in the order of the file.

        Returns:
            Columns query and item int32, weight float32, ``c.<feature>`` int32 and, where a
            history feature exists, history_from int32; the arrays may be read-only.

        Raises:
            DataError: the file is missing or damaged (page checksums are compared).
        """
        rows = order.lane_rows(bucket.first, bucket.rows, self.lanes)
        table = committed.read_row_groups(self.store, bucket.file, lanes, rows)
        return {name: table.column(name).to_numpy() for name in table.column_names}

    def mutual_information(self, kind: Literal["raw", "normalised"]) -> MutualInformation:
        """Mutual information of the item features, raw or divided by the smaller entropy."""
        stored = self.store.read_json("mi.json")
        matrix = np.array(stored[kind], dtype=np.float64)
        return MutualInformation(tuple(stored["features"]), matrix)

    def profile(self) -> dict[str, Any]:
        """What preparation measured of the data: counts, degrees, leaks."""
        return self.store.read_json("profile.json")

    def _side(
        self, file: str, num_rows: int, side: str, features: Mapping[str, Feature], shared: bool
    ) -> Side:
        columns = committed.read_table(self.store, file, [f"f.{name}" for name in features])
        encoded = [
            self._encoded(side, name, feature, shared, columns.column(f"f.{name}"))
            for name, feature in features.items()
        ]
        return Side(num_rows, tuple(encoded))

    def _encoded(
        self, side: str, name: str, feature: Feature, shared: bool, column: pa.ChunkedArray
    ) -> EncodedFeature:
        if feature.kind == "dense":
            values: Float32 = column.to_numpy().astype(np.float32)
            return EncodedFeature(name, "dense", "", 0, values)
        kind: Literal["categorical", "multi"] = (
            "multi" if feature.kind == "multi" else "categorical"
        )
        table, size = _table(side, name, feature, shared), self._vocab_size(side, name, feature)
        return EncodedFeature(name, kind, table, size, committed.to_ragged(column))

    def _vocab_size(self, side: str, name: str, feature: Feature) -> int:
        return int(self.manifest["tables"][_table(side, name, feature, shared_tables=True)])

    def _pairs(self, part: Part, columns: list[str] | None = None) -> pa.Table:
        files = sorted(f for f in self.manifest["files"] if f.startswith(f"pairs/{part}-"))
        if not files:
            raise DataError(f"{self.store.uri}: its manifest names no pairs of the {part} part")
        return pa.concat_tables([committed.read_table(self.store, f, columns) for f in files])

    def _column(self, file: str, name: str) -> NDArray[Any]:
        return committed.read_table(self.store, file, [name]).column(name).to_numpy()


def _table(side: str, name: str, feature: Feature, shared_tables: bool) -> str:
    """Embedding table of a feature; with shared tables also the name of its vocabulary."""
    return f"item.{feature.share}" if feature.share and shared_tables else f"{side}.{name}"
