"""Which tiers a table has, and what a tier without values costs: nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from twotower.core.embedding_config import MGQE
from twotower.core.validation import validated
from twotower.models.embeddings import tiers
from twotower.models.embeddings.bags import Bags
from twotower.models.embeddings.store import EmbeddingStore
from twotower.models.embeddings.table import Served
from twotower.serving.tables import formula_bytes

torch.set_num_threads(1)

SIZE, WIDTH = 11, 4
COUNTS = np.array([0, 3, 9, 1, 7, 2, 2, 5, 0, 8, 4], dtype=np.int64)


def kind_of(given: list[dict[str, Any]], **settings: Any) -> MGQE:
    document = {"kind": "mgqe", "num_subspaces": 2, "tiers": given, **settings}
    return validated(MGQE, document, "test")


@pytest.mark.parametrize(
    ("shares", "sizes"),
    [
        ((0.5, 0.5000009, 0), (600_000, 600_000)),
        ((1, 9e-7, 0), (1_200_000,)),
        ((0.5, 0.4999991, 0), (600_000, 599_999, 1)),
    ],
)
def test_shares_whose_sum_is_not_quite_one_divide_all_values(
    shares: tuple[float, ...], sizes: tuple[int, ...]
) -> None:
    kind = kind_of([{"share": share, "num_centroids": 4} for share in shares])
    found = tiers.assign(kind, 1_200_000, np.zeros(1_200_000, dtype=np.int64))
    assert found.sizes == sizes
    assert np.bincount(found.of_values()).tolist() == list(sizes)


def trained(kind: MGQE) -> Served:
    """What a table serves after a few steps."""
    made = EmbeddingStore(
        {"a": SIZE}, WIDTH, init_std=0.5, seed=3, kinds={"a": kind}, counts={"a": COUNTS}
    )
    made.touched[:] = True
    ids = torch.arange(SIZE, dtype=torch.int32)
    for _ in range(5):
        made.lookup([Bags(ids, torch.ones(SIZE), ids, torch.ones_like(ids))])
    return made.served("a")


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("warmup_steps", [0, 1])
@pytest.mark.parametrize("rounded", [0, 0.005])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_tier_that_no_value_is_in_takes_nothing(
    place: int, rounded: float, warmup_steps: int, batch_norm: bool
) -> None:
    """A share of 0, or one that is rounded to no value: the table is that of the other tiers."""
    settings = {"revive_every": 2, "batch_norm": batch_norm, "warmup_steps": warmup_steps}
    given = [{"share": 0.4, "num_centroids": 3}, {"share": 0.6, "num_centroids": 4}]
    more = [dict(tier) for tier in given]
    more[min(place, 1)]["share"] -= rounded
    more.insert(place, {"share": rounded, "num_centroids": 256})
    plain, served = (trained(kind_of(tier, **settings)).table for tier in (given, more))
    assert served.settings == plain.settings
    assert served.tensors.keys() == plain.tensors.keys()
    for name, tensor in plain.tensors.items():
        assert served.tensors[name].tobytes() == tensor.tobytes(), name
    assert served.tensors["centroids"].shape == (2, 4, WIDTH // 2)
    assert served.payload_bytes() == formula_bytes("dpq", served.settings, SIZE, WIDTH)


def test_centroids_that_only_an_empty_tier_has_are_not_made() -> None:
    given = [{"share": 0, "num_centroids": 256}, {"share": 1, "num_centroids": 4}]
    served = trained(kind_of(given)).table
    assert served.tensors["centroids"].shape == (2, 4, WIDTH // 2)
    assert served.settings == {"tiers": [{"rows": SIZE, "centroids": [4, 4]}]}
    assert served.payload_bytes() == 4 * 4 * WIDTH + (SIZE * 4 + 7) // 8


LIMITS = st.lists(st.integers(1, 5), min_size=1, max_size=4)
"""Centroids of each tier, in any order."""


@given(LIMITS, st.data(), st.integers(0, 2**16))
def test_the_dead_are_given_values_that_may_choose_them(
    limits: list[int], data: st.DataObject, seed: int
) -> None:
    counts = np.array([data.draw(st.integers(0, 3)) for _ in limits], dtype=np.int64)
    dead = np.array([[data.draw(st.booleans()) for _ in range(max(limits))] for _ in range(2)])
    made = tiers.Tiers(tuple((k, min(k, 2)) for k in limits), None, (1,) * len(limits))
    source = torch.Generator().manual_seed(seed)
    found = list(zip(*made.draw_able(dead, counts, source), strict=True))
    tier_of = np.repeat(np.arange(len(limits)), counts)
    able = {
        (d, k): {p for p, tier in enumerate(tier_of) if made.limits[tier][d] > k}
        for d, k in zip(*np.nonzero(dead), strict=True)
    }
    assert [(d, k) for d, k, _ in found] == [at for at, places in able.items() if places]
    assert all(place in able[d, k] for d, k, place in found)


def test_every_value_that_may_choose_a_centroid_is_drawn_alike() -> None:
    made = tiers.Tiers(((2,), (4,), (3,)), None, (1, 1, 1))
    source = torch.Generator().manual_seed(0)
    counts = np.array([2, 3, 1], dtype=np.int64)
    drawn = [made.draw_able(np.ones((1, 4), dtype=bool), counts, source)[2] for _ in range(6000)]
    for k, able in enumerate(([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [2, 3, 4, 5], [2, 3, 4])):
        found = np.bincount([places[k] for places in drawn], minlength=6) / 6000
        assert found == pytest.approx([(p in able) / len(able) for p in range(6)], abs=0.03)
