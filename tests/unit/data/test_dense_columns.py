"""Numbers of any type become dense features, ids too."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prepare_serial import make_config, make_log, open_prepared
from twotower.core.errors import DataError
from twotower.data.columns import numbers


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.int64(), [2**60 + 1, None, -(2**63), 2**53 + 1]),
        (pa.uint64(), [2**64 - 1, 3]),
        (pa.int64(), [1_700_000_000_123_456_789, 0]),  # a stamp in nanoseconds
        (pa.decimal128(20, 2), [Decimal("123456789012345678.25"), None, Decimal("-0.5")]),
        (pa.decimal256(76, 2), [Decimal(10) ** 70, Decimal("1.5")]),
        (pa.bool_(), [True, None, False]),
        (pa.float32(), [1.5, None, -2.0]),
        (pa.null(), [None, None]),
    ],
    ids=str,
)
def test_numbers_are_rounded_and_never_refused(kind: pa.DataType, values: list[Any]) -> None:
    expected = [np.nan if value is None else float(value) for value in values]
    for column in (pa.array(values, kind), pa.chunked_array([values[:1], values[1:]], kind)):
        np.testing.assert_allclose(numbers(column), expected, rtol=1e-15, equal_nan=True)


def test_what_is_not_finite_is_missing() -> None:
    assert np.isnan(numbers(pa.array([float("inf"), float("nan"), None]))).all()


def rewrite_ids(folder: Path, column: str, paths: list[Path]) -> None:
    """Replace text ids by the number in them, times 2**52."""
    for path in paths:
        table = pq.read_table(path)
        texts = table[column].to_pylist()
        ids = pa.array([int(text.rpartition("-")[2]) << 52 for text in texts])
        pq.write_table(table.set_column(table.column_names.index(column), column, ids), path)


FEATURES = {
    "item": {"item_id": {"kind": "categorical"}, "number": {"kind": "dense", "column": "item_id"}},
    "query": {
        "query_id": {"kind": "categorical"},
        "number": {"kind": "dense", "column": "query_id"},
    },
}


def test_integer_ids_make_dense_features(tmp_path: Path) -> None:
    paths = make_log(tmp_path)
    rewrite_ids(tmp_path, "item_id", [*paths, tmp_path / "items.parquet"])
    rewrite_ids(tmp_path, "query_id", paths)
    prepared = open_prepared(make_config(tmp_path, features=FEATURES))
    weights = np.bincount(prepared.pairs("train").query, minlength=len(prepared.query_ids()))
    for side, ids, weight in (
        (prepared.item_side(), prepared.item_ids(), None),
        (prepared.query_side(), prepared.query_ids(), weights),
    ):
        stored = {feature.name: feature for feature in side.features}["number"].values
        raw = np.array([float(text) for text in ids])
        mean = np.average(raw, weights=weight)
        deviation = np.sqrt(np.average((raw - mean) ** 2, weights=weight))
        assert isinstance(stored, np.ndarray)
        np.testing.assert_allclose(stored, (raw - mean) / deviation, rtol=1e-5)


def test_dense_ids_of_text_are_refused(tmp_path: Path) -> None:
    make_log(tmp_path)
    of_items = {"item": FEATURES["item"], "query": {"query_id": {"kind": "categorical"}}}
    with pytest.raises(DataError, match=r"data\.features\.item\.number"):
        open_prepared(make_config(tmp_path, features=of_items))
    of_queries = {"item": {"item_id": {"kind": "categorical"}}, "query": FEATURES["query"]}
    with pytest.raises(DataError, match=r"data\.features: a `dense` feature reads ids .*query-num"):
        open_prepared(make_config(tmp_path, features=of_queries))
