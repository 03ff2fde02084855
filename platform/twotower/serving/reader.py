"""A model as it is served: looks up, embeds and recommends. NumPy and safetensors only.

export = Export.open("runs/debian-1a2b3c4d/export")
export.recommend("vim", 10)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twotower.core.errors import DataError, InputError
from twotower.core.types import Float32, Int64, Ragged
from twotower.serving import files
from twotower.serving.arrays import Tensors
from twotower.serving.checks import (
    check_features,
    check_items,
    check_queries,
    check_strings,
    check_tables,
    check_towers,
)
from twotower.serving.document import check_document
from twotower.serving.features import Record, Vocabulary, shown
from twotower.serving.model import Model
from twotower.serving.ranking import Ranking
from twotower.serving.strings import Strings
from twotower.serving.tables import ServedTable


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One item of a list."""

    item: str
    """Its id."""

    name: str
    """As people call it; the id where the export holds no names."""

    score: float
    """As the model scores the pair: the cosine of their vectors, unless its scorer is another."""


class Export:
    """An opened export. `open` makes it; nothing in it is written to."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        """Use checked files; `open` reads them."""
        self.document = check_document(files.parse_json(contents, files.MODEL))
        """`model.json`: where the model comes from, how it is built, what it measured."""

        self._items = files.parse_tensors(contents, files.ITEMS)
        self._queries = files.parse_tensors(contents, files.QUERIES)
        tensors = files.parse_tensors(contents, files.TABLES)
        self.tables = {n: _table(n, one, tensors) for n, one in self.document["tables"].items()}
        """Embedding tables by name."""

        check_tables(self.tables)
        vocabularies = files.parse_tensors(contents, files.VOCABULARIES)
        known = {
            name: Vocabulary.read(vocabularies, name, buckets)
            for name, buckets in self.document["vocabularies"].items()
        }
        for name, one in known.items():
            check_strings(one.values, name)
        towers = files.parse_tensors(contents, files.TOWERS)
        self.model = Model(self.document, self.tables, known, towers, self._items)
        """Both towers, over encoded features too."""

        self.vectors: Float32 = self._items["vectors"]
        """float32 ``(N, X)``: every catalogue item's vector, of norm 1 where the score is a cosine.
        With `gmf` the score is their dot product, with `neumf` none: only `recommend` ranks."""

        self.item_ids = check_strings(Strings.from_tensors(self._items, "ids"), "items")
        """Ids of the catalogue, in the order of `vectors`."""

        self.item_names = self.item_ids
        if self.document["names"]:
            named = Strings.from_tensors(self._items, "names")
            self.item_names = check_strings(named, "names", len(self.item_ids))
        self.query_ids = check_strings(Strings.from_tensors(self._queries, "ids"), "queries")
        """Ids of the queries that were known in training."""

        num_items, num_queries = len(self.item_ids), len(self.query_ids)
        check_items(self._items, num_items)
        check_queries(self._queries, num_queries, num_items)
        check_features(self.model, self._items, self._queries)
        check_towers(self.model, self._queries, num_queries, self.vectors)
        score = self.model.scorer.score
        self._ranking = Ranking(score, self.vectors, self._items["tie_ranks"])

    @classmethod
    def open(cls, path: str | Path) -> "Export":
        """Open an export, every file checked against its manifest, and ask each tower once.

        Args:
            path: local folder, or a URI such as `s3://bucket/export`, which takes pyarrow.

        Raises:
            DataError: no export stands there, it is of another layout, or a file is missing, cut
                or changed; the message names the file and the mend.
        """
        contents = files.read_files(path)
        try:
            return cls(contents)
        except DataError as error:
            raise DataError(f"{path}/{error}") from error
        except (
            LookupError, TypeError, ValueError, AttributeError, ArithmeticError, InputError,
        ) as error:  # fmt: skip
            raise DataError(
                f"{path}: its files don't belong together ({error}); export the run again "
                "(`twotower export RUN`)"
            ) from error

    def lookup(self, table: str, ids: Int64) -> Float32:
        """Rows of an embedding table: float32 ``(n, E)``, bitwise as they were evaluated.

        Args:
            table: name of the table, such as `item.category`.
            ids: int64 ``(n,)``: 0 = missing, 1 = unknown, known values from 2 on, as the export's
                vocabularies number them.

        Raises:
            InputError: there is no such table, or an id is not in it.
        """
        if table not in self.tables:
            raise InputError(f"table {table!r}: there is none; it has {', '.join(self.tables)}")
        try:
            asked = np.asarray(ids)
            if asked.ndim != 1 or (len(asked) and asked.dtype.kind not in "iu"):
                raise IndexError("ids must be a list of integers")
            return self.tables[table].rows(asked.astype(np.int64))
        except (IndexError, ValueError) as error:
            raise InputError(f"table {table!r}: {error}") from error

    def embed_items(self, records: Sequence[Record]) -> Float32:
        """Vectors of items, in the catalogue or not: float32 ``(n, X)``, as `vectors` are.

        Args:
            records: raw values by column; a column that is not there is a missing value.

        Raises:
            InputError: a value is of the wrong type, or a record has no column of the item tower.
        """
        return self.model.embed_items(records)

    def embed_queries(self, records: Sequence[Record]) -> Float32:
        """Vectors of queries, known or not: float32 ``(n, X)``.

        Args:
            records: raw values by column, of the query's own features and of the log's; under the
                name of the history feature the ids of its items, newest first. Items that the
                catalogue lacks are passed over.

        Raises:
            InputError: as `embed_items`.
        """
        return self.model.embed_queries(self.model.encode_queries(records, self.item_ids))

    def embed_known(self, queries: Sequence[str]) -> Float32:
        """Vectors of queries of the training data by id: float32 ``(n, X)``.

        History and context are those that the test part was asked with.

        Raises:
            InputError: an id is not known.
        """
        rows = self.query_ids.find([self._id(one, "query") for one in queries])
        if (rows < 0).any():
            unknown = queries[int(np.argmax(rows < 0))]
            raise InputError(
                f"query {shown(unknown)}: not in the training data; give its features as a record"
            )
        return self.model.embed_queries(self.model.stored_queries(self._queries, rows))

    def recommend(
        self,
        query: str | Record,
        k: int = 10,
        *,
        filter_seen: bool | None = None,
        seen: Iterable[str] = (),
    ) -> list[Recommendation]:
        """The best items for a query, best first. A known query that is an item never gets itself.

        Args:
            query: id of a known query, or the raw values of any.
            k: most items.
            filter_seen: leave out what a known query had in train and validation; by default as
                the run was evaluated.
            seen: ids of more items to leave out.

        Raises:
            InputError: the id is not known, a value can't be used, or k is below 1.
        """
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise InputError(f"k {shown(k)}: must be a whole number of items, at least one")
        if isinstance(seen, (str, bytes)) or not isinstance(seen, Iterable):
            raise InputError(f"seen: {shown(seen)} must be a list of item ids")
        left_out = [self.item_ids.find([self._id(one, "seen") for one in seen])]
        if isinstance(query, str):
            (vector,) = self.embed_known([query])
            row = int(self.query_ids.find([query])[0])
            left_out.append(self._queries["own_item"][row : row + 1])
            if self.document["filter_seen"] if filter_seen is None else filter_seen:
                past = Ragged(self._queries["seen.offsets"], self._queries["seen"])
                left_out.append(past.row(row))
        elif isinstance(query, Mapping):
            (vector,) = self.embed_queries([query])
        else:
            raise InputError(f"query {shown(query)}: must be the id of a known query, or a record")
        rows = np.concatenate(left_out).astype(np.int64)
        items, scores = self._ranking.best(vector, rows[rows >= 0], int(k))
        return [
            Recommendation(self.item_ids[item], self.item_names[item], score)
            for item, score in zip(items.tolist(), scores.tolist(), strict=True)
        ]

    @staticmethod
    def _id(value: Any, what: str) -> str:
        if not isinstance(value, str):
            raise InputError(f"{what}: {shown(value)} must be an id, which is text")
        return value


def _table(name: str, described: Mapping[str, Any], tensors: Tensors) -> ServedTable:
    prefix = f"{name}/"
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return ServedTable(**described, tensors=own)
