"""Evaluations as files of a run: a document with intervals and certificate, and values by query.

- evaluation/<part>.json: summary, counts, certificate; written last, it makes the rest count.
- evaluation/<part>.parquet: query (row), query_id, group (of a split by group), and a float64
  column a metric, NaN = not measured.
- evaluation/baselines.json: the documents of popularity, content and item_knn on test, by name.
- evaluation/baselines/<name>.parquet: their values by query.
- sizes.json: bytes that the evaluated model is served with, by table.
"""

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from twotower.core.errors import InputError
from twotower.core.storage import Store
from twotower.core.types import Float64
from twotower.data.prepared import Prepared
from twotower.evaluation.evaluate import Evaluation
from twotower.models.sizes import sizes
from twotower.models.two_tower import TwoTower
from twotower.training.questions import EvalPart, Questions

FOLDER = "evaluation"
BASELINES = f"{FOLDER}/baselines"
SIZES = "sizes.json"

_KEYS = ("query", "query_id", "group")


@dataclass(frozen=True, slots=True)
class Measured:
    """An evaluation as read back.

    Shape letters:
        Q evaluated queries
    """

    document: dict[str, Any]
    """Summary, counts and certificate."""

    queries: NDArray[np.object_]
    """Query ids ``(Q,)``."""

    groups: NDArray[np.object_] | None
    """Each query's group ``(Q,)`` where the split is by group."""

    values: dict[str, Float64]
    """Metric -> float64 ``(Q,)``."""


def write_evaluation(
    store: Store, part: EvalPart, found: Evaluation, asked: Questions, prepared: Prepared
) -> None:
    """Write an evaluation of a model into a run directory."""
    store.write_bytes(f"{FOLDER}/{part}.parquet", by_query(found, asked, prepared))
    store.write_json(f"{FOLDER}/{part}.json", found.document())


def write_sizes(store: Store, model: TwoTower) -> None:
    """Write the bytes that a model is served with into a run directory (`models.sizes.Sizes`)."""
    store.write_json(SIZES, asdict(sizes(model)))


def by_query(found: Evaluation, asked: Questions, prepared: Prepared) -> bytes:
    """Parquet bytes of an evaluation's values by query."""
    columns: dict[str, Any] = {
        "query": pa.array(asked.rows, pa.int32()),
        "query_id": pa.array(prepared.query_ids()[asked.rows], pa.string()),
    }
    if asked.task.groups is not None:
        columns["group"] = pa.array(asked.task.groups, pa.string())
    columns |= {name: pa.array(values, pa.float64()) for name, values in found.per_query.items()}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def read_summary(store: Store, part: str) -> dict[str, dict[str, Any]]:
    """Values and intervals of a written evaluation, by metric."""
    return store.read_json(f"{FOLDER}/{part}.json")["summary"]


def read_evaluation(store: Store, part: str) -> Measured:
    """Read what `write_evaluation` wrote.

    Raises:
        InputError: the run has no such evaluation.
    """
    if not store.exists(f"{FOLDER}/{part}.json"):
        raise InputError(
            f"{store.uri}: not evaluated on {part}; run `twotower evaluate {store.uri} "
            f"--part {part}`"
        )
    return _measured(store.read_json(f"{FOLDER}/{part}.json"), store, f"{FOLDER}/{part}.parquet")


def read_baselines(store: Store) -> dict[str, Measured]:
    """Baselines on test beside a run, by name; empty where none were written."""
    if not store.exists(f"{BASELINES}.json"):
        return {}
    documents: Mapping[str, Any] = store.read_json(f"{BASELINES}.json")
    return {
        name: _measured(document, store, f"{BASELINES}/{name}.parquet")
        for name, document in documents.items()
    }


def _measured(document: dict[str, Any], store: Store, file: str) -> Measured:
    source = io.BytesIO(store.read_bytes(file))
    table = pq.read_table(source, page_checksum_verification=True)
    values = {n: table.column(n).to_numpy() for n in table.column_names if n not in _KEYS}
    groups = table.column("group").to_numpy() if "group" in table.column_names else None
    return Measured(document, table.column("query_id").to_numpy(), groups, values)
