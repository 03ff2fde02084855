"""A FAISS index over the item vectors, and its recall against exact search.

Sizes are chosen, not tuned: they are a start that one measures from, and the recall stands beside.
"""

# The extra `ann` is imported where it is used; FAISS has no types.
# ruff: noqa: PLC0415
# pyright: reportMissingImports=false

from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np

from twotower.core.errors import InputError
from twotower.core.types import Float32, Float64, Int64

Kind = Literal["flat", "ivf_pq", "hnsw"]

INDEX = "index.faiss"
"""File of an export."""

_PER_CENTROID = 39
"""Vectors a centroid that FAISS wants to train on at least."""

_CHUNK = 256
"""Queries ranked at once when the recall is measured."""

_ROUNDING = 1e-6
"""Dot products that float32 can't tell apart, where both vectors have norm 1."""

_HNSW_LINKS, _HNSW_BUILD, _HNSW_SEARCH = 32, 200, 128


@dataclass(frozen=True, slots=True)
class Recall:
    """Share of the exact best K items that an index finds, the mean over queries."""

    kind: Kind
    k: int
    queries: int
    value: float
    bytes: int
    """Of the index."""


def check_kind(kind: str) -> Kind:
    """InputError where there is no such index, or the extra is not installed."""
    if kind not in get_args(Kind):
        raise InputError(f"index {kind!r}: must be one of {', '.join(get_args(Kind))}")
    _faiss()
    return cast("Kind", kind)


def check_scorer(scorer: str) -> None:
    """InputError where a model's scores are no dot products, which is all that an index knows."""
    if scorer == "neumf":
        raise InputError(
            "--index: model.scorer is neumf, whose scores are a network's and no dot products, so "
            "that no index finds them; export without it: `recommend` ranks the whole catalogue"
        )


def build_index(kind: Kind, items_ND: Float32, queries_QD: Float32, k: int) -> tuple[bytes, Recall]:
    """Build an index by inner product and measure it.

    Args:
        kind: `flat` is exact; `hnsw` is a graph over float32 vectors; `ivf_pq` keeps a byte for
            every four numbers, in lists of which an eighth is searched.
        items_ND: float32 ``(N, D)``; an item's place is its id in the index.
        queries_QD: float32 ``(Q, D)``: what the recall is measured with.
        k: best items looked for.

    Returns:
        The index as `faiss.write_index` writes it, and its recall.
    """
    faiss = _faiss()
    index = _make(faiss, kind, items_ND)
    index.add(items_ND)
    k = min(k, len(items_ND))
    asked = np.ascontiguousarray(queries_QD)
    longest = float(np.linalg.norm(items_ND, axis=1).max(initial=0))
    shares: list[Float64] = []
    for start in range(0, len(asked), _CHUNK):
        part = asked[start : start + _CHUNK]
        rounding_Q1 = _ROUNDING * longest * np.linalg.norm(part, axis=1, keepdims=True)
        shares.append(_share_found(part @ items_ND.T, index.search(part, k)[1], rounding_Q1))
    data = faiss.serialize_index(index).tobytes()
    value = float(np.concatenate(shares).mean()) if shares else 1.0
    return data, Recall(kind, k, len(queries_QD), value, len(data))


def _share_found(scores_QN: Float32, found_QK: Int64, rounding_Q1: Float32) -> Float64:
    """Share of each query's list that belongs to its best K; of equal scores any one does."""
    k = found_QK.shape[1]
    edge_Q = -np.partition(-scores_QN, k - 1, axis=1)[:, k - 1]
    scores_QK = np.take_along_axis(scores_QN, np.maximum(found_QK, 0), axis=1)
    return ((scores_QK >= edge_Q[:, None] - rounding_Q1) & (found_QK >= 0)).mean(axis=1)


def _make(faiss: Any, kind: Kind, items_ND: Float32) -> Any:
    num, width = items_ND.shape
    if kind == "flat":
        return faiss.IndexFlatIP(width)
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, _HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = _HNSW_BUILD, _HNSW_SEARCH
        return index
    parts = next(parts for parts in range(max(1, width // 4), 0, -1) if width % parts == 0)
    most = num // _PER_CENTROID
    if most < 2:
        raise InputError(
            f"index ivf_pq: {num} items are too few to learn from, it takes {2 * _PER_CENTROID}; "
            "use flat or hnsw"
        )
    lists = min(most, round(4 * num**0.5))
    bits = min(8, most.bit_length() - 1)
    index = faiss.IndexIVFPQ(
        faiss.IndexFlatIP(width), width, lists, parts, bits, faiss.METRIC_INNER_PRODUCT
    )
    index.nprobe = max(1, lists // 8)
    # Centroids of lists have norm 1, so that what is left of longer or shorter vectors is no
    # smaller than they are: of a tenth of that norm the recall fell from 0.5 to 0.05.
    index.by_residual = bool(np.allclose(np.linalg.norm(items_ND, axis=1), 1, atol=1e-3))
    index.train(items_ND)
    return index


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "an index needs FAISS, which is not installed: pip install 'twotower[ann]'"
        ) from error
    return faiss
