from collections import defaultdict
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower.core.types import Ragged
from twotower.data import mutual_information as mi


def slow(left: list[list[int]], right: list[list[int]]) -> tuple[float, float, float]:
    """Entropies and information of two features of the same items, by loops; empty is -1."""
    both: dict[tuple[int, int], float] = defaultdict(float)
    for a, b in zip(left, right, strict=True):
        for x in a or [-1]:
            for y in b or [-1]:
                both[x, y] += 1 / len(a or [-1]) / len(b or [-1]) / len(left)
    first, second = defaultdict(float), defaultdict(float)
    for (x, y), mass in both.items():
        first[x] += mass
        second[y] += mass
    information = sum(m * log(m / first[x] / second[y]) for (x, y), m in both.items())
    return (
        -sum(m * log(m) for m in first.values()),
        -sum(m * log(m) for m in second.values()),
        information,
    )


ROWS = st.lists(
    st.tuples(st.lists(st.integers(1, 4), max_size=3), st.lists(st.integers(1, 4), max_size=3)),
    min_size=1,
    max_size=20,
)


@given(ROWS)
def test_equals_the_slow_version(rows: list[tuple[list[int], list[int]]]) -> None:
    left, right = [a for a, _ in rows], [b for _, b in rows]
    codes = [mi.codes_of_ids(Ragged.from_lists(lists)) for lists in (left, right)]
    found = mi.mutual_information(codes)
    first, second, information = slow(left, right)
    assert found.entropy == pytest.approx([first, second], abs=1e-9)
    assert found.raw[0, 1] == pytest.approx(information, abs=1e-9)
    assert found.raw[0, 1] == found.raw[1, 0]
    assert np.diag(found.raw) == pytest.approx(found.entropy)
    assert ((found.normalised >= 0) & (found.normalised <= 1)).all()


def test_information_with_the_id_is_the_entropy() -> None:
    ids = Ragged.from_lists([[n] for n in range(12)])
    other = Ragged.from_lists([[n % 3] for n in range(12)])
    found = mi.mutual_information([ids, other])
    assert found.raw[0, 1] == pytest.approx(log(3))
    assert found.normalised[0, 1] == pytest.approx(1.0)


def test_correction_is_that_of_miller_and_madow() -> None:
    left = Ragged.from_lists([[0], [0], [1], [1], [1], [0]])
    right = Ragged.from_lists([[0], [1], [0], [1], [1], [0]])
    found = mi.mutual_information([left, right])
    own = found.entropy + 1 / 12  # two values, six items
    joint = found.entropy.sum() - found.raw[0, 1] + 3 / 12  # four combinations
    assert found.normalised[0, 1] == pytest.approx(max(own.sum() - joint, 0) / own.min())


def test_pieces_give_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    codes = [
        mi.codes_of_ids(
            Ragged.from_lists([rng.integers(1, 9, rng.integers(0, 4)).tolist() for _ in range(200)])
        )
        for _ in range(2)
    ]
    whole = mi.mutual_information(codes)
    monkeypatch.setattr(mi, "_MOST_COMBINATIONS", 7)
    assert mi.mutual_information(codes).raw == pytest.approx(whole.raw)


def test_numbers_are_cut_into_ten_bins_of_equal_mass() -> None:
    numbers = np.append(np.random.default_rng(0).normal(size=1000), np.nan).astype(np.float32)
    counts = np.bincount(mi.codes_of_numbers(numbers).values)
    assert counts.tolist() == [1, *[100] * 10]
    assert mi.codes_of_numbers(np.full(3, 2.0, np.float32)).values.tolist() == [1, 1, 1]
    assert mi.codes_of_numbers(np.full(3, np.nan, np.float32)).values.tolist() == [0, 0, 0]
