"""Which method is best, said as strongly as the paired intervals allow and no more."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from twotower.core.config import Eval
from twotower.core.errors import InputError
from twotower.evaluation import significance
from twotower.report.content import Difference, Headline, Interval, Method
from twotower.report.formats import (
    SLICES,
    integer,
    listed,
    method_label,
    metric_label,
    score,
)

_MOST_NAMED = 3
"""Methods that the headline names as not distinguishable from the best."""


def display_metrics(rules: Eval) -> list[str]:
    """Columns of the table of methods: Recall and MAP at every K, the chosen metric by slice."""
    columns = [f"{name}@{k}" for name in ("recall", "map") for k in rules.k]
    if rules.select not in columns:
        columns.append(rules.select)
    parts = [part for part in rules.slices if part != "not_head"]  # the other three together
    return columns + [f"{part}_{rules.select}" for part in parts]


def best_method(methods: Sequence[Method], metric: str) -> Method | None:
    """The method with the highest value; the first of equal ones, None where no one has it."""
    rated = [m for m in methods if metric in m.evaluation.summary]
    return max(rated, key=lambda m: m.evaluation.summary[metric].value, default=None)


def differences(
    methods: Sequence[Method], best: Method | None, metric: str, confidence: float
) -> tuple[Difference, ...]:
    """The best method less each other one that has the same queries measured."""
    if best is None:
        return ()
    gaps = [paired(best, other, metric, confidence) for other in methods if other is not best]
    return tuple(gap for gap in gaps if gap is not None)


def paired(method: Method, other: Method, metric: str, confidence: float) -> Difference | None:
    """Mean of the per-query differences.

    None without per-query values of the same queries, or where queries of a split by group don't
    say their group: an interval that takes them for independent would be too narrow.
    """
    mine, theirs = method.per_query, other.per_query
    if mine is None or theirs is None or protocols_differ([method, other]):
        return None
    has_metric = metric in mine.columns and metric in theirs.columns
    needs_groups = mine.groups is None and _is_grouped(method.evaluation.protocol)
    if not has_metric or needs_groups or not np.array_equal(mine.query, theirs.query):
        return None
    options = significance.Comparison(confidence=confidence, resamples=0, groups=mine.groups)
    first, second = {metric: theirs.columns[metric]}, {metric: mine.columns[metric]}
    try:
        gap = significance.paired(first, second, options)[metric]
    except InputError:
        gap = None  # a query has a true item in one and none in the other
    if gap is None or gap.mean is None or gap.low is None or gap.high is None:
        return None
    return Difference(method.name, other.name, metric, gap.mean, gap.low, gap.high, gap.n)


def separated(best: Method, other: Method, metric: str, gap: Difference | None) -> bool:
    """Whether ``best`` is distinguishable from ``other``.

    By the paired interval where there is one, else only if the two intervals have no value in
    common, which asks for more.
    """
    if gap is not None:
        return gap.distinguishable
    mine, theirs = best.evaluation.summary[metric], other.evaluation.summary[metric]
    return mine.low is not None and theirs.high is not None and mine.low > theirs.high


def protocols_differ(methods: Sequence[Method]) -> list[str]:
    """Protocol keys that are not equal in all methods that have a certificate."""
    protocols = [m.evaluation.protocol for m in methods if m.evaluation.protocol]
    keys = sorted({key for protocol in protocols for key in protocol})
    return [k for k in keys if any(p.get(k) != protocols[0].get(k) for p in protocols)]


def ties(methods: Sequence[Method], metric: str, confidence: float) -> tuple[str | None, set[str]]:
    """The best method of a metric and the names of those not distinguishable from it."""
    best = best_method(methods, metric)
    if best is None:
        return None, set()
    others = [m for m in methods if m is not best and metric in m.evaluation.summary]
    near = {
        m.name
        for m in others
        if not separated(best, m, metric, paired(best, m, metric, confidence))
    }
    return best.name, near


def conclude(
    methods: Sequence[Method],
    best: Method | None,
    rules: Eval,
    gaps: Sequence[Difference],
    part: str,
) -> Headline:
    """The one sentence at the top of the page, and the slices where it doesn't hold."""
    if best is None:
        return Headline(f"Nothing is evaluated on {part} yet.", "none", None)
    metric = rules.select
    label, cell = metric_label(metric), best.evaluation.summary[metric]
    others = [m for m in methods if m is not best and metric in m.evaluation.summary]
    if not others:
        sentence = (
            f"{label} of {method_label(best.name)} on {part} is {score(cell.value)}{_span(cell)}; "
            "there is nothing to compare it with."
        )
        return Headline(sentence, "alone", best.name)
    if keys := protocols_differ(methods):
        sentence = (
            f"No verdict: these evaluations differ in {listed(keys)}, "
            "so their numbers can't be compared."
        )
        return Headline(sentence, "incomparable", best.name)
    by_other = {gap.other: gap for gap in gaps}
    near = [m for m in others if not separated(best, m, metric, by_other.get(m.name))]
    exceptions = _exceptions(methods, [best, *near], rules)
    if near:
        return Headline(_tied(best, near, metric, by_other, part), "tied", best.name, exceptions)
    sentence = _won(best, others, metric, by_other, part)
    return Headline(sentence, "best", best.name, exceptions)


def _won(
    best: Method,
    others: Sequence[Method],
    metric: str,
    gaps: Mapping[str, Difference],
    part: str,
) -> str:
    value = best.evaluation.summary[metric].value
    runner = max(others, key=lambda m: m.evaluation.summary[metric].value)
    ahead = value - runner.evaluation.summary[metric].value
    return (
        f"Best on {part} is {method_label(best.name)}: {metric_label(metric)} {score(value)}, "
        f"{score(ahead)} above {method_label(runner.name)}, the next best "
        f"({_interval(gaps.get(runner.name))})."
    )


def _exceptions(methods: Sequence[Method], leading: Sequence[Method], rules: Eval) -> str:
    """Slices in which a method beats all of the leading ones distinguishably, as a sentence."""
    names = {m.name for m in leading}
    ahead: dict[str, list[str]] = {}
    for part in rules.slices:
        first, near = ties(methods, f"{part}_{rules.select}", rules.confidence)
        if part != "not_head" and first is not None and not names & {first, *near}:
            ahead.setdefault(first, []).append(SLICES[part].lower())
    told = [f"{method_label(name)} is ahead in {listed(parts)}" for name, parts in ahead.items()]
    return f"Not so in every slice: {', '.join(told)}." if told else ""


def _tied(
    best: Method,
    near: Sequence[Method],
    metric: str,
    gaps: Mapping[str, Difference],
    part: str,
) -> str:
    ranked = sorted(near, key=lambda m: -m.evaluation.summary[metric].value)
    shown = [method_label(m.name) for m in ranked[:_MOST_NAMED]]
    if len(ranked) > _MOST_NAMED:
        shown.append(f"{len(ranked) - _MOST_NAMED} more")
    names = listed(shown)
    verb = "is" if len(near) == 1 else "are"
    value = score(best.evaluation.summary[metric].value)
    nearest = gaps.get(ranked[0].name)
    proof = ""
    if nearest is not None:
        what = (
            "the difference" if len(near) == 1 else f"the lead over {method_label(nearest.other)}"
        )
        proof = f" ({_interval(nearest, what)})"
    return (
        f"No clear winner: {method_label(best.name)} has the highest {metric_label(metric)} "
        f"on {part}, {value}, but {names} {verb} not distinguishable from it{proof}."
    )


def _span(cell: Interval) -> str:
    if cell.low is None or cell.high is None:
        return ""
    return f" (interval {score(cell.low)} to {score(cell.high)})"


def _interval(gap: Difference | None, what: str = "the difference") -> str:
    if gap is None:
        return "their intervals have no value in common; per-query results are missing"
    return (
        f"interval of {what} {score(gap.low, signed=True)} to {score(gap.high, signed=True)} "
        f"over {integer(gap.n)} queries"
    )


def _is_grouped(protocol: Mapping[str, Any]) -> bool:
    split = protocol.get("split")
    return isinstance(split, Mapping) and split.get("kind") == "by_group"
