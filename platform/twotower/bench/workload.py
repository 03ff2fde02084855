"""The data of workload W1: a log with ids, an item catalogue and a query table, seeded.

Written below the folder given: `w1/log/part-NNN.parquet` (query_id, country, history_tags,
item_id, ts), `w1/items.parquet` (item_id, category, developer, tags, title_tokens),
`w1/queries.parquet` (query_id, history_tags) and, last, `w1/workload.json`.

Ids are integers, frequent ones by Zipf's law; what is clicked is random, so a loss stays near
ln(batch). The peers look up the list `history_tags` of each row. Our log rows carry ids only, so
the query table has one list a query, its length and tags drawn from the same distributions. A few
busy queries have most rows, so of `_DRAWS` draws of the lengths the one is taken whose mean over
the rows is nearest to that of the rows' own lists: an example looks up the same number of tags on
average (`values_per_example` of `workload.json`: 3.0 in both).

`python -m twotower.bench.workload FOLDER` writes it, once.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from twotower.core.errors import DataError
from twotower.core.storage import Store

RECORD = "w1/workload.json"
"""Written last: a folder that has it is complete."""

_ZIPF_EXPONENT = 1.05
_FIRST_S, _LAST_S = 1_700_000_000, 1_710_000_000
_MOST = {"history_tags": 5, "tags": 5, "title_tokens": 8}
_DRAWS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Sizes of the workload, each >= 1, and its seed; the defaults are W1's."""

    rows: int = 2_000_000
    items: int = 200_000
    queries: int = 100_000
    categories: int = 500
    developers: int = 20_000
    tags: int = 5_000
    tokens: int = 30_000
    countries: int = 50
    shards: int = 8
    """Files of the log."""
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "seed" and getattr(self, field.name) < 1:
                raise DataError(
                    f"workload: {field.name} must be >= 1, got {getattr(self, field.name)}"
                )

    def features(self) -> dict[str, list[tuple[str, int, int]]]:
        """By side, in the towers' order: name, distinct values, most values a row."""
        return {
            "query": [
                ("query_id", self.queries, 1),
                ("country", self.countries, 1),
                ("history_tags", self.tags, _MOST["history_tags"]),
            ],
            "item": [
                ("item_id", self.items, 1),
                ("category", self.categories, 1),
                ("developer", self.developers, 1),
                ("tags", self.tags, _MOST["tags"]),
                ("title_tokens", self.tokens, _MOST["title_tokens"]),
            ],
        }


def write_workload(folder: Path, sizes: Sizes | None = None) -> dict[str, Any]:
    """Write the workload below ``folder`` unless it stands there; return its record.

    The record holds the sizes, `Sizes.features` and the mean number of values an example looks up
    by list feature. Draws come in one fixed order, so equal sizes give equal tables.

    Raises:
        DataError: the folder holds a workload of other sizes, or shards that are not its own.
    """
    wanted = asdict(sizes := sizes or Sizes())
    store, log_folder = Store(folder), folder / "w1" / "log"
    if store.exists(RECORD):
        if (record := store.read_json(RECORD))["sizes"] != wanted:
            raise DataError(f"{folder / RECORD}: a workload of other sizes: choose another folder")
        return record
    shards = [log_folder / f"part-{shard:03d}.parquet" for shard in range(sizes.shards)]
    if alien := sorted(set(log_folder.glob("*.parquet")) - set(shards)):
        raise DataError(f"{alien[0]}: not of this workload: choose an empty folder")
    log_folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sizes.seed)
    items = _items(rng, sizes)
    log = _log(rng, sizes)
    queries = _queries(rng, sizes, log)
    pq.write_table(items, folder / "w1" / "items.parquet")
    pq.write_table(queries, folder / "w1" / "queries.parquet")
    for shard, path in enumerate(shards):
        first, last = (sizes.rows * edge // sizes.shards for edge in (shard, shard + 1))
        pq.write_table(log.slice(first, last - first), path)
    store.write_json(
        RECORD,
        {
            "sizes": wanted,
            "features": sizes.features(),
            "values_per_example": _values_per_example(log, items, queries),
        },
    )
    return store.read_json(RECORD)


def _items(rng: np.random.Generator, sizes: Sizes) -> pa.Table:
    return pa.table(
        {
            "item_id": np.arange(sizes.items, dtype=np.int32),
            "category": _ids(rng, sizes.categories, sizes.items),
            "developer": _ids(rng, sizes.developers, sizes.items),
            "tags": _lists(rng, sizes.tags, _lengths(rng, sizes.items, "tags")),
            "title_tokens": _lists(rng, sizes.tokens, _lengths(rng, sizes.items, "title_tokens")),
        }
    )


def _log(rng: np.random.Generator, sizes: Sizes) -> pa.Table:
    return pa.table(
        {
            "query_id": _ids(rng, sizes.queries, sizes.rows),
            "country": _ids(rng, sizes.countries, sizes.rows),
            "history_tags": _lists(rng, sizes.tags, _lengths(rng, sizes.rows, "history_tags")),
            "item_id": _ids(rng, sizes.items, sizes.rows),
            "ts": np.sort(rng.integers(_FIRST_S, _LAST_S, sizes.rows)),
        }
    )


def _queries(rng: np.random.Generator, sizes: Sizes, log: pa.Table) -> pa.Table:
    rows_of = np.bincount(log["query_id"].to_numpy(), minlength=sizes.queries)
    values = len(log["history_tags"].combine_chunks().values)
    draws = (_lengths(rng, sizes.queries, "history_tags") for _ in range(_DRAWS))
    lengths = min(draws, key=lambda lengths: abs(int(lengths @ rows_of) - values))
    return pa.table(
        {
            "query_id": np.arange(sizes.queries, dtype=np.int32),
            "history_tags": _lists(rng, sizes.tags, lengths),
        }
    )


def _lengths(rng: np.random.Generator, rows: int, feature: str) -> NDArray[np.int64]:
    return rng.integers(1, _MOST[feature] + 1, rows)


def _ids(rng: np.random.Generator, distinct: int, size: int) -> NDArray[np.int32]:
    """Zipf-distributed ids, shape (size,); frequent ids are scattered over [0, distinct)."""
    order = rng.permutation(distinct)
    return order[zipf_ranks(rng, distinct, size)].astype(np.int32)


def zipf_ranks(rng: np.random.Generator, distinct: int, size: int) -> NDArray[np.int64]:
    """Ranks by Zipf's law, shape (size,), each in [0, distinct); 0 is the most frequent."""
    weight = np.cumsum(np.arange(1, distinct + 1, dtype=np.float64) ** -_ZIPF_EXPONENT)
    rank = np.searchsorted(weight, rng.random(size) * weight[-1])
    return np.minimum(rank, distinct - 1)


def _lists(rng: np.random.Generator, distinct: int, lengths: NDArray[np.int64]) -> pa.ListArray:
    """Lists of ids, one a row."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(_ids(rng, distinct, offsets[-1])))


def _values_per_example(log: pa.Table, items: pa.Table, queries: pa.Table) -> dict[str, float]:
    def mean(table: pa.Table, column: str, rows: NDArray[np.int32] | None = None) -> float:
        lengths = np.diff(table[column].combine_chunks().offsets.to_numpy())
        return round(float((lengths if rows is None else lengths[rows]).mean()), 4)

    query, item = log["query_id"].to_numpy(), log["item_id"].to_numpy()
    return {
        "history_tags of the row": mean(log, "history_tags"),
        "history_tags of the row's query": mean(queries, "history_tags", query),
        "tags": mean(items, "tags", item),
        "title_tokens": mean(items, "title_tokens", item),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Write the workload from the command line; returns the exit code, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m twotower.bench.workload")
    parser.add_argument("folder", type=Path, help="folder to write")
    for field in fields(Sizes):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    arguments = vars(parser.parse_args(argv))
    try:
        record = write_workload(arguments.pop("folder"), Sizes(**arguments))
    except DataError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{record['values_per_example']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
