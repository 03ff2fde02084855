import numpy as np
import pytest

from twotower.evaluation.power import seeds_for_margin
from twotower.evaluation.two_way import effects
from twotower.evaluation.verdict import not_worse


@pytest.mark.parametrize(("spread", "margin"), [(0.006, 0.02), (0.012, 0.02), (0.02, 0.05)])
def test_equal_methods_are_found_not_worse_about_as_often_as_promised(
    spread: float, margin: float
) -> None:
    rng = np.random.default_rng(0)
    planned = 0.5 * (1 + spread * rng.standard_normal(10_000))
    seeds = seeds_for_margin(planned.tolist(), margin)
    assert seeds is not None
    found = 0
    for _ in range(600):
        shifts = 0.5 * spread * rng.standard_normal((2, seeds, 1))
        noise = 1e-3 * rng.standard_normal((2, seeds, 40))
        first, second = 0.5 + shifts + noise
        one = effects({0: (second - first) / 0.5})[0]
        found += not_worse(one, margin).word == "holds"
    assert 0.86 < found / 600 <= 1


def test_more_spread_takes_more_seeds_and_much_too_much_is_said() -> None:
    counts = [seeds_for_margin([1 - s, 1.0, 1 + s], 0.02) for s in (0.001, 0.01, 0.02, 0.05)]
    assert counts == sorted(counts, key=lambda n: n or 0)
    assert counts[0] == 2
    assert seeds_for_margin([0.1, 1.0, 2.0], 0.02) is None
