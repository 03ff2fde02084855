from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from twotower.core.config import Eval
from twotower.evaluation import significance
from twotower.report.compare import (
    best_method,
    conclude,
    differences,
    display_metrics,
    protocols_differ,
    ties,
)
from twotower.report.content import Evaluation, Headline, Interval, Method, PerQuery

METRIC = "recall@50"
PROTOCOL = {"part": "test", "pairs": "abc"}


def method(
    name: str,
    values: Sequence[float],
    *,
    protocol: Mapping[str, object] = PROTOCOL,
    queries: bool = True,
) -> Method:
    column = np.array(values, dtype=np.float64)
    cell = significance.estimate(column)
    assert cell["value"] is not None
    summary = {METRIC: Interval(cell["value"], cell["low"], cell["high"], cell["n"])}
    rows = PerQuery(np.arange(len(column)), {METRIC: column}) if queries else None
    return Method(name, Evaluation(summary, dict(protocol)), rows, 1)


def headline(methods: Sequence[Method]) -> Headline:
    best = best_method(methods, METRIC)
    gaps = differences(methods, best, METRIC, 0.95)
    return conclude(methods, best, Eval(), gaps, "test")


def hits(rate: float, count: int = 400) -> list[float]:
    return [1.0 if i < rate * count else 0.0 for i in range(count)]


def test_a_clear_winner_is_named_with_the_interval_of_its_lead() -> None:
    found = headline([method("a", hits(0.3)), method("b_tuned", hits(0.5))])
    assert (found.verdict, found.best) == ("best", "b_tuned")
    gap = significance.paired(
        {METRIC: np.array(hits(0.3))}, {METRIC: np.array(hits(0.5))}, significance.Comparison()
    )[METRIC]
    assert gap.low is not None
    assert f"+{gap.low:.4f}" in found.sentence
    assert "b tuned" in found.sentence
    assert "0.2000 above a, the next best" in found.sentence


def test_a_lead_whose_interval_holds_zero_is_no_win() -> None:
    rng = np.random.default_rng(0)
    noisy = [hit if rng.random() > 0.3 else 1 - hit for hit in hits(0.5)]
    found = headline([method("a", hits(0.5)), method("b", noisy), method("c", hits(0.1))])
    assert found.verdict == "tied"
    assert "not distinguishable" in found.sentence
    assert " c " not in found.sentence


def test_many_ties_are_counted_rather_than_listed() -> None:
    found = headline([method(f"m{i}", hits(0.5)) for i in range(7)])
    assert "m1, m2, m3 and 3 more are not distinguishable" in found.sentence


def test_a_slice_in_which_another_method_leads_is_told() -> None:
    a, b = method("a", hits(0.3)), method("b", hits(0.5))
    tail = {"a": hits(0.6), "b": hits(0.1)}
    both: list[Method] = []
    for one in (a, b):
        assert one.per_query is not None
        column = np.array(tail[one.name])
        cell = significance.estimate(column)
        assert cell["value"] is not None
        summary = {
            **one.evaluation.summary,
            "tail_recall@50": Interval(cell["value"], cell["low"], cell["high"], cell["n"]),
        }
        rows = PerQuery(one.per_query.query, {**one.per_query.columns, "tail_recall@50": column})
        both.append(Method(one.name, Evaluation(summary, one.evaluation.protocol), rows, 1))
    found = headline(both)
    assert (found.verdict, found.best) == ("best", "b")
    assert found.exceptions == "Not so in every slice: a is ahead in tail."
    assert headline([a, b]).exceptions == ""


def test_equal_methods_are_not_distinguishable() -> None:
    found = headline([method("a", hits(0.5)), method("b", hits(0.5))])
    assert (found.verdict, found.best) == ("tied", "a")


def test_one_method_has_nothing_to_win_against() -> None:
    assert headline([method("a", hits(0.5))]).verdict == "alone"


def test_nothing_evaluated_says_so() -> None:
    assert headline([]).verdict == "none"


def test_unlike_protocols_get_no_verdict_and_no_difference() -> None:
    methods = [
        method("a", hits(0.2)),
        method("b", hits(0.6), protocol={"part": "test", "pairs": "x"}),
    ]
    assert protocols_differ(methods) == ["pairs"]
    assert differences(methods, methods[1], METRIC, 0.95) == ()
    found = headline(methods)
    assert found.verdict == "incomparable"
    assert "pairs" in found.sentence


def test_without_queries_intervals_must_have_nothing_in_common() -> None:
    apart = [method("a", hits(0.2), queries=False), method("b", hits(0.6))]
    near = [method("a", hits(0.57), queries=False), method("b", hits(0.6))]
    assert headline(apart).verdict == "best"
    assert "missing" in headline(apart).sentence
    assert headline(near).verdict == "tied"


def test_methods_measured_on_other_queries_have_no_paired_difference() -> None:
    a, b = method("a", [1.0, np.nan, 0.0, 1.0]), method("b", [1.0, 1.0, 0.0, 1.0])
    assert differences([a, b], b, METRIC, 0.95) == ()


def test_ties_name_the_best_and_who_is_near() -> None:
    methods = [method("a", hits(0.5)), method("b", hits(0.505)), method("c", hits(0.1))]
    best, near = ties(methods, METRIC, 0.95)
    assert best == "b"
    assert near == {"a"}
    assert ties(methods, "map@10", 0.95) == (None, set())


def test_intervals_are_clustered_by_the_groups_of_the_split() -> None:
    noisy = hits(0.5)
    other = [1.0 if i % 40 < 24 else hit for i, hit in enumerate(hits(0.3))]
    a, b = method("a", noisy), method("b", other)
    groups = np.arange(400) // 40
    clustered = [
        Method(m.name, m.evaluation, PerQuery(m.per_query.query, m.per_query.columns, groups), 1)
        for m in (a, b)
        if m.per_query is not None
    ]
    loose = differences([a, b], b, METRIC, 0.95)[0]
    tight = differences(clustered, clustered[1], METRIC, 0.95)[0]
    assert loose.value == pytest.approx(tight.value)
    assert loose.high - loose.low != pytest.approx(tight.high - tight.low)


def test_a_split_by_group_without_groups_has_no_paired_interval() -> None:
    protocol = {"split": {"kind": "by_group"}}
    methods = [method("a", hits(0.2), protocol=protocol), method("b", hits(0.6), protocol=protocol)]
    assert differences(methods, methods[1], METRIC, 0.95) == ()
    assert headline(methods).verdict == "best"


def test_columns_follow_the_evaluation_section() -> None:
    rules = Eval(k=(5, 20), select="ndcg@20", slices=("tail", "not_head"))
    expected = ["recall@5", "recall@20", "map@5", "map@20", "ndcg@20", "tail_ndcg@20"]
    assert display_metrics(rules) == expected
