import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from twotower.models.scorers import PairNetwork
from twotower.objectives import softmax
from twotower.objectives.pairs import pair_softmax_loss
from twotower.objectives.softmax import Candidates, Exclusions, softmax_loss

torch.set_num_threads(1)


def slow_loss(anchor: Tensor, candidates: Candidates, weight: Tensor, temperature: float) -> Tensor:
    """One row at a time, one column at a time, repeated as often as it counts."""
    keys, columns, positive = (
        candidates.exclusions.keys,
        candidates.exclusions.columns,
        candidates.exclusions.positive,
    )
    total = anchor.new_zeros(())
    for i in range(len(anchor)):
        terms: list[Tensor] = []
        own = anchor.new_zeros(())
        for j in range(len(columns)):
            score = anchor[i] @ candidates.vectors[j] / temperature
            if candidates.bias is not None:
                score = score + candidates.bias[j]
            if j == positive[i]:
                own = score
                terms.append(score)
            elif columns[j] not in keys[i]:
                times = (
                    1
                    if candidates.log_counts is None
                    else round(math.exp(candidates.log_counts[j]))
                )
                terms += [score] * times
        total = total + weight[i] * (torch.logsumexp(torch.stack(terms), 0) - own)
    return total


def example(
    seed: int, rows: int = 7, columns: int = 11, items: int = 5, *, extras: bool = True
) -> tuple[Tensor, Candidates, Tensor]:
    g = torch.Generator().manual_seed(seed)
    anchor = F.normalize(
        torch.randn(rows, 4, generator=g, dtype=torch.float64), dim=1
    ).requires_grad_()
    vectors = F.normalize(
        torch.randn(columns, 4, generator=g, dtype=torch.float64), dim=1
    ).requires_grad_()
    item = torch.randint(items, (columns,), generator=g)
    positive = torch.randint(columns, (rows,), generator=g)
    own = torch.randint(-1, items, (rows,), generator=g)
    exclusions = Exclusions(torch.stack([item[positive], own], 1), item, positive)
    bias = torch.randn(columns, generator=g, dtype=torch.float64) if extras else None
    counts = torch.randint(1, 5, (columns,), generator=g).double().log() if extras else None
    return (
        anchor,
        Candidates(vectors, exclusions, bias, counts),
        torch.rand(rows, generator=g, dtype=torch.float64),
    )


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1 << 30), block=st.sampled_from([1, 22, 40, 1 << 20]), extras=st.booleans()
)
def test_value_and_gradients_equal_the_row_by_row_version(
    seed: int, block: int, extras: bool
) -> None:
    anchor, candidates, weight = example(seed, extras=extras)
    expected = slow_loss(anchor, candidates, weight, 0.2)
    wanted = torch.autograd.grad(expected, [anchor, candidates.vectors])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(softmax, "_BLOCK_CPU", block)
        loss = softmax_loss(anchor, candidates, weight, temperature=0.2)
        got = torch.autograd.grad(3 * loss, [anchor, candidates.vectors])
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, 3 * b, rtol=1e-10, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1 << 30), block=st.sampled_from([1, 99, 200, 1 << 20]))
def test_a_network_over_pairs_in_blocks_equals_plain_autograd(seed: int, block: int) -> None:
    anchor, candidates, weight = example(seed)
    network = PairNetwork(1, (3, 2), torch.Generator().manual_seed(seed)).double()
    leaves = [anchor, candidates.vectors, *network.parameters()]
    scores = network(anchor, candidates.vectors) / 0.2
    eye = torch.eye(len(candidates.vectors), dtype=torch.float64)
    expected = slow_loss(scores, replace(candidates, vectors=eye), weight, 1.0)
    wanted = torch.autograd.grad(expected, leaves)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(softmax, "_BLOCK_CPU", block)
        loss = pair_softmax_loss(network, anchor, candidates, weight, temperature=0.2)
        got = torch.autograd.grad(3 * loss, leaves)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, 3 * b, rtol=1e-10, atol=1e-12)


def test_comparing_all_pairs_leaves_out_the_same_ones_as_listing_them() -> None:
    for seed in range(20):
        _, candidates, _ = example(seed)
        exclusions = candidates.exclusions
        listed, compared = torch.zeros(5, 11), torch.zeros(5, 11)
        exclusions._fill_listed_(listed, 2, -math.inf)
        exclusions._fill_all_(compared, 2, -math.inf)
        assert torch.equal(listed, compared)


def test_a_hopeless_positive_still_has_its_exact_loss_in_float32() -> None:
    anchor = torch.tensor([[1.0, 0.0]], requires_grad=True)
    vectors = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    exclusions = Exclusions(torch.tensor([[0]]), torch.tensor([0, 1]), torch.tensor([0]))
    loss = softmax_loss(anchor, Candidates(vectors, exclusions), torch.ones(1), temperature=0.01)
    assert loss.detach().item() == pytest.approx(200.0)


def test_bf16_products_stay_near_float32() -> None:
    anchor, candidates, weight = example(3, rows=50, columns=60, items=30, extras=False)
    exact = softmax_loss(
        anchor.float(),
        Candidates(candidates.vectors.float(), candidates.exclusions),
        weight.float(),
        temperature=0.1,
    )
    vectors = candidates.vectors.detach().float().requires_grad_()
    near = softmax_loss(
        anchor.float(),
        Candidates(vectors, candidates.exclusions),
        weight.float(),
        temperature=0.1,
        bf16=True,
    )
    near.backward()
    assert near.detach().item() == pytest.approx(exact.detach().item(), rel=0.02)
    assert vectors.grad is not None
    assert vectors.grad.dtype == torch.float32


def test_no_anchors_give_zero_and_zero_gradients() -> None:
    vectors = torch.randn(3, 2, requires_grad=True)
    anchor = torch.randn(0, 2, requires_grad=True)
    none = torch.empty(0, dtype=torch.int64)
    exclusions = Exclusions(none.view(0, 2), torch.arange(3), none)
    loss = softmax_loss(anchor, Candidates(vectors, exclusions), torch.empty(0), temperature=1.0)
    loss.backward()
    assert loss.detach().item() == 0
    assert vectors.grad is not None
    assert not vectors.grad.any()
