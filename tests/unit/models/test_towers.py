"""How a tower ends: on the unit sphere, whose slope grows without bound towards zero."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from twotower.models.towers import Tower

torch.set_num_threads(1)


def rows_of_norm(*norms: float, width: int = 5) -> Tensor:
    drawn = torch.randn(len(norms), width, generator=torch.Generator().manual_seed(0))
    return F.normalize(drawn.double(), dim=1) * torch.tensor(norms).double()[:, None]


def gradient(tower: Tower, x: Tensor, pull: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    tower([leaf]).backward(pull)
    assert leaf.grad is not None
    return leaf.grad


def reference(x: Tensor, pull: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    F.normalize(leaf, dim=1).backward(pull)
    assert leaf.grad is not None
    return leaf.grad


def test_an_identity_tower_is_normalize_with_a_bounded_slope() -> None:
    """Of 0.1 and more: its gradient. Below: its direction, as long as at 0.1. At zero: the pull."""
    norms = (30.0, 0.11, 0.05, 1e-6, 0.0)
    tower = Tower((5,), seed=0, name="t")
    x, pull = rows_of_norm(*norms), torch.randn(len(norms), 5).double()
    assert torch.equal(tower([x]), F.normalize(x, dim=1))
    wanted = reference(x, pull) * (x.norm(dim=1, keepdim=True) / 0.1).clamp(max=1)
    wanted[4] = 10 * pull[4]
    torch.testing.assert_close(gradient(tower, x, pull), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("widths", [(5, 3), (5, 7, 3)])
def test_a_tower_with_layers_has_the_bits_of_normalize(widths: tuple[int, ...]) -> None:
    """Short outputs too: what is trained with them is compared bit for bit."""
    tower = Tower(widths, seed=0, name="t")
    for weight in tower.parameters():
        weight.data *= 0.01
    x, pull = torch.randn(20, 5), torch.randn(20, 3)
    assert tower.mlp(x).norm(dim=1).max() < 0.05
    leaf = x.clone().requires_grad_()
    F.normalize(tower.mlp(leaf), dim=1).backward(pull)
    assert leaf.grad is not None
    assert torch.equal(gradient(tower, x, pull), leaf.grad)
