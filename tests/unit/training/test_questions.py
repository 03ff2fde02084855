"""What is asked of each query at validation and at test, against slow loops."""

from pathlib import Path

import numpy as np
import pytest

from tiny_run import tiny_run
from twotower.core.errors import DataError
from twotower.data.prepared import Pairs, Prepared
from twotower.training.questions import EvalPart, questions

KNOWN: dict[EvalPart, list[EvalPart | str]] = {
    "validation": ["train"],
    "test": ["train", "validation"],
}


def pairs_of(prepared: Prepared, part: str) -> list[tuple[int, int, int]]:
    found: Pairs = prepared.pairs(part)  # pyright: ignore[reportArgumentType]
    assert found.time is not None
    return list(zip(found.query.tolist(), found.item.tolist(), found.time.tolist(), strict=True))


@pytest.mark.parametrize("part", ["validation", "test"])
def test_questions_match_a_slow_reading_of_the_pairs(tmp_path: Path, part: EvalPart) -> None:
    config, prepared = tiny_run(tmp_path)
    asked = questions(config, prepared, part)
    truth = pairs_of(prepared, part)
    known = [pair for name in KNOWN[part] for pair in pairs_of(prepared, str(name))]
    assert asked.rows.tolist() == sorted({query for query, _, _ in truth})
    own = prepared.query_items().tolist()
    for place, query in enumerate(asked.rows.tolist()):
        mine = [item for q, item, _ in truth if q == query]
        assert sorted(asked.task.truth.row(place).tolist()) == sorted(mine)
        before = {item: time for q, item, time in known if q == query}
        assert sorted(asked.task.exclude.row(place).tolist()) == sorted(before)
        assert asked.task.own_item[place] == own[query]
        assert asked.history is not None
        history = asked.history.row(place).tolist()
        assert len(history) == min(5, len(before)), "the feature's max_values"
        times = [before[item] for item in history]
        assert times == sorted(before.values(), reverse=True)[:5], "newest first"


def test_context_is_that_of_the_newest_pair(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path)
    asked = questions(config, prepared, "test")
    pairs = prepared.pairs("test")
    for place, query in enumerate(asked.rows.tolist()):
        first = int(np.flatnonzero(pairs.query == query)[0])
        assert asked.context["device"][place] == pairs.context["device"][first]


def test_groups_are_asked_for_by_the_split_only(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path)
    assert questions(config, prepared, "test").task.groups is None
    grouped, _ = tiny_run(tmp_path, data__split={"kind": "by_group", "column": "group"})
    asked = questions(grouped, prepared, "test")
    assert asked.task.groups is not None
    labels = prepared.groups()
    assert labels is not None
    for place, item in enumerate(asked.task.own_item.tolist()):
        if item >= 0 and labels[item] is not None:
            assert asked.task.groups[place] == labels[item]
        else:
            assert asked.task.groups[place].startswith("\0"), "alone"


def test_a_part_without_pairs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, prepared = tiny_run(tmp_path)
    nothing = np.empty(0, dtype=np.int64)
    empty = Pairs(nothing, nothing, nothing.astype(np.float32), nothing, {"device": nothing})
    monkeypatch.setattr(Prepared, "pairs", lambda *_: empty)
    with pytest.raises(DataError, match=r"validation part has no pairs; raise data\.split"):
        questions(config, prepared, "validation")
