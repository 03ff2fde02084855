"""The `data` section: sources, features, vocabularies and the split."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from twotower.core.section import Count, Section, Text

_VOCABULARY = ("min_count", "max_size", "hash_buckets")
"""Keys that a feature with a shared vocabulary doesn't read."""

_UNREAD = {
    "categorical": ("max_values",),
    "multi": (),
    "dense": (*_VOCABULARY, "max_values"),
    "history": ("column",),
}
"""Keys that a feature doesn't read, by its kind."""

_ENDS = (".offsets", ".bytes", ".ids")
"""Ends of the names of arrays that are stored beside a feature's own."""


class Feature(Section):
    """One input column of a tower and how it becomes ids or numbers."""

    kind: Literal["categorical", "multi", "dense", "history"]
    """`categorical`: one value; `multi`: a bag of values (list column), averaged; `dense`: a
    number, standardised on the catalogue; `history`: the query's own earlier positives."""

    column: Text | None = None
    """Column read; the feature's own name when null. A `history` reads none."""

    min_count: Count = 1
    """Values seen fewer times become out of vocabulary (id 1)."""

    max_size: Count | None = None
    """Most values kept, most frequent first; null keeps all."""

    hash_buckets: Annotated[int, Field(ge=0)] = 0
    """Buckets that out-of-vocabulary values are hashed into, after the kept ids; 0 = one id for
    all."""

    max_values: Count = 64
    """Longest bag (`multi`, first values kept) or history (`history`, newest kept), in values."""

    share: Text | None = None
    """Name of the item feature whose vocabulary (and table) this one uses; query side only."""


class Interactions(Section):
    """The log: one row an observed (query, item) pair."""

    path: Text
    """File, folder or glob of shards, local or a URI; `bundled:debian/interactions` for the bundled
    graph."""

    format: Literal["parquet", "csv", "jsonl"] = "parquet"
    """Format of the shards. Files that start with `_` or `.` are ignored. In CSV an empty cell is
    null and nothing else is: `NA` and `null` are text, which a column of numbers may not hold. Ids
    and categories of CSV are text as written (`007` is no 7), and can't be `dense` too. In JSON
    lines null is null, and so is a key that a line lacks."""

    query: Text = "query_id"
    """Column of the query id."""

    item: Text = "item_id"
    """Column of the item id."""

    time: Text | None = None
    """Column of the time (integer or timestamp); null where the log has none."""


class Table(Section):
    """A table with one row an id: the catalogue of items, or of queries."""

    path: Text
    """File, folder or glob of shards."""

    format: Literal["parquet", "csv", "jsonl"] = "parquet"
    """Format of the shards, read as those of `data.interactions`."""

    id: Text = "item_id"
    """Column of the id; unique."""


class Features(Section):
    """Input features of the two towers, by name."""

    item: dict[str, Feature]
    """Features of the item tower, read from the catalogue."""

    query: dict[str, Feature]
    """Features of the query tower, read from the query table (or the catalogue where queries are
    items)."""

    context: dict[str, Feature] = Field(default_factory=dict)
    """Query-side features read from the log row itself (a country, a device)."""

    @model_validator(mode="after")
    def _check_each(self) -> "Features":
        sides = {"item": self.item, "query": self.query, "context": self.context}
        for side, features in sides.items():
            for name, feature in features.items():
                _check_name(f"{side}.{name}", name)
                _check_read(f"{side}.{name}", feature)
        return self

    @model_validator(mode="after")
    def _check(self) -> "Features":
        for name, feature in self.item.items():
            if feature.kind == "history" or feature.share is not None:
                raise ValueError(
                    f"item.{name}: an item feature can't be a history or share a vocabulary"
                )
        for name, feature in self.context.items():
            if feature.kind != "categorical":
                raise ValueError(f"context.{name}.kind: must be categorical, got {feature.kind}")
            if name in self.query:
                raise ValueError(f"context.{name}: the name is taken by a query feature")
            self._check_shared(f"context.{name}", feature)
        for name, feature in self.query.items():
            self._check_shared(f"query.{name}", feature)
        if not self.item:
            raise ValueError("item: the item tower needs at least one feature")
        if not self.query | self.context:
            raise ValueError("query: the query tower needs at least one feature")
        return self

    def _check_shared(self, path: str, feature: Feature) -> None:
        if feature.share is None:
            if feature.kind == "history":
                raise ValueError(f"{path}.share: a history needs the item feature its ids are of")
            return
        other = self.item.get(feature.share)
        if other is None:
            known = ", ".join(self.item)
            raise ValueError(f"{path}.share: no item feature {feature.share!r}; it has {known}")
        if other.kind == "dense" or feature.kind == "dense":
            raise ValueError(f"{path}.share: a dense feature has no vocabulary to share")


def _check_name(path: str, name: str) -> None:
    """Refuse a name that reads like another feature's file, table or array."""
    bad = "'/'" if "/" in name else next((f"{end!r}" for end in _ENDS if name.endswith(end)), None)
    if bad is not None:
        raise ValueError(
            f"{path}: the name of a feature can't {'hold' if '/' in name else 'end in'} {bad}; "
            f"give it another name and set `column: {name}`"
        )


def _check_read(path: str, feature: Feature) -> None:
    """Refuse a key that has no effect on a feature of this kind."""
    unread = dict.fromkeys(_UNREAD[feature.kind], f"is not read by a {feature.kind} feature")
    if feature.share is not None:
        unread |= dict.fromkeys(_VOCABULARY, f"is that of the item feature {feature.share!r}")
    for key, reason in unread.items():
        if getattr(feature, key) != Feature.model_fields[key].default:
            raise ValueError(f"{path}.{key}: {reason}; leave it out")


class Split(Section):
    """How distinct pairs are divided into train, validation and test."""

    kind: Literal["random", "per_query", "by_group", "time", "cold_items", "leave_last"] = "random"
    """`random`: by pair; `per_query`: each query's pairs; `by_group`: pairs of one unordered pair
    of groups together; `time`: global instants; `cold_items`: whole items; `leave_last`: each
    query's newest pair is test, the one before it validation, whatever the shares are. A pair has
    the time of its first row; its weight in training counts all of its rows, later ones too."""

    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of pairs (or groups, items) held out for validation."""

    test: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share held out for test."""

    column: Text | None = None
    """`by_group`: the catalogue column that names the group."""

    instants: tuple[int, int] | None = None
    """`time`: first instant of validation and of test, in the unit of the time column; null takes
    the quantiles that leave the shares above."""

    @model_validator(mode="after")
    def _check(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test must be below 1, got {self.validation + self.test:g}"
            )
        if (self.kind == "by_group") != (self.column is not None):
            raise ValueError("column: set exactly where kind is by_group")
        if self.instants is not None and (
            self.kind != "time" or self.instants[0] >= self.instants[1]
        ):
            raise ValueError("instants: two rising instants, and only where kind is time")
        return self


class Data(Section):
    """Sources, features, vocabulary and split: the identity of a prepared dataset."""

    interactions: Interactions
    items: Table
    queries: Table | Literal["items"] | None = None
    """Table of query features; `items` where queries are items; null where queries have an id
    only."""

    features: Features
    split: Split = Split()

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Fixes the split and the shuffle for good; `seed` at the top never touches them."""

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the train pairs kept (same split, same catalogue)."""

    positive: Text | None = None
    """Which rows count, as a SQL condition over columns of the log, such as `rating >= 7`."""

    min_query_pairs: Count = 1
    """Queries with fewer distinct pairs are left out, with their pairs, before the split; 1 keeps
    all."""

    undirected: bool = False
    """Each edge is listed once: split first, then mirrored inside each part. Needs `queries:
    items`."""

    on_bad_row: Literal["drop", "error"] = "drop"
    """Rows with a null id or time, or an item that the catalogue lacks: drop and count them, or
    refuse the first. A query that its table lacks is kept, without features; where edges are
    undirected its rows are bad."""

    max_dropped_share: Annotated[float, Field(ge=0, le=1)] = 0.001
    """Dropped share of the log's rows above which prepare stops (exit 2)."""

    lanes: Annotated[int, Field(ge=1, le=4096)] = 64
    """Lanes of the training order; batch sizes are multiples of it, workers at most as many."""

    @model_validator(mode="after")
    def _check(self) -> "Data":
        if self.undirected and self.queries != "items":
            raise ValueError("undirected: needs `queries: items`, since both ends are queries")
        if self.split.kind in ("time", "leave_last") and self.interactions.time is None:
            raise ValueError(
                f"split.kind: {self.split.kind} needs `interactions.time`, the column of the time"
            )
        if self.undirected and self.split.kind in ("per_query", "leave_last"):
            raise ValueError(
                f"split.kind: {self.split.kind} can't split undirected edges, each belongs to two "
                "queries; take `random` or `by_group`"
            )
        if self.undirected and self.min_query_pairs > 1:
            raise ValueError(
                "min_query_pairs: would leave out one direction of an undirected edge; set it to 1"
            )
        return self
