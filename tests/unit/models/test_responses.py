"""Choices and their gradients, made in parts: against expressions over everything at once."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from twotower.models.embeddings import responses
from twotower.models.embeddings.softened import softened

SUBSPACES, CENTROIDS, WIDTH = 3, 5, 2


@pytest.fixture(params=[1 << 20, 4 * SUBSPACES * CENTROIDS, 1])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Responses held at once: all, of four rows, of one."""
    monkeypatch.setattr(responses, "_HELD_CPU", request.param)
    return request.param


def drawn(rows: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Rows, and weights of responses."""
    source = torch.Generator().manual_seed(rows)
    return (
        torch.randn(rows, SUBSPACES * WIDTH, generator=source, dtype=dtype),
        torch.randn(SUBSPACES, CENTROIDS, WIDTH + 2, generator=source, dtype=dtype),
    )


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [0, 1, 4, 11])
def test_the_largest_response_chooses(rows: int, dtype: torch.dtype) -> None:
    rows_uE, weights_DKp = drawn(rows, dtype)
    answers = responses.phi(rows_uE, SUBSPACES) @ weights_DKp.transpose(1, 2)
    assert responses.largest(rows_uE, weights_DKp).equal(answers.argmax(2).T)


def test_the_first_of_equal_responses_chooses() -> None:
    rows_uE, weights_DKp = drawn(6)
    weights_DKp[:] = weights_DKp[:, :1]
    assert not responses.largest(rows_uE, weights_DKp).any()


def test_fewer_subspaces_read_the_front_of_a_row() -> None:
    rows_uE, weights_DKp = drawn(6)
    whole = responses.largest(rows_uE, weights_DKp)
    assert responses.largest(rows_uE, weights_DKp[:2]).equal(whole[:, :2])


def test_gradients_are_needed_by_nobody_where_codes_are_chosen() -> None:
    rows_uE, weights_DKp = drawn(6)
    found = responses.largest(rows_uE.requires_grad_(), weights_DKp.requires_grad_())
    assert not found.requires_grad


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("rows", [1, 4, 11])
def test_the_gradient_is_that_of_a_softmax_straight_through(rows: int) -> None:
    rows_uE, weights_DKp = drawn(rows)
    phi_Dup = responses.phi(rows_uE, SUBSPACES)
    centroids_DKw = torch.linspace(-1, 2, SUBSPACES * CENTROIDS * WIDTH, dtype=torch.float64)
    centroids_DKw = centroids_DKw.sin().view(SUBSPACES, CENTROIDS, WIDTH)
    upstream = torch.linspace(-1, 1, SUBSPACES * rows * WIDTH, dtype=torch.float64)
    codes_Du = responses.largest(rows_uE, weights_DKp).T
    hard_DuK = F.one_hot(codes_Du, CENTROIDS).double()

    def gradients(*, ours: bool) -> tuple[Tensor, ...]:
        phi, weights, centroids = (
            tensor.clone().requires_grad_() for tensor in (phi_Dup, weights_DKp, centroids_DKw)
        )
        if ours:
            values = softened(hard_DuK @ centroids, phi, weights, centroids)
        else:
            soft_DuK = (phi @ weights.transpose(1, 2)).softmax(2)
            values = (hard_DuK + soft_DuK - soft_DuK.detach()) @ centroids
        return values, *torch.autograd.grad(
            (values.flatten() * upstream).sum(), (phi, weights, centroids)
        )

    for found, slow in zip(gradients(ours=True), gradients(ours=False), strict=True):
        torch.testing.assert_close(found, slow, rtol=1e-12, atol=1e-12)
