"""One word for a claim: a table of what was measured and what is said."""

import numpy as np
import pytest

from twotower.evaluation.significance import Comparison
from twotower.evaluation.two_way import Effect, effect, seeds_needed
from twotower.evaluation.verdict import Verdict, verdict

SIGNIFICANT, NOT = 0.049, 0.05


def measured(mean: float, num_seeds: int = 5) -> Effect:
    """An effect of the given mean whose half-width is near 0.03."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.02, (num_seeds, 1)) + rng.normal(0, 0.1, (num_seeds, 200))
    return effect(mean + noise - noise.mean(), None, Comparison(resamples=0))


@pytest.mark.parametrize(
    ("mean", "p_holm", "paper_gain", "word"),
    [
        (0.1, SIGNIFICANT, 0.5, "holds"),
        (-0.1, SIGNIFICANT, 0.5, "contradicted"),
        (-0.1, SIGNIFICANT, -0.5, "holds"),
        (0.1, SIGNIFICANT, -0.5, "contradicted"),
        (0.1, SIGNIFICANT, None, "holds"),
        (-0.1, SIGNIFICANT, None, "contradicted"),
        (0.1, SIGNIFICANT, 0.001, "holds"),
        (0.01, NOT, 0.5, "not_shown"),
        (-0.01, NOT, -0.5, "not_shown"),
        (0.01, None, 0.5, "not_shown"),
        (0.01, NOT, 0.05, "underpowered"),
        (0.01, NOT, None, "underpowered"),
    ],
)
def test_words(mean: float, p_holm: float | None, paper_gain: float | None, word: str) -> None:
    assert verdict(measured(mean), p_holm, first=0.4, paper_gain=paper_gain).word == word


def test_narrow_is_half_of_the_papers_gain_in_the_metrics_own_unit() -> None:
    found = measured(0.0)
    assert found.half_width is not None
    first = 0.4
    edge = 2 * found.half_width / first
    assert verdict(found, 1.0, first=first, paper_gain=edge * 1.001).word == "not_shown"
    under = verdict(found, 1.0, first=first, paper_gain=edge * 0.999)
    assert under.word == "underpowered"
    assert under.seeds_needed is not None
    assert under.seeds_needed > 5


def test_underpowered_says_how_many_seeds_it_would_take() -> None:
    found = measured(0.0)
    for gain in (0.03, 0.06):
        needed = seeds_needed(found, 0.5 * gain * 0.4)
        assert needed is not None
        assert verdict(found, 1.0, first=0.4, paper_gain=gain) == Verdict("underpowered", needed)
        assert verdict(found, 1.0, first=0.4, paper_gain=-gain) == Verdict("underpowered", needed)
    assert verdict(found, 1.0, first=0.0, paper_gain=0.1) == Verdict("underpowered", None)


def test_queries_alone_too_few_means_no_number_of_seeds() -> None:
    queries = np.random.default_rng(1).normal(0, 0.3, 30)
    found = effect(np.tile(queries, (5, 1)), None, Comparison(resamples=0))
    assert verdict(found, 1.0, first=0.4, paper_gain=0.1) == Verdict("underpowered", None)


def test_one_seed_or_no_interval_never_decides() -> None:
    alone = measured(0.1, num_seeds=1)
    assert verdict(alone, SIGNIFICANT, first=0.4, paper_gain=0.5) == Verdict("underpowered")
    empty = effect(np.full((5, 3), np.nan))
    assert verdict(empty, None, first=0.4, paper_gain=0.5) == Verdict("underpowered")


def test_a_claim_needs_a_direction() -> None:
    with pytest.raises(ValueError, match="claims no direction"):
        verdict(measured(0.0), 1.0, first=0.4, paper_gain=0.0)
