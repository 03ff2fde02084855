"""The kinds of tables that are measured: in training on W1, and as they are served.

Shape letters:
    V values    E width of a row
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twotower.core.embedding_config import MGQE
from twotower.core.types import FIRST_ID
from twotower.models.embeddings import tiers
from twotower.serving.tables import ServedTable, shapes

FULL = "full"

LARGE: Mapping[str, tuple[str, ...]] = {
    "item": ("item_id", "developer", "tags", "title_tokens"),
    "query": ("query_id", "history_tags"),
}
"""W1's features of 5,000 values or more, by side: those whose tables are stored by a kind."""

_SHARE, _RANK = 0.125, 8
"""Hashed tables of an eighth of the rows, rows of an eighth of the width."""


def kinds(width: int) -> dict[str, dict[str, Any]]:
    """Config of each kind by its name here, for rows of so many numbers; not of full tables."""
    return {
        "hashed": {"kind": "hashed", "share": _SHARE},
        "low_rank": {"kind": "low_rank", "rank": max(1, width // _RANK)},
        "scalar_8": {"kind": "scalar", "bits": 8},
        "scalar_4": {"kind": "scalar", "bits": 4},
        "dpq_vq": {"kind": "dpq_vq"},
        "dpq_sx": {"kind": "dpq_sx"},
        "mgqe": {"kind": "mgqe"},
    }


def changes(kind: str, width: int) -> dict[str, Any]:
    """Changes of a config, by dotted path, that store all large tables of W1 by a kind."""
    if kind == FULL:
        return {}
    settings = kinds(width)[kind]
    return {
        f"model.embeddings.{side}": dict.fromkeys(features, settings)
        for side, features in LARGE.items()
    }


class Served(NamedTuple):
    """A served table of random contents, which cost the same to look up as any."""

    name: str
    settings: dict[str, Any]
    table: ServedTable


def served(num_values: int, width: int, seed: int = 0) -> Iterator[Served]:
    """A table of every kind; `dpq` is what both `dpq_vq` and `dpq_sx` are served as."""
    rng = np.random.default_rng(seed)
    for name, kind, settings in _settings(num_values, width):
        tensors = {
            tensor: _draw(rng, tensor, shape)
            for tensor, shape in shapes(kind, settings, num_values, width).items()
        }
        yield Served(name, settings, ServedTable(kind, num_values, width, settings, tensors))


def _settings(num_values: int, width: int) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Name, served kind, settings."""
    buckets = max(1, round(_SHARE * num_values))
    yield FULL, FULL, {}
    yield "hashed", "hashed", {"hashes": 2, "buckets": buckets}
    yield "low_rank", "low_rank", {"rank": max(1, width // _RANK)}
    for bits in (8, 4):
        yield f"scalar_{bits}", "scalar", {"bits": bits}
    yield "dpq", "dpq", {"tiers": [{"rows": num_values, "centroids": [256] * 8}]}
    yield "mgqe", "dpq", _tiers(num_values)


def _tiers(num_values: int) -> dict[str, Any]:
    found = tiers.assign(MGQE(kind="mgqe"), num_values, np.zeros(num_values, dtype=np.int64))
    both = zip(found.sizes, found.limits, strict=True)
    return {"tiers": [{"rows": rows, "centroids": list(limits)} for rows, limits in both]}


def _draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if name.startswith("codes"):
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.standard_normal(shape, dtype=np.float32)


def first_frequent(ranks: NDArray[Any], num_values: int) -> NDArray[np.int64]:
    """Ids of ranks from 0: the most frequent value has the first one, as tiers want it."""
    return np.minimum(ranks.astype(np.int64) + FIRST_ID, num_values - 1)
