"""What this machine can do at best: matrix products, copies, gathers of embedding rows.

`python -m twotower.bench.limits [--threads N]` prints one line of JSON; about half a minute.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from twotower.kernels.products import product

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
CUBE = (2048, 2048, 2048)
SHAPES = (CUBE, (4096, 320, 512), (1024, 320, 512), (4096, 128, 4096))
"""(m, k, n): a cube, the first layer of W1's item tower at two batches, its logits at 4096."""

W1_ROWS = 360_000
"""Rows of a table of 92 MB, W1's size to 1 %."""
BIG_ROWS = 8_000_000
"""Rows of a table of 2 GB, which no cache holds."""
ROW_BYTES = 64 * 4
"""An embedding row in float32."""

_GATHERED = 500_000
_COPIED = 64 << 20  # floats: 256 MiB on each side


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate over many repeats, in the unit of what was measured."""

    best: float
    median: float


def gemm_gflop_s(shape: tuple[int, int, int], dtype: torch.dtype, seconds: float = 1.5) -> Rate:
    """Rate of (m, k) @ (k, n) into a given output, in GFLOP/s."""
    m, k, n = shape
    left, right = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
    out = torch.empty(m, n, dtype=dtype)
    return _rate(lambda: torch.mm(left, right, out=out), 2 * m * k * n, seconds)


def product_gflop_s(shape: tuple[int, int, int], seconds: float = 1.5) -> Rate:
    """Rate of the step's own float32 product (m, k) @ (n, k).T into new memory, in GFLOP/s."""
    m, k, n = shape
    left, right = torch.randn(m, k), torch.randn(n, k)
    return _rate(lambda: product(left, right), 2 * m * k * n, seconds)


def copy_gb_s(seconds: float = 1.5) -> Rate:
    """Rate of a copy of 256 MiB, bytes read plus bytes written, in GB/s."""
    source, target = torch.ones(_COPIED), torch.empty(_COPIED)
    return _rate(lambda: target.copy_(source), 2 * 4 * _COPIED, seconds)


def gather_gb_s(rows: int, seconds: float = 1.5) -> Rate:
    """Rate of reading random rows of 64 floats out of a table of ``rows``, in GB/s."""
    table, at = torch.randn(rows, ROW_BYTES // 4), torch.randint(rows, (_GATHERED,))
    out = torch.empty(_GATHERED, ROW_BYTES // 4)
    work = _GATHERED * ROW_BYTES
    return _rate(lambda: torch.index_select(table, 0, at, out=out), work, seconds)


def measure_limits(threads: int, seconds: float = 1.5) -> dict[str, dict[str, float]]:
    """Measure everything, each for ``seconds``: by name the best and the median rate.

    Names are `gemm_float32_2048x2048x2048_gflop_s` and the like (by `torch.mm`),
    `product_float32_...` (by `kernels.products`), `copy_gb_s`, `gather_92mb_gb_s` and
    `gather_2gb_gb_s`. Sets torch's number of threads meanwhile.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rates = {
            f"gemm_{name}_{'x'.join(map(str, shape))}_gflop_s": gemm_gflop_s(shape, dtype, seconds)
            for name, dtype in DTYPES.items()
            for shape in SHAPES
        }
        for shape in SHAPES:
            name = f"product_float32_{'x'.join(map(str, shape))}_gflop_s"
            rates[name] = product_gflop_s(shape, seconds)
        rates["copy_gb_s"] = copy_gb_s(seconds)
        rates["gather_92mb_gb_s"] = gather_gb_s(W1_ROWS, seconds)
        rates["gather_2gb_gb_s"] = gather_gb_s(BIG_ROWS, seconds)
    finally:
        torch.set_num_threads(before)
    return {
        name: {kind: round(value, 2) for kind, value in asdict(rate).items()}
        for name, rate in rates.items()
    }


def _rate(work: Callable[[], object], units: int, seconds: float) -> Rate:
    """Repeat ``work`` of so many operations or bytes for ``seconds`` after two warm-up calls."""
    work()
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    times.sort()
    return Rate(units / times[0] / 1e9, units / times[len(times) // 2] / 1e9)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m twotower.bench.limits")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    a = parser.parse_args()
    line = {"threads": a.threads, **measure_limits(a.threads, a.seconds)}
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
