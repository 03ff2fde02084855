"""What an export is tried on when it is opened: its arrays belong together, and both towers answer.

All of it raises ValueError or KeyError.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower.core.types import FIRST_ID, Float32
from twotower.serving.arrays import Tensors
from twotower.serving.features import Vocabulary
from twotower.serving.files import TABLES
from twotower.serving.model import Model
from twotower.serving.packing import UInt8, unpack
from twotower.serving.strings import Strings
from twotower.serving.tables import ServedTable, tier_bits

_CHUNK_CODES = 1 << 17
"""Codes unpacked at a time; bounds memory."""


def check_strings(strings: Strings, what: str, count: int | None = None) -> Strings:
    """Strings whose places are in their bytes, and as many as there must be."""
    data, offsets = strings.data, strings.offsets
    if data.dtype != np.uint8 or data.ndim != 1:
        raise ValueError(f"{what} has bytes of type {data.dtype}")
    _check_offsets(offsets, len(data), what, count)
    return strings


def check_tables(tables: Mapping[str, ServedTable]) -> None:
    """Codes that name centroids of their tier."""
    for name, table in tables.items():
        if table.kind == "dpq":
            for n, tier in enumerate(table.settings["tiers"]):
                _check_codes(table.tensors[f"codes.{n}"], tier, f"{name}/codes.{n}")


def check_items(tensors: Tensors, num_items: int) -> None:
    """The arrays of the items; a row each."""
    vectors = tensors["vectors"]
    if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != num_items:
        raise ValueError(f"vectors are {vectors.dtype} {vectors.shape} for {num_items} items")
    ranks = tensors["tie_ranks"]
    if ranks.dtype != np.int32 or ranks.shape != (num_items,):
        raise ValueError(f"tie_ranks are {ranks.dtype} {ranks.shape} for {num_items} items")


def check_queries(tensors: Tensors, num_queries: int, num_items: int) -> None:
    """The arrays of the known queries; a row each, and items that there are."""
    own, seen = tensors["own_item"], tensors["seen"]
    if own.shape != (num_queries,):
        raise ValueError(f"own_item is {own.shape} for {num_queries} queries")
    _check_ids(own, -1, num_items, "own_item")
    _check_offsets(tensors["seen.offsets"], len(seen), "seen", num_queries)
    _check_ids(seen, 0, num_items, "seen")


def check_features(model: Model, items: Tensors, queries: Tensors) -> None:
    """Vocabularies and stored ids that are in their tables, a row for each item and query."""
    num_items, num_queries = len(items["vectors"]), len(queries["own_item"])
    for side in (model.items.side, model.queries, model.context):
        for spec in side.features:
            if spec.kind != "dense":
                size = side.tables[spec.table].num_values
                _check_vocabulary(side.vocabularies[spec.vocabulary], size, spec.vocabulary)
    for side in (model.queries, model.context):
        for spec in side.features:
            name = f"f.{spec.name}"
            if spec.kind != "dense":
                _check_bags(queries, name, num_queries, side.tables[spec.table].num_values)
            elif queries[name].dtype != np.float32 or queries[name].shape != (num_queries,):
                raise ValueError(f"{name} is {queries[name].dtype} {queries[name].shape}")
    if model.history:
        values = queries["history"]
        _check_offsets(queries["history.offsets"], len(values), "history", num_queries)
        _check_ids(values, 0, num_items, "history")
        _check_bags(items, "history", num_items, model.history_table.num_values)


def check_towers(model: Model, queries: Tensors, num_queries: int, vectors: Float32) -> None:
    """Embed an item and a query of which nothing is known and the first known query; score one."""
    found = [model.items.embed(model.items.side.encode([{}]))]
    if num_queries:
        asked = model.stored_queries(queries, np.zeros(1, dtype=np.int64))
        found.append(model.embed_queries(asked))
    found.append(model.embed_queries(model.encode_nothing()))
    for one in found:
        if one.dtype != np.float32 or one.shape != (1, vectors.shape[1]):
            raise ValueError(f"a tower gives {one.dtype} {one.shape}, items have {vectors.shape}")
    score = model.scorer.score.exact(found[-1][0], found[0], np.zeros(1, dtype=np.int64))
    if not np.isfinite(score).all():
        raise ValueError("the score of a pair is not finite")


def _check_codes(packed: UInt8, tier: Mapping[str, Any], what: str) -> None:
    limits, rows = np.array(tier["centroids"]), tier["rows"]
    if not (limits & (limits - 1)).any():
        return  # powers of two: their bits can't hold a larger code
    step = max(1, _CHUNK_CODES // len(limits))
    for start in range(0, rows, step):
        ids = np.arange(start, min(start + step, rows))
        largest = unpack(packed, ids, tier_bits(tier)).max(axis=0)
        if (wrong := largest >= limits).any():
            at = int(np.argmax(wrong))
            raise ValueError(
                f"{TABLES}: {what!r} names centroid {largest[at]} of column {at}, which has "
                f"{limits[at]}"
            )


def _check_vocabulary(known: Vocabulary, num_values: int, name: str) -> None:
    entries = len(known.values) + known.hash_buckets
    if known.ids is not None:
        _check_ids(known.ids, FIRST_ID, num_values, name)
    found = num_values - FIRST_ID if known.ids is None else len(known.ids)
    if found < entries:
        raise ValueError(f"{name} has {entries} values and buckets, and ids for {found}")


def _check_bags(tensors: Tensors, name: str, num_rows: int, num_values: int) -> None:
    values, offsets = tensors[name], tensors.get(f"{name}.offsets")
    if offsets is not None:
        _check_offsets(offsets, len(values), name, num_rows)
    elif len(values) != num_rows:
        raise ValueError(f"{name} has {len(values)} rows, not {num_rows}")
    _check_ids(values, 0, num_values, name)


def _check_offsets(
    offsets: NDArray[Any], size: int, what: str, num_rows: int | None = None
) -> None:
    whole = offsets.dtype == np.int64 and offsets.ndim == 1 and len(offsets) > 0
    if not whole or offsets[0] != 0 or offsets[-1] != size or (np.diff(offsets) < 0).any():
        raise ValueError(f"the offsets of {what} don't rise from 0 to {size}")
    if num_rows is not None and len(offsets) != num_rows + 1:
        raise ValueError(f"{what} has {len(offsets) - 1} rows, not {num_rows}")


def _check_ids(ids: NDArray[Any], least: int, count: int, what: str) -> None:
    if ids.dtype != np.int32 or ids.ndim != 1:
        raise ValueError(f"{what} is {ids.dtype} {ids.shape}, not a list of int32")
    if len(ids) and (ids.min() < least or ids.max() >= count):
        raise ValueError(f"{what} names rows that are not among the {count}")
