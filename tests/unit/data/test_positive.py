"""Which rows count depends on the row alone, whatever the cut of the log."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prepare_serial import make_config, make_log, open_prepared
from twotower.core.errors import ConfigError
from twotower.data import positive

ROWS = 60


@pytest.fixture(scope="module")
def batch() -> pa.RecordBatch:
    """Rows with ids as prepare reads them from Parquet: as dictionaries."""
    rng = np.random.default_rng(0)
    words = [None if n % 7 == 0 else f"q{n % 3}{'ab'[n % 2]}" for n in range(ROWS)]
    return pa.RecordBatch.from_pydict(
        {
            "rating": pa.array(rng.integers(0, 6, ROWS), mask=rng.random(ROWS) < 0.1),
            "ts": rng.permutation(ROWS),
            "query_id": pa.array(words).dictionary_encode(),
            "item_id": pa.array(words[::-1]).dictionary_encode(),
            "tags": pa.array([[1] * (n % 3) for n in range(ROWS)]),
            "Len": rng.integers(0, 6, ROWS),
            "shop": pa.array(["Agg", "Over"] * (ROWS // 2)),
        }
    )


BY_ROW = {
    "rating >= 3": lambda r: (r["rating"] or 0) >= 3,
    "rating IS NULL": lambda r: r["rating"] is None,
    "rating IN (1, 2) OR rating % 2 = 1": lambda r: r["rating"] in (1, 2, 3, 5),
    "round(rating / 2) > 1": lambda r: (r["rating"] or 0) > 2,
    "COALESCE(rating, 5) BETWEEN 4 AND 5": lambda r: r["rating"] in (None, 4, 5),
    "CASE WHEN rating > 3 THEN ts > 9 ELSE false END": lambda r: (
        (r["rating"] or 0) > 3 and r["ts"] > 9
    ),
    "query_id LIKE 'q1%'": lambda r: (r["query_id"] or "").startswith("q1"),
    "UPPER(query_id) = 'Q1A'": lambda r: r["query_id"] == "q1a",
    "LENGTH(query_id) > 0": lambda r: r["query_id"] is not None,
    "query_id < item_id": lambda r: (
        None not in (r["query_id"], r["item_id"]) and r["query_id"] < r["item_id"]
    ),
    "array_length(tags) = 2": lambda r: len(r["tags"]) == 2,
    "Len > 3 AND shop = 'Agg'": lambda r: r["Len"] > 3 and r["shop"] == "Agg",
    "shop = 'Over'": lambda r: r["shop"] == "Over",
}
"""Conditions and what they say of a row, as a loop would."""


@pytest.mark.parametrize("condition", BY_ROW)
def test_a_condition_agrees_with_a_loop_for_any_cut(condition: str, batch: pa.RecordBatch) -> None:
    positive.check(condition, batch.schema)
    columns = positive.columns_of(condition)
    expected = [bool(BY_ROW[condition](row)) for row in batch.to_pylist()]
    assert 0 < sum(expected) < ROWS
    for cut in (0, 1, 17, ROWS):
        parts = [batch.slice(0, cut), batch.slice(cut)]
        found = np.concatenate([positive.evaluate(condition, part, columns) for part in parts])
        assert found.tolist() == expected


@pytest.mark.parametrize(
    "condition",
    [
        "1 = 1",
        "rating >= avg(rating)",
        "max(rating) > 3",
        "rating > sum(round(rating)) / 9",
        "median(rating % 4) = 2",
        "quantile_cont(rating, 0.5) < rating",
        "covar(rating, ts) > 0",
        "count(*) > 3",
        "rating > 2 AND row_number() OVER () > 2",
        "rank() OVER (ORDER BY rating) > 2",
        "rating > lag(rating) OVER (ORDER BY ts)",
        "avg(rating) OVER (PARTITION BY query_id) > 2",
        "string_agg(query_id, '') = 'q1a'",
        "unnest(tags) = 1",
    ],
)
def test_a_condition_that_looks_beyond_its_row_is_refused(
    condition: str, batch: pa.RecordBatch
) -> None:
    with pytest.raises(ConfigError, match="must be about one row at a time"):
        positive.check(condition, batch.schema)


def test_a_value_that_can_not_be_evaluated_names_the_condition(batch: pa.RecordBatch) -> None:
    condition = "CAST(query_id AS INT) > 3"
    positive.check(condition, batch.schema)  # the type could hold numbers
    with pytest.raises(ConfigError, match=r"data\.positive: 'CAST.*conversion from `str`"):
        positive.evaluate(condition, batch, ["query_id"])


@pytest.mark.parametrize("condition", ["query_id LIKE '%-number-1%'", "device LIKE 'p%'"])
def test_text_of_ids_and_context_is_matched_in_prepare(condition: str, tmp_path: Path) -> None:
    column, _, pattern = condition.split()
    part = pattern.strip("'%")
    paths = make_log(tmp_path)
    values = [v for path in paths for v in pq.read_table(path)[column].to_pylist()]
    wanted = sum(part in (value or "") for value in values)
    prepared = open_prepared(make_config(tmp_path, positive=condition))
    assert 0 < prepared.manifest["counts"]["used_rows"] == wanted < 900
