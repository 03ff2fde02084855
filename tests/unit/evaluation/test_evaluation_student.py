import math

import numpy as np
import pytest
from scipy import stats

from twotower.evaluation import student

FREEDOM = (1, 1.5, 2, 3, 7.3, 30, 99, 101, 1000, 50_000, 10_000_000)


@pytest.mark.parametrize("df", FREEDOM)
def test_p_values_equal_scipy_far_into_the_tail(df: float) -> None:
    for t in (0.001, 0.1, 0.5, 1.0, 1.96, 3.0, 8.0, 30.0):
        expected = 2 * stats.t.sf(t, df)
        assert student.two_sided_p(t, df) == pytest.approx(expected, rel=1e-9)
        assert student.two_sided_p(-t, df) == student.two_sided_p(t, df)


@pytest.mark.parametrize("df", FREEDOM)
def test_quantiles_equal_scipy(df: float) -> None:
    for confidence in (0.5, 0.8, 0.95, 0.99, 0.9999):
        expected = stats.t.ppf((1 + confidence) / 2, df)
        assert student.quantile(confidence, df) == pytest.approx(expected, rel=1e-9)


def test_the_ends_of_the_line() -> None:
    assert student.two_sided_p(0.0, 5) == 1.0
    assert student.two_sided_p(math.inf, 5) == 0.0
    assert student.two_sided_p(1e-8, 1) == pytest.approx(1 - 2e-8 / np.pi, abs=1e-15)
    assert 0 < student.two_sided_p(1e6, 1) < 1e-6
