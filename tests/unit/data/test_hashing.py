import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prepare_slow import hash_text
from prepare_slow import keyed as slow_keyed
from prepare_slow import mix as slow_mix
from twotower.core.hashing import bucket_of, mix
from twotower.data.hashing import below, hash_strings, keyed, symmetric

WORDS = st.integers(0, 2**64 - 1)


@given(st.lists(WORDS, min_size=1), WORDS)
def test_mix_and_keyed_equal_python_integers(words: list[int], seed: int) -> None:
    array = np.array(words, dtype=np.uint64)
    assert mix(array).tolist() == [slow_mix(word) for word in words]
    assert keyed(seed, array, array[::-1].copy()).tolist() == [
        slow_keyed(seed, *pair) for pair in zip(words, words[::-1], strict=True)
    ]


@given(st.lists(st.text(max_size=40)), st.integers(0, 3))
def test_hash_of_strings_equals_python_integers(texts: list[str], start: int) -> None:
    for kind in (pa.string(), pa.large_string()):
        array = pa.array(texts, kind)[start:]
        assert hash_strings(array).tolist() == [hash_text(text) for text in texts[start:]]


def test_hash_of_strings_tells_padding_apart() -> None:
    texts = ["", "\0", "\0\0", "a", "a\0", "12345678", "12345678\0"]
    assert len(set(hash_strings(pa.array(texts)).tolist())) == len(texts)


def test_hash_of_strings_spreads_evenly() -> None:
    hashes = hash_strings(pa.array([f"id-{n}" for n in range(64_000)]))
    counts = np.bincount(bucket_of(hashes, 64), minlength=64)
    assert ((counts - 1000) ** 2 / 1000).sum() < 120  # chi-square of 63 degrees: 1 in 30,000


@given(st.lists(WORDS, min_size=1), st.integers(1, 2**31 - 1))
def test_buckets_rise_with_the_hash(words: list[int], number: int) -> None:
    hashes = np.sort(np.array(words, dtype=np.uint64))
    buckets = bucket_of(hashes, number)
    assert buckets.min() >= 0
    assert buckets.max() < number
    assert (np.diff(buckets) >= 0).all()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_below_takes_the_share(share: float) -> None:
    hashes = keyed(1, np.arange(20_000, dtype=np.uint64))
    assert abs(below(hashes, share).mean() - share) < 0.02


def test_symmetric_has_no_direction() -> None:
    left, right = np.arange(50, dtype=np.uint64), np.arange(50, dtype=np.uint64)[::-1].copy()
    assert (symmetric(3, left, right) == symmetric(3, right, left)).all()
    assert (keyed(3, left, right) != keyed(3, right, left)).all()
