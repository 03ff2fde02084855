"""Products against float64, gradients against PyTorch's own layer, bits against a second call."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from twotower.kernels.products import Linear, product, product_by_rows, product_over_rows

DTYPES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}
LARGE, SMALL = (512, 96, 128), (7, 5, 3)  # on both sides of what oneDNN is called for


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [LARGE, SMALL], ids=str)
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_product_is_that_of_float64(
    dtype: torch.dtype, shape: tuple[int, int, int], with_bias: bool
) -> None:
    m, k, n = shape
    a, b = drawn(m, k, dtype=dtype), drawn(n, k, seed=1, dtype=dtype)
    bias = drawn(n, seed=2, dtype=dtype) if with_bias else None
    expected = F.linear(a.double(), b.double(), None if bias is None else bias.double())
    found = product(a, b, bias)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=DTYPES[dtype], atol=DTYPES[dtype] * 8)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 200), st.integers(1, 200), st.booleans(), st.booleans())
def test_transposed_views_give_the_same_product(
    m: int, k: int, n: int, first: bool, second: bool
) -> None:
    a = drawn(k, m).T if first else drawn(m, k)
    b = drawn(k, n, seed=1).T if second else drawn(n, k, seed=1)
    expected = a.double() @ b.double().T
    torch.testing.assert_close(product(a, b).double(), expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(product(a, b), product(a, b))


@pytest.mark.parametrize("rows", [0, 5, 64, 300])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_varying_size_changes_nothing(rows: int, dtype: torch.dtype) -> None:
    a, b, bias = drawn(rows, 96), drawn(128, 96, seed=1), drawn(128, seed=2)
    a, b, bias = (t.to(dtype) for t in (a, b, bias))
    near, c = DTYPES[dtype], drawn(rows, 32, seed=3).to(dtype)
    rows_apart, over_parts = product_by_rows(a, b, bias), product_over_rows(a, c)
    torch.testing.assert_close(rows_apart, product(a, b, bias), rtol=near, atol=8 * near)
    torch.testing.assert_close(over_parts, product(a.T, c.T), rtol=near, atol=8 * near)


def test_no_rows_give_no_rows() -> None:
    assert product(torch.empty(0, 4), torch.empty(6, 4)).shape == (0, 6)


@pytest.mark.parametrize("rows", [4, 2048])
def test_a_layer_has_the_gradients_of_torch(rows: int) -> None:
    layer = Linear(64, 32)
    x, grad = drawn(rows, 64).requires_grad_(), drawn(rows, 32, seed=3)
    layer(x).backward(grad)
    own = [x.grad, layer.weight.grad, layer.bias.grad]
    exact = [t.detach().double().requires_grad_() for t in (x, layer.weight, layer.bias)]
    F.linear(*exact).backward(grad.double())
    for mine, other in zip(own, exact, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine.double(), other.grad, rtol=1e-4, atol=1e-3)


def test_inside_autocast_a_layer_is_torch_s_own() -> None:
    layer, x = Linear(64, 512), drawn(512, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x)
        expected = F.linear(x, layer.weight, layer.bias)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)
