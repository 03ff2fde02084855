import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower.evaluation.slices import DEFINITIONS, slice_masks
from twotower.evaluation.ties import tie_keys

NAMES = tuple(DEFINITIONS)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=80))
def test_slices_equal_a_slow_cut_and_cover_the_catalogue(counts: list[int]) -> None:
    keys = tie_keys([str(index) for index in range(len(counts))])
    seen = [item for item in range(len(counts)) if counts[item] > 0]
    seen.sort(key=lambda item: (-counts[item], keys[item]))
    head = {item for place, item in enumerate(seen) if place < len(seen) / 10}
    torso = {item for place, item in enumerate(seen) if len(seen) / 10 <= place < len(seen) / 2}
    tail = {item for place, item in enumerate(seen) if place >= len(seen) / 2}
    masks = slice_masks(np.array(counts), keys, NAMES)
    found = {name: set(np.flatnonzero(mask).tolist()) for name, mask in masks.items()}
    everything = set(range(len(counts)))
    assert found == {
        "head": head,
        "torso": torso,
        "tail": tail,
        "unseen": everything - set(seen),
        "not_head": everything - head,
    }


def test_sizes_are_exact_though_counts_are_tied() -> None:
    masks = slice_masks(np.ones(1000, dtype=np.int64), tie_keys(map(str, range(1000))), NAMES)
    sizes = {name: int(mask.sum()) for name, mask in masks.items()}
    assert sizes == {"head": 100, "torso": 400, "tail": 500, "unseen": 0, "not_head": 900}


def test_slices_move_with_their_items() -> None:
    rng = np.random.default_rng(3)
    counts, keys = rng.integers(0, 3, 200), tie_keys(map(str, range(200)))
    order = rng.permutation(200)
    here, there = slice_masks(counts, keys, NAMES), slice_masks(counts[order], keys[order], NAMES)
    for name in NAMES:
        assert np.array_equal(here[name][order], there[name])


@pytest.mark.parametrize("names", [(), ("tail",), ("unseen", "head")])
def test_only_the_named_slices_are_made(names: tuple[str, ...]) -> None:
    masks = slice_masks(np.arange(10), tie_keys(map(str, range(10))), names)
    assert tuple(masks) == names
