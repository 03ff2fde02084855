"""Claims held against contrasts: relative gains, growth between fractions, families of Holm."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_study import small_study
from twotower.core.types import Float64
from twotower.evaluation.two_way import Effect, effects
from twotower.study.claims import hold
from twotower.study.load import load_study
from twotower.study.tables import Contrasts

FULL, HALF = ("small", 1.0), ("small", 0.5)


def table(mean: float, seed: int, spread: float = 0.1) -> Float64:
    """Differences of 5 seeds on 300 queries."""
    rng = np.random.default_rng(seed)
    shift = rng.normal(0, 0.002, (5, 1)) + rng.normal(0, spread, 300)
    return mean + shift + rng.normal(0, spread, (5, 300))


def contrasts(means: dict[tuple[str, float], float], first: float = 0.4) -> Contrasts:
    found = Contrasts()
    for number, (place, mean) in enumerate(means.items()):
        for metric in ("recall@10", "tail_recall@10"):
            name = (place, "cfm", "baseline", metric)
            found.effects[name] = effects({0: table(mean, number)})[0]
            found.firsts[name] = first
    return found


def claims_of(tmp_path: Path, found: Contrasts, *claims: dict[str, Any]) -> list[dict[str, Any]]:
    base = {"method": "cfm", "against": "baseline", "metric": "recall@10"}
    study = load_study(small_study(tmp_path, claims=[{**base, **claim} for claim in claims]))
    return hold(study, found)


def test_a_claim_is_the_relative_difference_with_its_interval(tmp_path: Path) -> None:
    found = contrasts({FULL: 0.05})
    name = (FULL, "cfm", "baseline", "recall@10")
    found.p_holm[name] = 0.001
    (claim,) = claims_of(tmp_path, found, {"claim": "x", "paper": 0.04})
    effect = found.effects[name]
    assert effect.low is not None
    assert claim["ours"] == pytest.approx(effect.mean / 0.4)
    assert claim["low"] == pytest.approx(effect.low / 0.4)
    assert (claim["p_holm"], claim["verdict"]) == (0.001, "holds")


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
    parts = [found.effects[place, "cfm", "baseline", "recall@10"] for place in (HALF, FULL)]
    assert claim["ours"] == pytest.approx((parts[0].mean - parts[1].mean) / 0.4)
    half = (claim["high"] - claim["low"]) / 2
    assert max(_half(p) for p in parts) < half * 0.4 <= sum(_half(p) for p in parts)
    assert claim["note"] == "gain at 0.5 less that at 1.0"


def _half(effect: Effect) -> float:
    assert effect.half_width is not None
    return effect.half_width


def test_claims_outside_the_primary_family_share_one_of_their_own(tmp_path: Path) -> None:
    found = contrasts({FULL: 0.01})
    name = (FULL, "cfm", "baseline", "recall@10")
    found.effects[name] = replace(found.effects[name], p=0.03)
    one = {"claim": "x", "paper": 0.04}
    (alone,) = claims_of(tmp_path, found, one)
    assert alone["p_holm"] == pytest.approx(0.03)
    pair = claims_of(tmp_path, found, one, {"claim": "y", "paper": 0.04})
    assert [claim["p_holm"] for claim in pair] == pytest.approx([0.06, 0.06])


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
    name = (FULL, "cfm", "baseline", "recall@10")
    found.p_holm[name] = 0.001
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
    assert claim.keys().isdisjoint({"margin", "size_share"})
