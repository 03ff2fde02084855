"""Retrieval, contrastive and spread-out losses against versions that walk the batch row by row."""

import math
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from twotower.objectives.contrastive import contrastive_loss, identical_share, view_signature
from twotower.objectives.retrieval import RetrievalRows, retrieval_loss
from twotower.objectives.spread_out import spread_out_loss

torch.set_num_threads(1)


def unit(rows: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return F.normalize(
        torch.randn(rows, 4, generator=g, dtype=torch.float64), dim=1
    ).requires_grad_()


def assert_same(fast: Tensor, slow: Tensor, *leaves: Tensor) -> None:
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-13)
    for a, b in zip(
        torch.autograd.grad(fast, leaves), torch.autograd.grad(slow, leaves), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("with_bias", [False, True])
def test_retrieval_equals_the_loop_over_a_column_a_row(with_bias: bool) -> None:
    items = [4, 7, 4, 2, 7, 4]  # rows of the batch
    own = [7, -1, 2, 9, 5, 4]  # item that the query is itself; the last one is its row's item
    mixed = [5, 4, 8]
    weight = torch.tensor([1.0, 2, 1, 3, 1, 2], dtype=torch.float64)
    distinct = [2, 4, 7]
    query, vectors = unit(6, 1), unit(6, 2)  # candidates: distinct items, then mixed ones
    bias = torch.randn(6, dtype=torch.float64) if with_bias else None
    place = [distinct.index(i) for i in items]
    rows = RetrievalRows(
        items=torch.tensor(items),
        own=torch.tensor(own),
        weight=weight / weight.sum(),
        positive=torch.tensor(place),
        columns=torch.tensor(distinct + mixed),
        log_counts=torch.tensor([1.0, 3, 2, 1, 1, 1], dtype=torch.float64).log(),
        bias=bias,
    )
    fast = retrieval_loss(query, vectors, rows, temperature=0.3)

    slow = query.new_zeros(())
    for i in range(6):
        logits: list[Tensor] = []
        positive = query.new_zeros(())
        columns = [(items[j], place[j]) for j in range(6)] + [
            (m, 3 + k) for k, m in enumerate(mixed)
        ]
        for j, (item, at) in enumerate(columns):
            score = query[i] @ vectors[at] / 0.3 + (0 if bias is None else bias[at])
            if j == i:
                positive = score
            elif item in (items[i], own[i]):
                continue
            logits.append(score)
        slow = slow + weight[i] / weight.sum() * (
            torch.logsumexp(torch.stack(logits), 0) - positive
        )
    assert_same(fast, slow, query, vectors)


def test_contrastive_equals_the_loop() -> None:
    items = torch.tensor([3, 8, 3, 5, 8])
    first, second = unit(3, 3), unit(5, 4)  # this rank holds rows 1..3 of 5
    fast = contrastive_loss(first, second, (items[1:4], items), 1, temperature=0.2)
    slow = first.new_zeros(())
    for i in range(3):
        logits = [
            first[i] @ second[j] / 0.2 for j in range(5) if j == i + 1 or items[j] != items[i + 1]
        ]
        slow = slow + (torch.logsumexp(torch.stack(logits), 0) - first[i] @ second[i + 1] / 0.2) / 5
    assert_same(fast, slow, first, second)


@pytest.mark.parametrize("kind", ["softmax", "squared"])
def test_spread_out_equals_the_loop_over_rows(kind: Literal["softmax", "squared"]) -> None:
    vectors = unit(4, 5)
    items, counts = torch.tensor([6, 1, 6, 9]), [2, 3, 1, 2]  # item 6 comes from two ranks
    fast = sum(
        (
            spread_out_loss(
                kind, vectors, items, torch.tensor(counts).double(), own, temperature=0.4
            )
            for own in (slice(0, 2), slice(2, 4))
        ),
        vectors.new_zeros(()),
    )
    rows = [j for j in range(4) for _ in range(counts[j])]
    slow = vectors.new_zeros(())
    for i in rows:
        others = [vectors[i] @ vectors[j] for j in rows if items[j] != items[i]]
        if kind == "squared":
            slow = slow + torch.stack(others).square().sum() / len(rows)
        else:
            same = math.exp(1 / 0.4)
            slow = slow - torch.log(same / (same + (torch.stack(others) / 0.4).exp().sum())) / len(
                rows
            )
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-13)
    # The softmax form scores a row against itself: as numbers 1, as gradients radial, which the
    # L2 norm in front of it cuts off. So gradients agree along the sphere.
    fast_grad, slow_grad = (torch.autograd.grad(x, vectors)[0] for x in (fast, slow))
    radial = lambda g: (g * vectors).sum(1, keepdim=True) * vectors  # noqa: E731
    torch.testing.assert_close(
        fast_grad - radial(fast_grad), slow_grad - radial(slow_grad), rtol=1e-10, atol=1e-13
    )


def test_identical_views_are_those_of_other_items_only() -> None:
    # Three rows, two features: rows 0 and 2 show the same; row 1 has the value in the other feature.
    bag = torch.tensor([0, 0, 3, 3, 4, 4], dtype=torch.int32)
    ids = torch.tensor([5, 9, 5, 9, 9, 5], dtype=torch.int32)
    signature = view_signature(ids, bag, 2, torch.tensor([[0.5], [0.5], [0.5]]))
    assert signature[0] == signature[2]
    assert signature[0] != signature[1]
    assert identical_share(signature, torch.tensor([7, 8, 6])).item() == pytest.approx(2 / 3)
    assert identical_share(signature, torch.tensor([7, 8, 7])).item() == 0
    other = view_signature(ids, bag, 2, torch.tensor([[0.5], [0.5], [0.25]]))
    assert other[0] == signature[0]
    assert other[0] != other[2]
