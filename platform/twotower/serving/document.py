"""`model.json` as it must be: every value of the type that the reader counts on.

A checksum says that a file is the one that was written, not that it was written by `export`.
"""

from collections.abc import Callable, Mapping
from typing import Any, get_args

from twotower.serving.scorers import Kind as ScorerKind
from twotower.serving.tables import Kind as TableKind

Check = Callable[[Any], bool]

_MOST_CENTROIDS = 1 << 16
_MOST_HASHES = 64
_LARGEST = 1e300


def check_document(document: Any) -> dict[str, Any]:
    """The document, if it can be read.

    Raises:
        ValueError: a key is missing or unknown, a value is of another type, or a feature names a
            table or vocabulary that isn't there; the key is named.
    """
    _check(document, _DOCUMENT, "model.json")
    tables, vocabularies = document["tables"], document["vocabularies"]
    for name, table in tables.items():
        _check(table["settings"], _SETTINGS[table["kind"]], f"tables.{name}.settings")
    for side, features in document["features"].items():
        for feature in features:
            sparse = feature["kind"] != "dense"
            known = feature["table"] in tables and feature["vocabulary"] in vocabularies
            if sparse and not known:
                raise ValueError(f"features.{side}.{feature['name']}: its table isn't there")
    history = document["history"]
    if history is not None and history["table"] not in tables:
        raise ValueError("history: its table isn't there")
    return document


def _check(value: Any, expected: Any, path: str) -> None:
    """Compare a value with a check, a list of one kind, a union, or the keys that it must have."""
    if isinstance(expected, list):
        if not isinstance(value, list):
            raise ValueError(f"{path} must be a list")
        for place, one in enumerate(value):
            _check(one, expected[0], f"{path}.{place}")
    elif isinstance(expected, Mapping):
        if not isinstance(value, dict):
            raise ValueError(f"{path} must be an object")
        every = expected.get("*")
        keys = value.keys() if every is not None else expected.keys()
        if value.keys() != keys:
            raise ValueError(f"{path} must have the keys {', '.join(expected)}")
        for key, one in value.items():
            _check(key, _text, path)
            _check(one, every if every is not None else expected[key], f"{path}.{key}")
    elif not expected(value):
        raise ValueError(f"{path} can't be {str(value)[:99]!r}")


def _text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= one <= "\udfff" for one in value)


def _flag(value: Any) -> bool:
    return type(value) is bool


def _whole(least: int, most: int = 1 << 53) -> Check:
    return lambda value: type(value) is int and least <= value <= most


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _one_of(*values: str) -> Check:
    return lambda value: isinstance(value, str) and value in values


def _history(value: Any) -> bool:
    if value is not None:
        _check(value, _HISTORY, "history")
    return True


_HISTORY = {
    "name": _text,
    "table": _text,
    "max_values": _whole(1),
    "encoder": _one_of("mean", "attention"),
    "blocks": _whole(1),
    "heads": _whole(1),
}
_SCORER = {"kind": _one_of(*get_args(ScorerKind)), "layers": _whole(0)}
_FEATURE = {
    "name": _text,
    "kind": _one_of("categorical", "multi", "dense"),
    "column": _text,
    "table": _text,
    "vocabulary": _text,
    "max_values": _whole(1),
    "mean": _number,
    "deviation": _positive,
}
_TABLE = {
    "kind": _one_of(*get_args(TableKind)),
    "num_values": _whole(1),
    "width": _whole(1),
    "settings": _object,
}
_SETTINGS: dict[str, Any] = {
    "full": {},
    "hashed": {"hashes": _whole(1, _MOST_HASHES), "buckets": _whole(1, 1 << 31)},
    "low_rank": {"rank": _whole(1)},
    "scalar": {"bits": _whole(4, 8)},
    "dpq": {"tiers": [{"rows": _whole(0), "centroids": [_whole(1, _MOST_CENTROIDS)]}]},
}
_DOCUMENT = {
    "run": _text,
    "fingerprints": _object,
    "step": _whole(0),
    "metrics": _object,
    "layers": _whole(0),
    "scorer": _SCORER,
    "filter_seen": _flag,
    "item_id": _text,
    "names": _flag,
    "features": {"item": [_FEATURE], "query": [_FEATURE], "context": [_FEATURE]},
    "history": _history,
    "vocabularies": {"*": _whole(0, 1 << 31)},
    "tables": {"*": _TABLE},
}
