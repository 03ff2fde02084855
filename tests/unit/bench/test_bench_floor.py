"""The floor of a step, against the published table and against a count by hand."""

import pytest

from twotower.bench.floor import (
    Ceilings,
    logits_flop,
    rows_bytes,
    step_floor,
    step_flop,
    tower_flop,
)
from twotower.bench.limits import measure_limits

PUBLISHED = Ceilings(float32_gflop_s=150, product_gflop_s=150, bf16_gflop_s=415, gather_gb_s=7.0)


@pytest.mark.parametrize(
    ("precision", "ssl", "batch", "step_ms", "examples_per_s"),
    [
        ("float32", False, 1024, 24.56, 41_697),
        ("float32", False, 4096, 162.66, 25_182),
        ("float32", True, 1024, 50.06, 20_456),
        ("float32", True, 4096, 329.09, 12_447),
        ("bf16", False, 1024, 9.99, 102_518),
        ("bf16", False, 4096, 63.24, 64_769),
        ("bf16", True, 1024, 19.21, 53_317),
        ("bf16", True, 4096, 123.4, 33_194),
    ],
)
def test_the_published_floors_come_out(
    precision: str, ssl: bool, batch: int, step_ms: float, examples_per_s: float
) -> None:
    floor = step_floor(batch, ssl=ssl, precision=precision, ceilings=PUBLISHED)
    assert round(floor.step_ms, 2) == step_ms
    assert round(floor.examples_per_s) == examples_per_s


def products(batch: int, layers: list[tuple[int, int]]) -> int:
    """Multiplies and adds of a layer's three products, shape by shape."""
    shapes = []
    for width_in, width_out in layers:
        shapes += [(batch, width_in, width_out)]  # output
        shapes += [(batch, width_out, width_in)]  # gradient to the input
        shapes += [(width_in, batch, width_out)]  # gradient to the weight
    return sum(2 * m * k * n for m, k, n in shapes)


@pytest.mark.parametrize("ssl", [False, True])
def test_operations_are_those_of_the_products_of_a_step(ssl: bool) -> None:
    batch = 96
    query = products(batch, [(3 * 64, 512), (512, 128), (128, 128)])
    item = products(batch, [(5 * 64, 512), (512, 128), (128, 128)])
    # logits = x @ y.T, then their gradient times y and, transposed, times x
    softmax = sum(2 * m * k * n for m, k, n in [(96, 128, 96), (96, 96, 128), (96, 96, 128)])
    passes, softmaxes = (3, 2) if ssl else (1, 1)
    assert step_flop(batch, ssl=ssl) == query + passes * item + softmaxes * softmax
    assert tower_flop(3) * batch == query
    assert logits_flop(batch) * batch == softmax


def test_rows_are_read_forward_and_read_and_written_by_the_update() -> None:
    values = {"query_id": 1, "country": 1, "history_tags": 3.0}
    values |= {"item_id": 1, "category": 1, "developer": 1, "tags": 3.0, "title_tokens": 4.5}
    assert rows_bytes(10) == 10 * sum(values.values()) * 3 * 64 * 4


def test_ceilings_are_the_best_rates_that_limits_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twotower.bench.limits.BIG_ROWS", 1_000)
    monkeypatch.setattr("twotower.bench.limits.W1_ROWS", 1_000)
    monkeypatch.setattr("twotower.bench.limits._COPIED", 1_000)
    limits = measure_limits(1, seconds=0.0)
    ceilings = Ceilings.of_limits(limits)
    assert ceilings.gather_gb_s == limits["gather_92mb_gb_s"]["best"] > 0
    assert ceilings.float32_gflop_s == limits["gemm_float32_2048x2048x2048_gflop_s"]["best"] > 0
    assert ceilings.bf16_gflop_s == limits["gemm_bf16_2048x2048x2048_gflop_s"]["best"] > 0
    assert all(rate["best"] >= rate["median"] > 0 for rate in limits.values())
    assert len(limits) == 15
