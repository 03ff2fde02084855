"""Points are spread at the start, never repeated, and independent of where a search was cut."""

import math

import pytest

from twotower.core.space import Dimension, SearchSpace
from twotower.runtime.journal import Trial
from twotower.runtime.proposals import Proposer, importances, num_spread, spread

SPACE = SearchSpace(
    (
        Dimension("ssl.weight", "float", 0.03, 3.0, log=True),
        Dimension("ssl.mask_rate", "grid", values=(0.25, 0.5, 0.75)),
        Dimension("ssl.masking", "choice", values=("rfm", "cfm")),
        Dimension("model.out_dim", "int", 8, 64, step=8),
    )
)
FINITE = SearchSpace(SPACE.dimensions[1:3])


def value_of(trial: Trial) -> float:
    return -abs(math.log(trial.params["ssl.weight"] / 0.5))


def proposer(space: SearchSpace, known: list[Trial], num_trials: int = 30) -> Proposer:
    return Proposer(space, seed=7, num_trials=num_trials, first=None, known=known)


def run(space: SearchSpace, count: int, known: list[Trial] | None = None) -> list[Trial]:
    trials = list(known or [])
    source = proposer(space, trials)
    for number in range(len(trials), len(trials) + count):
        proposal = source.propose()
        if proposal is None:
            break
        source.start(number, *proposal)
        trial = Trial(number, proposal[0], "complete")
        score = value_of(trial) if "ssl.weight" in trial.params else float(number)
        trials.append(Trial(number, proposal[0], "complete", score))
        source.finish(trials[-1])
    return trials


def test_the_start_uses_each_part_of_each_range_once() -> None:
    points = spread(SPACE, 10, seed=1)
    edges = [0.03 * 100 ** (i / 10) for i in range(11)]
    parts = [sum(p["ssl.weight"] >= edge * 0.9999 for edge in edges) - 1 for p in points]
    assert sorted(parts) == list(range(10))
    assert {p["ssl.masking"] for p in points} == {"rfm", "cfm"}
    assert {p["ssl.mask_rate"] for p in points} == {0.25, 0.5, 0.75}
    assert all(p["model.out_dim"] in range(8, 65, 8) for p in points)
    assert spread(SPACE, 10, seed=1) == points
    assert spread(SPACE, 10, seed=2) != points


@pytest.mark.parametrize(("trials", "points"), [(1, 1), (8, 4), (24, 8), (100, 10)])
def test_the_start_is_a_third_of_the_trials_within_bounds(trials: int, points: int) -> None:
    assert num_spread(trials) == points


def test_the_search_closes_in_and_repeats_no_point() -> None:
    trials = run(SPACE, 30)
    assert len({str(t.params) for t in trials}) == 30
    late = sorted(abs(value_of(t)) for t in trials[-10:])
    early = sorted(abs(value_of(t)) for t in trials[:10])
    assert late[5] < early[5]


def test_a_resumed_search_repeats_nothing_and_goes_on_with_the_start() -> None:
    first = run(SPACE, 4)
    assert [t.params for t in first] == spread(SPACE, num_spread(30), 7)[:4]
    resumed = run(SPACE, 26, first)
    assert [t.params for t in resumed[:10]] == spread(SPACE, num_spread(30), 7)
    assert len({str(t.params) for t in resumed}) == 30
    again = run(SPACE, 26, first)
    assert again == resumed


def test_a_finite_space_is_used_up_and_then_ends() -> None:
    trials = run(FINITE, 50)
    assert len(trials) == FINITE.size == 6
    assert len({str(t.params) for t in trials}) == 6


def test_the_configs_own_point_comes_first() -> None:
    own = {
        "ssl.weight": 1.0,
        "ssl.mask_rate": 0.5,
        "ssl.masking": "cfm",
        "model.out_dim": 64,
    }
    source = Proposer(SPACE, seed=7, num_trials=30, first=own, known=[])
    proposal = source.propose()
    assert proposal is not None
    assert proposal[0] == own


def test_failed_and_diverged_trials_teach_nothing_but_are_not_tried_again() -> None:
    source = proposer(SPACE, [])
    for number, state in enumerate(("failed", "diverged", "pruned")):
        proposal = source.propose()
        assert proposal is not None
        source.start(number, *proposal)
        source.finish(Trial(number, proposal[0], state, 0.5))
    known = [Trial(0, spread(SPACE, 10, 7)[0], "failed"), Trial(1, spread(SPACE, 10, 7)[1])]
    proposal = proposer(SPACE, known).propose()
    assert proposal is not None
    assert proposal[0] == spread(SPACE, 10, 7)[2]


def test_importances_find_the_parameter_that_matters() -> None:
    trials = run(SPACE, 30)
    found = importances(SPACE, trials)
    assert max(found, key=lambda path: found[path]) == "ssl.weight"
    assert sum(found.values()) == pytest.approx(1.0)
    assert importances(SPACE, trials[:3]) == {}
    same = [Trial(t.number, t.params, "complete", 1.0) for t in trials]
    assert importances(SPACE, same) == {}
