"""Counter-based draws: known answers, the same bits everywhere, uniform and independent."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from twotower.core.seeding import (
    derive,
    integers,
    permutation,
    philox4x32,
    uniform,
    words,
)

INDEX = np.arange(200_000, dtype=np.int64)


def test_known_answers_of_the_published_generator() -> None:
    # Random123's kat_vectors file, philox4x32 10 rounds.
    full = np.array([0xFFFFFFFF], dtype=np.int64)
    zero = np.array([0], dtype=np.int64)
    ones, zeros = (full, full, full, full), (zero, zero, zero, zero)
    found = [
        [int(word[0]) for word in philox4x32(c, k)] for c, k in ((zeros, 0), (ones, 2**64 - 1))
    ]
    assert found[0] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert found[1] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**31), st.integers(0, 2**40))
def test_numpy_and_torch_draw_the_same_bits(seed: int, step: int, start: int) -> None:
    index = np.arange(start, start + 50, dtype=np.int64)
    tensor = torch.arange(start, start + 50)
    assert np.array_equal(uniform(seed, "x", step, index), uniform(seed, "x", step, tensor).numpy())
    assert np.array_equal(integers(seed, "x", step, index, 9), integers(seed, "x", step, tensor, 9))


@given(st.integers(1, 2**32), st.integers(0, 99))
def test_integers_stay_in_range(high: int, step: int) -> None:
    drawn = integers(1, "x", step, INDEX[:100], high)
    assert drawn.min() >= 0
    assert drawn.max() < high


def test_draws_are_uniform() -> None:
    counts = np.histogram(uniform(3, "x", 5, INDEX), bins=64, range=(0, 1))[0]
    expected = len(INDEX) / 64
    assert ((counts - expected) ** 2 / expected).sum() < 120  # chi-squared, 63 degrees of freedom


def test_purposes_steps_lanes_and_seeds_draw_apart() -> None:
    draws = [
        uniform(0, "a", 0, INDEX),
        uniform(0, "b", 0, INDEX),
        uniform(0, "a", 1, INDEX),
        uniform(0, "a", 0, INDEX, lane=1),
        uniform(1, "a", 0, INDEX),
    ]
    correlation = np.corrcoef(np.stack(draws)) - np.eye(len(draws))
    assert np.abs(correlation).max() < 0.01


def test_permutation_is_one() -> None:
    assert np.array_equal(np.sort(permutation(7, "p", 1000)), np.arange(1000))


def test_draws_never_change_between_releases() -> None:
    assert derive(0, "init", "item.id") == 12073601176317047468
    first, second = words(2026, "golden", 11, np.arange(3, dtype=np.int64))
    assert first.tolist() == [2908999337, 2241982063, 1496925961]
    assert second.tolist() == [694630841, 1604240886, 3879737867]
