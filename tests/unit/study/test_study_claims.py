"""Claims held against contrasts: relative gains, growth between fractions, families of Holm."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_study import small_study
from twotower.core.types import Float64
from twotower.evaluation.significance import Comparison
from twotower.evaluation.two_way import Effect
from twotower.study.claims import hold
from twotower.study.contrasts import Contrast, Contrasts, Name, Values, contrasted
from twotower.study.load import load_study

FULL, HALF = ("small", 1.0), ("small", 0.5)


def table(mean: float, seed: int, spread: float = 0.1) -> Float64:
    """Differences of 5 seeds on 300 queries."""
    rng = np.random.default_rng(seed)
    shift = rng.normal(0, 0.002, (5, 1)) + rng.normal(0, spread, 300)
    return mean + shift + rng.normal(0, spread, (5, 300))


def contrasts(means: dict[tuple[str, float], float], first: float = 0.4) -> Contrasts:
    """Of a method over a baseline that finds ``first`` of every query, on average and not alike."""
    found = Contrasts()
    for number, (place, mean) in enumerate(means.items()):
        differences = table(mean, number)
        firsts = first * (1 + table(0, 7 + number))
        for metric in ("recall@10", "tail_recall@10"):
            put(found, place, metric, Values(differences, firsts * first / (firsts.mean() or 1)))
        found.queries[place] = np.array([f"q{i:03}" for i in range(300)], dtype=object)
        found.groups[place] = None
    return found


def put(
    found: Contrasts,
    place: tuple[str, float],
    metric: str,
    values: Values,
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5),
) -> Contrast:
    name = Name(place, "cfm", "baseline", metric)
    (one,) = contrasted({name: values}, Comparison(resamples=0)).values()
    one.values, one.seeds = values, seeds
    found.found[name] = one
    return one


def values_of(found: Contrasts, place: tuple[str, float], metric: str = "recall@10") -> Values:
    values = found.found[Name(place, "cfm", "baseline", metric)].values
    assert values is not None
    return values


def claims_of(
    tmp_path: Path, found: Contrasts, *claims: dict[str, Any], **plan: Any
) -> list[dict[str, Any]]:
    base = {"method": "cfm", "against": "baseline", "metric": "recall@10"}
    held = [{**base, **claim} for claim in claims]
    changes = {"primary": ["recall@5"], "claims": held} | plan
    return hold(load_study(small_study(tmp_path, **changes)), found)


def test_a_claim_is_the_gain_with_the_interval_of_a_ratio(tmp_path: Path) -> None:
    """Against resampling seeds' noise and queries, of both methods together."""
    found = contrasts({FULL: 0.2})
    one = found.found[Name(FULL, "cfm", "baseline", "recall@10")]
    one.p_holm = 0.001
    plan = {"primary": ["recall@10"]}
    (claim,) = claims_of(tmp_path, found, {"claim": "x", "paper": 0.04}, **plan)
    differences, firsts = values_of(found, FULL)
    assert claim["ours"] == pytest.approx(differences.mean() / firsts.mean())
    assert (claim["p_holm"], claim["verdict"]) == (0.001, "holds")
    # A baseline that varies by half of itself makes the ratio vary more than its numerator does.
    wild = Values(differences, np.abs(firsts * (1 + 5 * table(0, 9))))
    put(found, FULL, "recall@10", wild)
    (claim,) = claims_of(tmp_path, found, {"claim": "x", "paper": 0.04})
    rng = np.random.default_rng(4)
    drawn = rng.integers(0, 300, (4000, 300))
    above, below = wild.differences.mean(0)[drawn].mean(1), wild.firsts.mean(0)[drawn].mean(1)
    half = (claim["high"] - claim["low"]) / 2
    assert half == pytest.approx(1.97 * (above / below).std(), rel=0.1)
    assert half != pytest.approx(1.97 * above.std() / wild.firsts.mean(), rel=0.15)


def test_a_gain_keeps_the_p_value_of_its_difference(tmp_path: Path) -> None:
    found = contrasts({FULL: 0.01})
    one = found.found[Name(FULL, "cfm", "baseline", "recall@10")]
    (claim,) = claims_of(tmp_path, found, {"claim": "x", "paper": 0.04})
    assert claim["p_holm"] == one.effect.p


@pytest.mark.parametrize(
    ("mean", "paper", "word"),
    [(0.05, 0.04, "holds"), (-0.05, 0.04, "contradicted"), (0.0005, 0.5, "not_shown")],
)
def test_words(tmp_path: Path, mean: float, paper: float, word: str) -> None:
    (claim,) = claims_of(tmp_path, contrasts({FULL: mean}), {"claim": "x", "paper": paper})
    assert claim["verdict"] == word


def test_too_wide_an_interval_says_how_many_seeds_it_would_take(tmp_path: Path) -> None:
    (claim,) = claims_of(tmp_path, contrasts({FULL: 0.0005}), {"claim": "x", "paper": 0.05})
    assert claim["verdict"] == "underpowered"


def test_growth_is_the_difference_of_two_gains(tmp_path: Path) -> None:
    found = contrasts({FULL: 0.02, HALF: 0.06})
    (claim,) = claims_of(tmp_path, found, {"claim": "x", "fractions": [0.5], "grows_from": 1.0})
    parts = [found.found[Name(p, "cfm", "baseline", "recall@10")].gain for p in (HALF, FULL)]
    assert parts[0] is not None
    assert parts[1] is not None
    assert claim["ours"] == pytest.approx(parts[0].mean - parts[1].mean)
    half = (claim["high"] - claim["low"]) / 2
    # independent here: the root of the sum of squares, less a little for its degrees of freedom
    assert half == pytest.approx((sum(_half(p) ** 2 for p in parts)) ** 0.5, rel=0.2)
    assert claim["note"] == "gain at 0.5 less that at 1.0"


def _half(effect: Effect | None) -> float:
    assert effect is not None
    assert effect.half_width is not None
    return effect.half_width


def test_gains_are_compared_over_the_seeds_that_both_were_measured_with(tmp_path: Path) -> None:
    found = contrasts({FULL: 0.02, HALF: 0.06})
    full, half = (values_of(found, place) for place in (FULL, HALF))
    own = np.array([0.1, 0.2, 0.3, 0.4, 0.5])[:, None] * np.ones(300)
    put(found, HALF, "recall@10", Values(half.differences, own))
    put(found, FULL, "recall@10", full.of([2, 3, 4]), seeds=(3, 4, 5))
    (claim,) = claims_of(tmp_path, found, {"claim": "x", "fractions": [0.5], "grows_from": 1.0})
    gains = half.differences[2:].mean() / 0.4, full.differences[2:].mean() / full.firsts[2:].mean()
    assert claim["ours"] == pytest.approx(gains[0] - gains[1])
    assert claim["seeds"] == 3


def test_a_claim_against_a_method_that_finds_nothing_is_told_without_a_gain(tmp_path: Path) -> None:
    found = contrasts({FULL: 0.05}, first=0.0)
    claim = {"claim": "x", "paper": 0.04}
    (row,) = claims_of(tmp_path, found, claim)
    assert (row["ours"], row["low"], row["high"], row["verdict"]) == (None, None, None, "holds")
    mean = found.found[Name(FULL, "cfm", "baseline", "recall@10")].effect.mean
    told = "no relative gain over baseline, whose interval reaches 0: it finds 0.0000, CFM "
    assert row["note"] == f"{told}{mean:.4f}"
    growth = {"claim": "x", "more_than": "tail_recall@10"}
    (row,) = claims_of(tmp_path, found, growth)
    assert (row["ours"], row["p_holm"], row["verdict"]) == (None, None, "underpowered")
    assert row["note"] == f"{told}{mean:.4f}"


def test_a_few_hits_are_no_base_of_a_gain(tmp_path: Path) -> None:
    """Two hits of a baseline that the method lacks would be a gain of -100 %, and surely so."""
    found = contrasts({FULL: 0.02})
    hits = np.zeros((5, 300))
    hits[1, 7] = hits[3, 50] = 1.0
    put(found, FULL, "recall@10", Values(-hits, hits))
    growth = {"claim": "y", "more_than": "tail_recall@10"}
    plain, compared = claims_of(tmp_path, found, {"claim": "x", "paper": 0.04}, growth)
    assert [row["ours"] for row in (plain, compared)] == [None, None]
    assert [row["verdict"] for row in (plain, compared)] == ["underpowered"] * 2


@pytest.mark.parametrize(("mean", "word"), [(0.02, "holds"), (-0.02, "not_shown")])
def test_a_smaller_loss_is_no_larger_gain(tmp_path: Path, mean: float, word: str) -> None:
    found = contrasts({FULL: mean})
    values = values_of(found, FULL)
    put(found, FULL, "tail_recall@10", Values(values.differences - 0.05, values.firsts))
    claim = {"claim": "x", "more_than": "tail_recall@10"}
    (row,) = claims_of(tmp_path, found, claim)
    assert row["low"] > 0
    assert row["verdict"] == word
    assert ("itself it is a loss" in row["note"]) == (word == "not_shown")


@pytest.mark.parametrize(("paper", "excluded"), [(0.5, True), (0.06, False), (None, None)])
def test_whether_the_papers_gain_is_possible_is_told(
    tmp_path: Path, paper: float | None, excluded: bool | None
) -> None:
    claim = {"claim": "x"} | ({"paper": paper} if paper else {})
    (row,) = claims_of(tmp_path, contrasts({FULL: 0.02}), claim)
    assert row["excludes_paper"] is excluded


def test_claims_outside_the_primary_family_share_one_of_their_own(tmp_path: Path) -> None:
    found = contrasts({FULL: 0.01})
    one = found.found[Name(FULL, "cfm", "baseline", "recall@10")]
    assert one.gain is not None
    one.gain = replace(one.gain, p=0.03)
    claim = {"claim": "x", "paper": 0.04}
    (alone,) = claims_of(tmp_path, found, claim)
    assert alone["p_holm"] == pytest.approx(0.03)
    pair = claims_of(tmp_path, found, claim, {"claim": "y", "paper": 0.04})
    assert [claim["p_holm"] for claim in pair] == pytest.approx([0.06, 0.06])


def test_all_claims_of_a_study_are_one_family_where_its_plan_says_so(tmp_path: Path) -> None:
    found = contrasts({FULL: 0.05, HALF: 0.05})
    for place, p in ((FULL, 0.01), (HALF, 0.03)):
        one = found.found[Name(place, "cfm", "baseline", "recall@10")]
        assert one.gain is not None
        one.gain, one.p_holm = replace(one.gain, p=p), 0.5
    claim = {"claim": "x", "fractions": [1.0, 0.5]}
    apart = claims_of(tmp_path, found, claim, primary=["recall@10"])
    assert [claim["p_holm"] for claim in apart] == [0.5, 0.5]
    whole = claims_of(tmp_path, found, claim, claims_corrected="study")
    assert [claim["p_holm"] for claim in whole] == pytest.approx([0.02, 0.03])
    assert [claim["verdict"] for claim in whole] == ["holds", "holds"]


def test_what_is_not_measured_yet_counts_as_no_finding(tmp_path: Path) -> None:
    """So that no p-value grows as runs come in."""
    found = contrasts({FULL: 0.01})
    one = found.found[Name(FULL, "cfm", "baseline", "recall@10")]
    assert one.gain is not None
    one.gain = replace(one.gain, p=0.03)
    claims = [{"claim": "x"}, {"claim": "y", "metric": "map@10"}]
    (row,) = claims_of(tmp_path, found, *claims)
    assert row["p_holm"] == pytest.approx(0.06)
    everywhere = {"claim": "x", "fractions": [1.0, 0.5]}
    (row,) = claims_of(tmp_path, found, everywhere, claims_corrected="study")
    assert row["p_holm"] == pytest.approx(0.06)
    one.gain = replace(one.gain, seeds=1)
    (row,) = claims_of(tmp_path, found, everywhere, claims_corrected="study")
    assert (row["p_holm"], row["verdict"]) == (1.0, "underpowered")


def test_what_was_not_measured_is_no_row(tmp_path: Path) -> None:
    assert claims_of(tmp_path, Contrasts(), {"claim": "x", "paper": 0.04}) == []


@pytest.mark.parametrize(
    ("mean", "margin", "word"),
    [
        (-0.001, 0.1, "holds"),
        (-0.08, 0.1, "contradicted"),
        (-0.04, 0.1, "not_shown"),
        (-0.0004, 0.001, "underpowered"),
    ],
)
def test_not_worse_than_a_margin(tmp_path: Path, mean: float, margin: float, word: str) -> None:
    """The interval's lower end decides, and no correction is made: it is one-sided at 97.5 %."""
    found = contrasts({FULL: mean})
    one = found.found[Name(FULL, "cfm", "baseline", "recall@10")]
    one.p_holm = 0.001
    found.table_bytes = {(FULL, "cfm"): 200, (FULL, "baseline"): 1000}
    (claim,) = claims_of(tmp_path, found, {"claim": "x", "margin": margin})
    assert claim["verdict"] == word
    assert (claim["margin"], claim["size_share"], claim["p_holm"]) == (margin, 0.2, None)
    low = claim["low"]
    assert (low > -margin) == (word == "holds")


def test_claims_of_methods_of_one_size_say_nothing_of_sizes(tmp_path: Path) -> None:
    found = contrasts({FULL: 0.1})
    found.table_bytes = {(FULL, "cfm"): 1000, (FULL, "baseline"): 1000}
    (claim,) = claims_of(tmp_path, found, {"claim": "x"})
    assert "size_share" not in claim
    assert claim["margin"] is None
    assert (claim["method"], claim["against"]) == ("cfm", "baseline")


def test_a_query_that_moves_both_gains_counts_as_one(tmp_path: Path) -> None:
    """Gains at two fractions that differ by a constant in every query differ for sure."""
    found = contrasts({FULL: 0.02, HALF: 0.02})
    full = Values(values_of(found, FULL).differences, np.full((5, 300), 0.4))
    put(found, FULL, "recall@10", full)
    put(found, HALF, "recall@10", full._replace(differences=full.differences + 0.01))
    (claim,) = claims_of(tmp_path, found, {"claim": "x", "fractions": [0.5], "grows_from": 1.0})
    assert claim["ours"] == pytest.approx(0.025)
    assert claim["low"] == pytest.approx(0.025)
    assert claim["high"] == pytest.approx(0.025)


def test_gains_on_parts_of_the_queries_are_compared_by_their_influence(tmp_path: Path) -> None:
    """Against resampling queries and both gains with them, one seed's noise left out."""
    found = contrasts({FULL: 0.02})
    rng = np.random.default_rng(3)
    own, base = rng.normal(0, 0.2, 300), rng.normal(0.4, 0.1, 300)
    is_tail = np.arange(300) < 90
    tail = np.where(is_tail, own + rng.normal(0, 0.05, 300), np.nan)
    tail_base = np.where(is_tail, base - 0.2, np.nan)
    whole = put(found, FULL, "recall@10", Values(np.tile(own, (5, 1)) + 0.1, np.tile(base, (5, 1))))
    part = put(
        found, FULL, "tail_recall@10", Values(np.tile(tail, (5, 1)), np.tile(tail_base, (5, 1)))
    )
    claim = {"claim": "x", "metric": "tail_recall@10", "more_than": "recall@10"}
    (row,) = claims_of(tmp_path, found, claim)
    drawn = rng.integers(0, 300, (4000, 300))
    gains = (own[drawn].mean(1) + 0.1) / base[drawn].mean(1)
    of_tail = np.nanmean(tail[drawn], axis=1) / np.nanmean(tail_base[drawn], axis=1)
    assert whole.gain is not None
    assert part.gain is not None
    assert row["ours"] == pytest.approx(part.gain.mean - whole.gain.mean)
    assert (row["high"] - row["low"]) / 2 == pytest.approx(1.96 * (of_tail - gains).std(), rel=0.06)
