"""Features of synthetic items and queries: each follows the planted cluster, with noise.

    cluster -> category (two clusters share one) -> brand, words, price
    cluster -> tags of the item, interests of the query (one vocabulary)
    cluster -> segment of the query (two clusters share one, as categories do)

So several features tell of the same cluster, none tells all of it, and brand is the one most
correlated with category. Shares and sizes below are chosen, not tuned.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

COUNTRIES = ["US", "IN", "BR", "ID", "DE", "JP", "MX", "GB", "FR", "TR", "IT", "PL", "NG", "EG"]
"""Most frequent first: `countries` draws the one of rank r in proportion to 1 / r."""

ITEM_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("category", pa.string()),
        ("brand", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("words", pa.list_(pa.string())),
        ("price", pa.float32()),
    ]
)
"""``brand`` is null for about 2 % of items, ``tags`` empty for about 17 %; ``price`` > 0."""

QUERY_SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("segment", pa.string()),
        ("home_country", pa.string()),
        ("interests", pa.list_(pa.string())),
    ]
)
"""``interests`` are of the vocabulary of the items' ``tags``; empty for about 25 %."""

_CLUSTERS_PER_CATEGORY = 2
_BRANDS_PER_CATEGORY = 6
_TAGS_PER_CLUSTER, _COMMON_TAGS, _MAX_TAGS, _MAX_INTERESTS = 8, 32, 5, 3
_WORDS_PER_CATEGORY, _COMMON_WORDS, _MIN_WORDS, _MAX_WORDS = 16, 2048, 3, 8


def draws(seed: int, stream: int) -> np.random.Generator:
    """Open the random stream of a (seed, stream) pair, both in [0, 2**64); pairs don't overlap."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)))


def strings(
    prefix: str, numbers: NDArray[np.integer], missing: NDArray[np.bool_] | None = None
) -> pa.Array:
    """Write numbers as strings, ``q17`` for prefix ``q`` and 17; null where ``missing``."""
    digits = pa.array(numbers, mask=missing).cast(pa.string())
    return pc.call_function("binary_join_element_wise", [prefix, digits, ""])


def countries(rng: np.random.Generator, size: int) -> NDArray[np.int32]:
    """Draw ``size`` indices into `COUNTRIES`."""
    shares = np.cumsum(1.0 / np.arange(1, len(COUNTRIES) + 1))
    return np.searchsorted(shares[:-1], rng.random(size) * shares[-1]).astype(np.int32)


def item_features(
    rng: np.random.Generator, first: int, cluster: NDArray[np.int32], clusters: int
) -> pa.Table:
    """Draw the catalogue rows of items ``first``, ``first + 1``, ...: columns `ITEM_SCHEMA`.

    Args:
        rng: the block's own stream.
        first: number of the first item.
        cluster: (N,) planted clusters of the N items.
        clusters: clusters of the whole data set; noise is drawn among them.
    """
    size = len(cluster)
    category = _noisy(rng, cluster, clusters, keep=0.9) // _CLUSTERS_PER_CATEGORY
    shown = _noisy(rng, cluster, clusters, keep=0.9) // _CLUSTERS_PER_CATEGORY
    brand = shown * _BRANDS_PER_CATEGORY + _skewed(rng, _BRANDS_PER_CATEGORY, size)
    level = 2.0 + 3.0 * ((brand * 0.6180339887) % 1.0)  # brands spread evenly over log prices
    price = np.exp(rng.normal(level, 0.4)).astype(np.float32)
    columns = [
        strings("i", np.arange(first, first + size)),
        strings("c", category),
        strings("b", brand, missing=rng.random(size) < 0.02),
        _tag_lists(rng, cluster, max_count=_MAX_TAGS),
        _word_lists(rng, category),
        pa.array(np.maximum(price.round(2), np.float32(0.01))),
    ]
    return pa.table(columns, schema=ITEM_SCHEMA)


def query_features(
    rng: np.random.Generator,
    first: int,
    cluster: NDArray[np.int32],
    country: NDArray[np.int32],
    clusters: int,
) -> pa.Table:
    """Draw the rows of queries ``first``, ``first + 1``, ...: columns `QUERY_SCHEMA`.

    Args:
        rng: the block's own stream.
        first: number of the first query.
        cluster: (N,) planted clusters of the N queries.
        country: (N,) home countries, indices into `COUNTRIES`.
        clusters: clusters of the whole data set.
    """
    size = len(cluster)
    columns = [
        strings("q", np.arange(first, first + size)),
        strings("s", _noisy(rng, cluster, clusters, keep=0.8) // _CLUSTERS_PER_CATEGORY),
        pa.array(COUNTRIES).take(pa.array(country)),
        _tag_lists(rng, cluster, max_count=_MAX_INTERESTS),
    ]
    return pa.table(columns, schema=QUERY_SCHEMA)


def _noisy(
    rng: np.random.Generator, cluster: NDArray[np.int32], clusters: int, *, keep: float
) -> NDArray[np.int64]:
    """Replace a share ``1 - keep`` of clusters by any cluster."""
    other = rng.integers(clusters, size=len(cluster))
    return np.where(rng.random(len(cluster)) < keep, cluster, other)


def _skewed(rng: np.random.Generator, count: int, size: int) -> NDArray[np.int64]:
    """Draw from [0, count), low numbers more often (density falls as x ** -2/3)."""
    return (count * rng.random(size) ** 3).astype(np.int64)


def _places(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For lists of ``counts`` (N,) values: each value's list and its place in it, (sum,) each."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def _lists(counts: NDArray[np.int64], values: pa.Array) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _tag_lists(rng: np.random.Generator, cluster: NDArray[np.int32], *, max_count: int) -> pa.Array:
    """Draw 0 to ``max_count`` distinct tags each: 70 % of the own cluster, else common ones."""
    counts = rng.integers(max_count + 1, size=len(cluster))
    owner, place = _places(counts)
    # A random start and steps of one give distinct values, as lists are shorter than the pools.
    own = (rng.integers(_TAGS_PER_CLUSTER, size=len(cluster))[owner] + place) % _TAGS_PER_CLUSTER
    common = (_skewed(rng, _COMMON_TAGS, len(cluster))[owner] + place) % _COMMON_TAGS
    is_own = rng.random(len(owner)) < 0.7
    number = np.where(
        is_own, _COMMON_TAGS + cluster[owner].astype(np.int64) * _TAGS_PER_CLUSTER + own, common
    )
    return _lists(counts, strings("t", number))


def _word_lists(rng: np.random.Generator, category: NDArray[np.int64]) -> pa.Array:
    """Draw 3 to 8 distinct words each: half of the item's category, else of a common language."""
    counts = rng.integers(_MIN_WORDS, _MAX_WORDS + 1, size=len(category))
    owner, place = _places(counts)
    start = rng.integers(_WORDS_PER_CATEGORY, size=len(category))[owner]
    own = (start + place) % _WORDS_PER_CATEGORY
    # The place picks a residue class, so the common words of one list are distinct.
    common = _skewed(rng, _COMMON_WORDS // _MAX_WORDS, len(owner)) * _MAX_WORDS + place
    is_own = rng.random(len(owner)) < 0.5
    number = np.where(is_own, _COMMON_WORDS + category[owner] * _WORDS_PER_CATEGORY + own, common)
    return _lists(counts, strings("w", number))
