"""What the config asks of each source's columns, and the check of every shard against it.

All shards are checked before any work, and all that is wrong is said at once.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from twotower.core.data_config import Data, Feature, Table
from twotower.core.errors import ConfigError, DataError
from twotower.data.shards import Shard, list_shards
from twotower.data.sources import Inspected

Role = Literal["id", "category", "bag", "number", "time", "any"]
SourceName = Literal["interactions", "items", "queries"]

ROLES: dict[str, Role] = {"categorical": "category", "multi": "bag", "dense": "number"}
"""By kind of feature."""

_ACCEPTED: dict[Role, tuple[str, ...]] = {
    "id": ("text", "integer"),
    "category": ("text", "integer", "boolean", "date", "timestamp"),
    "bag": ("list of text", "list of integer", "list of boolean", "list of null"),
    "number": ("integer", "float", "boolean", "decimal"),
    "time": ("integer", "date", "timestamp"),
}
_MENDS: dict[Role, str] = {
    "id": "an id is text or an integer",
    "category": "`categorical` takes text, integers, booleans; a list is `multi`, a float `dense`",
    "bag": "`multi` takes a list of text or integers; one value a row is `categorical`",
    "number": "`dense` takes numbers; text is `categorical`",
    "time": "a time is an integer or a timestamp",
}
_NUMBERS = {"integer", "float"}
"""What a condition may read from one shard or another: SQL compares and divides both alike."""

_SHOWN = 20
"""Most problems listed in one message."""


@dataclass(frozen=True, slots=True)
class Need:
    """A column that the config reads."""

    column: str
    role: Role
    key: str
    """Dotted key of the config that names the column."""


def column_of(name: str, feature: Feature) -> str:
    """Column a feature is read from."""
    return feature.column or name


def reads_query_id(data: Data, name: str, feature: Feature) -> bool:
    """Whether a query feature is the query's id itself, whatever tables say."""
    column = column_of(name, feature)
    if isinstance(data.queries, Table):
        return column == data.queries.id
    if data.queries == "items":
        return column == data.items.id
    return column == data.interactions.query


def needs_of(data: Data, positive_columns: Sequence[str]) -> dict[SourceName, list[Need]]:
    """Columns read from each source.

    Args:
        data: the config.
        positive_columns: columns that `data.positive` names.

    Raises:
        ConfigError: a query feature reads a column, but queries have only an id.
    """
    log = data.interactions
    needs: dict[SourceName, list[Need]] = {
        "interactions": [
            Need(log.query, "id", "data.interactions.query"),
            Need(log.item, "id", "data.interactions.item"),
            *([Need(log.time, "time", "data.interactions.time")] if log.time else []),
            *_feature_needs("context", data.features.context),
            *[Need(name, "any", "data.positive") for name in positive_columns],
        ],
        "items": [
            Need(data.items.id, "id", "data.items.id"),
            *_feature_needs("item", data.features.item),
        ],
    }
    if data.split.column is not None:
        needs["items"].append(Need(data.split.column, "category", "data.split.column"))
    own = {
        name: feature
        for name, feature in data.features.query.items()
        if feature.kind != "history" and not reads_query_id(data, name, feature)
    }
    if isinstance(data.queries, Table):
        needs["queries"] = [Need(data.queries.id, "id", "data.queries.id")]
    elif data.queries is None and own:
        name = min(own)
        raise ConfigError(
            f"data.features.query.{name}: queries have only an id (column {log.query!r}); for "
            f"column {column_of(name, own[name])!r} set data.queries to a table, or to `items`"
        )
    needs["queries" if isinstance(data.queries, Table) else "items"] += _feature_needs("query", own)
    return needs


def list_sources(data: Data, needs: dict[SourceName, list[Need]]) -> dict[SourceName, list[Shard]]:
    """Shards of each source; DataError names the key of one that is missing."""
    found: dict[SourceName, list[Shard]] = {}
    for name, own in needs.items():
        source = getattr(data, name)
        texts = _columns(own, "id", "category")
        numbers, others = _columns(own, "number"), _columns(own, "bag", "time", "any")
        found[name] = list_shards(
            source.path,
            source.format,
            texts,
            f"data.{name}.path",
            numbers=numbers,
            others=others,
        )
    return found


def check_shards(shards: Sequence[Inspected], needs: Sequence[Need]) -> list[str]:
    """Everything that is wrong with a source's shards, one line each, files named."""
    problems = [f"{s.shard.path}: {s.error}" for s in shards if s.error]
    sound = [s for s in shards if not s.error and s.schema.names]
    for need in _distinct(needs):
        problems += _check_column(sound, need)
    return problems


def refuse(problems: Sequence[str]) -> None:
    """Raise one DataError that lists the problems, if there are any."""
    if problems:
        more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise DataError("\n".join([*problems[:_SHOWN], *more]))


def nearest(name: str, known: Iterable[str], told: Iterable[str] | None = None) -> str:
    """A hint with the known name that one was perhaps meant to be.

    Without one near it lists ``told``, by default all.
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    listed = names if told is None else told
    return f"did you mean {close[0]!r}?" if close else f"it has {', '.join(listed)}"


def family(kind: pa.DataType) -> str:
    """What a column type holds, widths and encodings aside."""
    if pa.types.is_dictionary(kind):
        return family(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"list of {family(kind.value_type)}"
    if pa.types.is_timestamp(kind):
        return f"timestamp[{kind.unit}{', with a zone' if kind.tz else ''}]"
    for name, test in (
        ("text", pa.types.is_string),
        ("text", pa.types.is_large_string),
        ("integer", pa.types.is_integer),
        ("float", pa.types.is_floating),
        ("boolean", pa.types.is_boolean),
        ("decimal", pa.types.is_decimal),
        ("date", pa.types.is_date),
        ("null", pa.types.is_null),
    ):
        if test(kind):
            return name
    return str(kind)


def _feature_needs(side: str, features: dict[str, Feature]) -> list[Need]:
    return [
        Need(column_of(name, feature), ROLES[feature.kind], f"data.features.{side}.{name}")
        for name, feature in features.items()
    ]


def _columns(needs: Sequence[Need], *roles: Role) -> frozenset[str]:
    return frozenset(need.column for need in needs if need.role in roles)


def _distinct(needs: Sequence[Need]) -> list[Need]:
    return list({(need.column, need.role): need for need in needs}.values())


def _check_column(shards: Sequence[Inspected], need: Need) -> list[str]:
    """Problems of one column: missing in a shard, of another type, or of no use for its role."""
    problems: list[str] = []
    first: tuple[str, str] | None = None
    for inspected in shards:
        path, schema = inspected.shard.path, inspected.schema
        if need.column not in schema.names:
            hint = nearest(need.column, schema.names)
            problems.append(f"{path}: no column {need.column!r} ({need.key}); {hint}")
            continue
        if schema.names.count(need.column) > 1:
            problems.append(f"{path}: two columns are named {need.column!r} ({need.key})")
            continue
        found = family(schema.field(need.column).type)
        if found == "null" or (found == "list of null" and need.role == "bag"):
            continue
        column = f"{path}: column {need.column!r} is {found}"
        if found == "text" and need.column in inspected.strange:
            column += f", such as {inspected.strange[need.column]!r}"
        if first is None:
            first = found, path
            if need.role != "any" and found.split("[")[0] not in _ACCEPTED[need.role]:
                problems.append(f"{column} ({need.key}); {_MENDS[need.role]}")
        elif found != first[0] and not (need.role == "any" and {found, first[0]} == _NUMBERS):
            problems.append(f"{column}, but {first[0]} in {first[1]}")
    return problems
