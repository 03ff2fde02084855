"""Codes as they are served: against plain Python, and on processors that add in other orders."""

import os
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from twotower.core.sums import tree_sum
from twotower.models.embeddings import responses, settled

SUBSPACES, CENTROIDS, WIDTH = 3, 7, 4

MADE_ELSEWHERE = """
import hashlib, torch
from twotower.core.embedding_config import Embeddings
from twotower.core.validation import validated
from twotower.models.embeddings.store import EmbeddingStore

kinds = validated(Embeddings, {"item": {
    "near": {"kind": "dpq_vq", "num_subspaces": 4, "num_centroids": 34},
    "like": {"kind": "dpq_sx", "num_subspaces": 4, "num_centroids": 34},
    "bits": {"kind": "scalar", "bits": 8},
}}, "here").item
store = EmbeddingStore({"near": 4000, "like": 4000, "bits": 99}, 64, init_std=0.5, seed=1, kinds=kinds)
store.touched[:] = True
source = torch.Generator().manual_seed(2)

def drawn(*shape):  # not normal_, whose bits go by the processor too
    return torch.randint(-999, 1000, shape, generator=source) / 1024

store.kinds["bits"].log_step.data = drawn(64) - 2
store.weight[store.offsets["bits"] :] = 1 / 3
for name in ("near", "like"):
    # Pairs of centroids that mirror each other, and rows and moments that don't tell them apart:
    # which one is nearer is a matter of rounding alone.
    table = store.kinds[name]
    for weights in table.parameters():
        weights.data = drawn(4, 34, 16)
        weights.data[:, 1::2] = weights.data[:, ::2].flip(2)
    moments = torch.full((18, 18), 0.3, dtype=torch.float64) + 2 * torch.eye(18)
    moments[-2, -2], moments[-1, -1] = 900.7, 1
    moments[-2, -1] = moments[-1, -2] = 18.1
    table.moments.copy_(moments)
    start = store.offsets[name]
    store.weight[start : start + 4000] = drawn(4000, 4, 1).expand(-1, -1, 16).flatten(1)
for name in kinds:
    tensors = store.served(name).table.tensors
    print(name, [hashlib.sha256(tensors[key].tobytes()).hexdigest() for key in sorted(tensors)])
"""


def drawn(rows: int) -> tuple[Tensor, Tensor]:
    """Rows, half of them of equal numbers; weights of responses, every second one a mirror.

    To such rows a response and its mirror are equal but for rounding.
    """
    source = torch.Generator().manual_seed(rows)
    rows_uE = torch.randn(rows, SUBSPACES * WIDTH, generator=source)
    rows_uE[: rows // 2] = torch.randn(rows // 2, 1, generator=source)
    weights_DKp = torch.randn(SUBSPACES, CENTROIDS, WIDTH + 2, generator=source).double() / 3
    weights_DKp[:, 1::2] = weights_DKp[:, :-1:2]
    weights_DKp[:, 1::2, :WIDTH] = weights_DKp[:, :-1:2, :WIDTH].flip(2)
    return rows_uE, weights_DKp


def by_halves(terms: Sequence[float]) -> float:
    """Add the upper half onto the lower until one is left."""
    while len(terms) > 1:
        half = len(terms) // 2
        upper = terms[len(terms) - half :]
        terms = [a + b for a, b in zip(terms, upper, strict=False)] + [
            *terms[half : len(terms) - half]
        ]
    return terms[0]


@pytest.mark.parametrize("held", [1 << 20, 4 * SUBSPACES * CENTROIDS, 1])
def test_codes_are_those_of_sums_by_halves(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "_HELD_CPU", held)
    rows_uE, weights_DKp = drawn(60)
    for row, codes in zip(rows_uE.tolist(), settled.largest(rows_uE, weights_DKp), strict=True):
        for d, weights in enumerate(weights_DKp.tolist()):
            part = row[d * WIDTH : (d + 1) * WIDTH]
            phi = [*part, by_halves([x * x for x in part]), 1.0]
            answers = [by_halves([a * b for a, b in zip(phi, of, strict=True)]) for of in weights]
            assert codes[d] == answers.index(max(answers))


def test_some_rows_are_too_close_for_a_library() -> None:
    """Or the test above would hold of any product."""
    rows_uE, weights_DKp = drawn(4000)
    phi_Dup = responses.phi(rows_uE.double(), SUBSPACES)
    ordered = tree_sum(phi_Dup[:, :, None] * weights_DKp[:, None]).argmax(2)
    assert not ordered.equal((phi_Dup @ weights_DKp.transpose(1, 2)).argmax(2))
    assert settled.largest(rows_uE, weights_DKp).equal(ordered.T)


def test_the_first_of_equal_responses_chooses() -> None:
    rows_uE, weights_DKp = drawn(20)
    weights_DKp[:] = weights_DKp[:, :1].clone()
    assert not settled.largest(rows_uE, weights_DKp).any()


def test_one_centroid_is_everybodys() -> None:
    rows_uE, weights_DKp = drawn(20)
    assert not settled.largest(rows_uE, weights_DKp[:, :1]).any()


def test_rows_far_from_zero_keep_their_codes() -> None:
    """Against fractions: a variance that is a difference of two large numbers loses nothing."""
    source = torch.Generator().manual_seed(5)
    rows_uw = torch.randn(80, 2, generator=source) + 100
    centroids_1Kw = (torch.randn(1, 5, 2, generator=source) + 100).double()
    phi_1up = responses.phi(rows_uw.double(), 1)
    moments_1pp = responses.moments(phi_1up, torch.ones(80)) / 80
    weights_1Kp = settled.normalised(responses.nearness(centroids_1Kw), moments_1pp)
    found = settled.largest(rows_uw, weights_1Kp)[:, 0].tolist()

    rows = [[Fraction(x) for x in row] for row in rows_uw.tolist()]
    apart = [
        [-sum((x - Fraction(y)) ** 2 for x, y in zip(row, centroid, strict=True)) for row in rows]
        for centroid in centroids_1Kw[0].tolist()
    ]
    means = [sum(one) / 80 for one in apart]
    variances = [sum((x - m) ** 2 for x in one) / 80 for one, m in zip(apart, means, strict=True)]
    least = sum(variances) / 5 / 1000
    scales = [float(v + least) ** -0.5 for v in variances]
    for u, code in enumerate(found):
        answers = [float(one[u] - m) * s for one, m, s in zip(apart, means, scales, strict=True)]
        best = sorted(answers)[-1]
        assert answers[code] == pytest.approx(best, abs=1e-4)


def test_served_tables_are_the_same_on_another_processor() -> None:
    """Libraries told to add as older processors do: codes and steps don't move by a bit."""
    others = ({}, {"MKL_CBWR": "COMPATIBLE"}, {"ATEN_CPU_CAPABILITY": "default"})
    made = [
        subprocess.run(
            [sys.executable, "-c", MADE_ELSEWHERE],
            env=os.environ | {"OMP_NUM_THREADS": "1"} | other,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for other in others
    ]
    assert made[0].count("\n") == 3
    assert made == [made[0]] * 3
