"""Whether what a paper claims is seen here: one word from an effect and its corrected p-value."""

from dataclasses import dataclass
from typing import Literal

from twotower.evaluation.two_way import Effect, seeds_needed

Word = Literal["holds", "contradicted", "not_shown", "underpowered"]

ALPHA = 0.05
"""Chance of any false finding in a family of claims."""

NARROW = 0.5
"""An interval whose half-width is below this share of the paper's gain would have shown that gain:
then its absence says something."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What can be said of a claim."""

    word: Word
    """`holds` and `contradicted`: significant, in or against the claimed direction. `not_shown`:
    not significant though the interval is narrow. `underpowered`: too wide to tell."""

    seeds_needed: int | None = None
    """Of `underpowered`: seeds that would make the interval narrow. None where the queries alone
    are too few, where a single seed was run, or where the paper gives no figure."""


def not_worse(effect: Effect, margin: float, *, confidence: float = 0.95) -> Verdict:
    """Hold a claim of not being worse than another by more than a margin.

    `holds` where the whole interval lies above ``-margin``: one-sided, at half of what the
    confidence leaves (97.5 % for 0.95). `contradicted` where it lies below.

    Args:
        effect: relative to the other's value.
        margin: above 0.
        confidence: of the effect's interval.
    """
    if effect.seeds < 2 or effect.low is None or effect.high is None or effect.half_width is None:
        return Verdict("underpowered")
    if effect.low > -margin:
        return Verdict("holds")
    if effect.high < -margin:
        return Verdict("contradicted")
    if effect.half_width < NARROW * margin:
        return Verdict("not_shown")
    return Verdict("underpowered", seeds_needed(effect, NARROW * margin, confidence))


def verdict(
    effect: Effect,
    p_holm: float | None,
    *,
    first: float,
    paper_gain: float | None,
    confidence: float = 0.95,
) -> Verdict:
    """Hold a claim against what was measured.

    Args:
        effect: of the differences, second less first, at `confidence`.
        p_holm: its p-value after `significance.holm` over the claim's family; None where it has
            none.
        first: value of the metric that the gain is relative to.
        paper_gain: the paper's relative gain of the second over the first; negative where it
            claims a loss, None where it claims a gain without a figure.
        confidence: of the effect's interval.

    Raises:
        ValueError: the paper's gain is 0, which claims no direction.
    """
    if paper_gain == 0:
        raise ValueError("paper_gain: 0 claims no direction; give None for a gain without a figure")
    if effect.seeds < 2:
        return Verdict("underpowered")  # its p-value is about one pair of models, not two methods
    if p_holm is not None and p_holm < ALPHA:
        claims_gain = paper_gain is None or paper_gain > 0
        return Verdict("holds" if (effect.mean > 0) == claims_gain else "contradicted")
    if paper_gain is None or effect.half_width is None:
        return Verdict("underpowered")
    narrow = NARROW * abs(paper_gain * first)
    if effect.half_width < narrow:
        return Verdict("not_shown")
    return Verdict("underpowered", seeds_needed(effect, narrow, confidence))
