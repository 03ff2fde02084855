"""How many seeds it takes to find that a method is not worse than another."""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev

from twotower.evaluation import student

POWER = 0.9
"""Probability of finding it where the two are equal."""

_MOST = 1000


def seeds_for_margin(
    values: Sequence[float], margin: float, *, power: float = POWER, confidence: float = 0.95
) -> int | None:
    """Seeds of each of two equal methods with which `verdict.not_worse` says `holds`.

    Two methods that are equal on every query differ by their seeds alone, so one method's spread
    over seeds tells what their difference will be: the interval's half-width and the quantile of
    the power must together fit into the margin. Methods that are equal on average but differ query
    by query take more: a least number, before anything of the other is known.

    Args:
        values: one method's metric, seed by seed; two or more.
        margin: share of the metric, above 0.
        power: probability, in (0.5, 1).
        confidence: of the interval.

    Returns:
        None where a thousand would not be enough, or where the method finds nothing.
    """
    mean, spread = fmean(values), stdev(values)
    if mean <= 0:
        return None
    for seeds in range(2, _MOST + 1):
        error = spread * math.sqrt(2 / seeds)
        quantiles = student.quantile(confidence, seeds - 1) + NormalDist().inv_cdf(power)
        if quantiles * error <= margin * mean:
            return seeds
    return None
