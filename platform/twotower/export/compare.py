"""An export against the model that it is made of, before it is committed.

Shape letters:
    n rows    X width of a vector
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twotower.core.errors import RunError
from twotower.core.types import FIRST_ID, Float32, Int64, Ragged
from twotower.data import committed
from twotower.data.tables import vocabulary_file
from twotower.models.embeddings.table import Served
from twotower.models.two_tower import TwoTower
from twotower.runtime.best import Run
from twotower.serving.features import filled
from twotower.serving.reader import Export
from twotower.serving.sides import Encoded
from twotower.training.evaluate import scorer_of
from twotower.training.questions import questions

_ROWS = 16
"""Items and queries compared, from both ends of each."""

_TOLERANCE = 1e-5
"""Of each number, where the longest vector has norm 1: float32 rounding, on any device."""


def compare(opened: Export, run: Run, model: TwoTower, tables: Mapping[str, Served]) -> None:
    """Embed and score a few items and queries, and look up a few values of each feature.

    Args:
        opened: the export, of the bytes that will be written.
        run: where the model comes from.
        model: in torch.
        tables: its served tables by name.

    Raises:
        RunError: vectors or scores differ, or a value leads to another row than in training.
    """
    _compare_values(opened, run, tables)
    rows = _ends(run.prepared.num_items)
    encoded = _encoded(run, rows, tables)
    items = model.embed_items(rows)
    _refuse(opened.model.items.embed(encoded), items, "vectors of items")
    if not len(run.prepared.pairs("test").query):
        return
    asked = questions(run.config, run.prepared, "test")
    chosen = _ends(len(asked.rows))
    queries = model.embed_queries(
        asked.rows[chosen],
        context={name: ids[chosen] for name, ids in asked.context.items()},
        history=asked.history and asked.history.take(chosen),
    )
    names = run.prepared.query_ids()[asked.rows[chosen]].tolist()
    _refuse(opened.embed_known(names), queries, "vectors of queries")
    _compare_scores(opened, model, queries, items)


def _compare_scores(opened: Export, model: TwoTower, queries: Tensor, items: Tensor) -> None:
    """Scores of all pairs of some vectors."""
    places, score = np.arange(len(items), dtype=np.int64), opened.model.scorer.score
    vectors = items.cpu().numpy()
    found = [score.exact(query, vectors, places) for query in queries.cpu().numpy()]
    every = np.tile(places, (len(queries), 1))
    expected = scorer_of(model, queries, items).exact(np.arange(len(queries)), every)
    _refuse(np.stack(found), torch.from_numpy(expected), "scores")


def _compare_values(opened: Export, run: Run, tables: Mapping[str, Served]) -> None:
    """Text to row, for values from both ends of each vocabulary."""
    known = run.prepared.features
    for name, side, features in (
        ("item", opened.model.items.side, known.item),
        ("query", opened.model.queries, known.query),
        ("context", opened.model.context, known.context),
    ):
        for spec in side.features:
            if spec.kind == "dense":
                continue
            share = features[spec.name].share
            file = vocabulary_file(*(("item", share) if share else (name, spec.name)))
            column = committed.read_table(run.prepared.store, file, ["value"]).column("value")
            places = _ends(len(column))
            texts = column.take(places).to_pylist()
            expected = _served_ids(places + FIRST_ID, tables[spec.table])
            found = side.vocabularies[spec.vocabulary].encode(texts)
            if not np.array_equal(found, expected):
                raise RunError(f"export: values of {name}.{spec.name} lead to rows of others")


def _encoded(run: Run, rows: Int64, tables: Mapping[str, Served]) -> Encoded:
    """Rows of the catalogue as prepared data has them, in the ids of the served tables."""
    bags: dict[str, Ragged] = {}
    numbers: dict[str, Float32] = {}
    for feature in run.prepared.item_side().features:
        if isinstance(feature.values, Ragged):
            taken = feature.values.take(rows)
            ids = _served_ids(taken.values.astype(np.int64), tables[feature.table])
            bags[feature.name] = filled(Ragged(taken.offsets, ids))
        else:
            numbers[feature.name] = feature.values[rows]
    return Encoded(len(rows), bags, numbers)


def _served_ids(ids: Int64, served: Served) -> Int64:
    return ids if served.ids is None else served.ids[ids]


def _ends(count: int) -> Int64:
    """The first and last rows."""
    return np.unique(np.r_[0 : min(count, _ROWS), max(count - _ROWS, 0) : count])


def _refuse(found: NDArray[Any], expected: Tensor, what: str) -> None:
    wanted = expected.cpu().numpy()
    far = float(np.abs(found - wanted).max(initial=0))
    if not far <= _TOLERANCE * float(np.linalg.norm(wanted, axis=1).max(initial=0)):
        raise RunError(f"export: {what} differ from torch's by {far:.2g}")
