"""What an evaluation asks of a prepared dataset: queries of a part, their truth and their inputs.

Shape letters:
    Q evaluated queries    P pairs of the part
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twotower.core.config import ExperimentConfig
from twotower.core.errors import DataError
from twotower.core.records import fingerprint, identity
from twotower.core.types import Int64, Ragged
from twotower.data.prepared import Pairs, Part, Prepared
from twotower.evaluation.evaluate import Task
from twotower.evaluation.protocol import Json, Setting
from twotower.evaluation.ties import tie_keys
from twotower.training.inputs import history_length

EvalPart = Literal["validation", "test"]

_KNOWN: dict[EvalPart, tuple[Part, ...]] = {
    "validation": ("train",),
    "test": ("validation", "train"),
}
"""Parts whose pairs a query already has when a part is asked, newest first where there is no time:
what the filter removes and what its history holds."""


@dataclass(frozen=True, slots=True)
class Questions:
    """Every query that has a pair in the part."""

    rows: Int64
    """int64 ``(Q,)``: rows of the query table, rising."""

    task: Task
    context: dict[str, Int64]
    """Ids ``(Q,)`` of the log's own features: those of the query's newest pair in the part."""

    history: Ragged | None
    """Item rows that each query had before, newest first, cut as in training."""

    setting: Setting


def questions(config: ExperimentConfig, prepared: Prepared, part: EvalPart) -> Questions:
    """Read one part of a dataset as questions.

    Raises:
        DataError: the part has no pairs.
    """
    pairs = prepared.pairs(part)
    rows, first = np.unique(pairs.query, return_index=True)
    if not len(rows):
        raise DataError(f"{prepared.store.uri}: its {part} part has no pairs; raise data.split")
    known = newest_first([prepared.pairs(p) for p in _KNOWN[part]], prepared.num_queries)
    length = history_length(config)
    own_item = prepared.query_items()[rows]
    return Questions(
        rows=rows,
        task=Task(
            truth=Ragged.group(pairs.query, pairs.item, prepared.num_queries).take(rows),
            exclude=known.take(rows),
            own_item=own_item,
            full_counts=prepared.item_full_counts(),
            tie_keys=tie_keys(prepared.item_ids().tolist()),
            groups=_groups(config, prepared, own_item),
        ),
        context={name: ids[first] for name, ids in pairs.context.items()},
        history=None if length is None else head(known.take(rows), length),
        setting=_setting(config, prepared, part),
    )


def _groups(
    config: ExperimentConfig, prepared: Prepared, own_item: Int64
) -> NDArray[np.str_] | None:
    """Label ``(Q,)`` of each query's group where the split was made by group, else None."""
    labels = prepared.groups()
    if config.data.split.kind != "by_group" or labels is None:
        return None
    # A query without a group, or that is no item, is drawn alone.
    found = [labels[item] if item >= 0 else None for item in own_item.tolist()]
    return np.array([label or f"\0{place}" for place, label in enumerate(found)])


def _setting(config: ExperimentConfig, prepared: Prepared, part: EvalPart) -> Setting:
    digests = prepared.manifest["digests"]
    split: dict[str, Json] = {
        **config.data.split.model_dump(mode="json"),
        "seed": config.data.seed,
    }
    return Setting(
        part=part,
        split=split,
        pairs_digest=digests[f"{part}_pairs"],
        candidates_digest=digests["candidates"],
        fraction=config.data.fraction,
        subject={
            "config": fingerprint(identity(config)),
            "seed": config.seed,
            "prepared": prepared.fingerprint,
            "fraction": config.data.fraction,
        },
    )


def newest_first(parts: list[Pairs], num_queries: int) -> Ragged:
    """Items of each query from all parts, by time falling, else part after part."""
    query = np.concatenate([pairs.query for pairs in parts])
    item = np.concatenate([pairs.item for pairs in parts])
    times = [pairs.time for pairs in parts if pairs.time is not None]
    if len(times) == len(parts):
        order = np.argsort(-np.concatenate(times), kind="stable")
        query, item = query[order], item[order]
    return Ragged.group(query, item, num_queries)


def head(rows: Ragged, length: int) -> Ragged:
    """The first values of each row, at most ``length``."""
    place = np.arange(len(rows.values)) - np.repeat(rows.offsets[:-1], rows.lengths())
    return Ragged.from_lengths(np.minimum(rows.lengths(), length), rows.values[place < length])
