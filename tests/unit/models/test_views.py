"""The shared first layer against the layer itself on both views written out."""

import pytest
import torch
from torch import Tensor, nn

from twotower.models.embeddings.bags import Bags
from twotower.models.repeats import Repeats
from twotower.models.views import Run, SharedViews

S, V, E, H, X = 3, 2, 4, 5, 6
NO_BAGS = Bags(*(torch.zeros(0) for _ in range(4)))


def written_out(shown: Tensor, defaults: Tensor, dense: Tensor, hidden: Tensor) -> Tensor:
    """A view: hidden features read as their default row."""
    looked = torch.where(hidden[:, :, None], defaults, shown.view(-1, S, E))
    return torch.cat([looked.flatten(1), dense], dim=1)


@pytest.mark.parametrize("rows", [(7,), (4, 0, 3), (0,)])
def test_output_and_gradients_are_those_of_two_full_views(rows: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    n = sum(rows)
    patterns = [(True, False, False), (False, True, True), (False, False, False)][: len(rows)]
    layer = nn.Linear(S * E + V, H, dtype=torch.float64)
    leaves = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((X, S * E + V), (n * S, E), (S, E))
    ]
    x, shown, defaults = leaves
    dense = torch.randn(n, V, dtype=torch.float64), torch.randn(n, V, dtype=torch.float64)
    runs = tuple(Run(count, hidden) for count, hidden in zip(rows, patterns, strict=True))
    views = SharedViews(NO_BAGS, NO_BAGS, dense, runs)
    out = views.first_layer(layer, x, (shown, defaults), torch.float64)

    hidden = torch.tensor(patterns).repeat_interleave(torch.tensor(rows), dim=0)
    inputs = [
        x,
        written_out(shown, defaults, dense[0], hidden),
        written_out(shown, defaults, dense[1], ~hidden),
    ]
    wanted = layer(torch.cat(inputs))
    torch.testing.assert_close(out, wanted)

    pulled = torch.randn_like(out)
    of = [*leaves, layer.weight, layer.bias]
    ours = torch.autograd.grad(out, of, pulled)
    theirs = torch.autograd.grad(wanted, of, pulled)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("n", [9, 0])
def test_repeats_of_the_main_pass_are_two_full_views(n: int) -> None:
    torch.manual_seed(1)
    d = 4  # items of the main pass; 2 more rows follow
    layer = nn.Linear(S * E + V, H, dtype=torch.float64)
    x = torch.randn(X, S * E + V, dtype=torch.float64, requires_grad=True)
    defaults = torch.randn(S, E, dtype=torch.float64, requires_grad=True)
    places = torch.randint(0, d - 1, (n,))  # an item that no view repeats
    hidden, hidden_dense = torch.rand(n, S) < 0.5, torch.rand(n, V) < 0.5
    repeats = Repeats.of(
        places.numpy(),
        d,
        shown=(~hidden).double(),
        shown_dense=(~hidden_dense).double(),
        defaults=NO_BAGS,
    )
    out = repeats.first_layer(layer, x, (defaults,), torch.float64)

    rows, dense = x[places, : S * E], x[places, S * E :]
    views = [
        written_out(rows, defaults, dense.masked_fill(of_dense, 0), of_sparse)
        for of_sparse, of_dense in ((hidden, hidden_dense), (~hidden, ~hidden_dense))
    ]
    wanted = layer(torch.cat([x, *views]))
    torch.testing.assert_close(out, wanted)
    pulled = torch.randn_like(out)
    of = [x, defaults, layer.weight, layer.bias]
    ours, theirs = (torch.autograd.grad(y, of, pulled) for y in (out, wanted))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_bfloat16_products_stay_close() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(S * E, H)
    x, shown, defaults = torch.randn(X, S * E), torch.randn(8 * S, E), torch.randn(S, E)
    dense = (torch.zeros(8, 0), torch.zeros(8, 0))
    views = SharedViews(NO_BAGS, NO_BAGS, dense, (Run(8, (True, False, True)),))
    exact = views.first_layer(layer, x, (shown, defaults), torch.float32)
    rounded = views.first_layer(layer, x, (shown, defaults), torch.bfloat16)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.05, rtol=0.02)
