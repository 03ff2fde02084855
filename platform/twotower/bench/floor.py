"""The floor of a step of W1: its least time on a machine whose ceilings are known.

Two sums: the operations of its matrix products at the rate of one large product, and the bytes of
its embedding rows at the rate of a gather of random ones. All else (activations, softmax, sorting,
the loss) is charged nothing. A yardstick rather than a proof: some shapes of W1 run faster than the
2048 cube, and rows of frequent ids come out of the cache.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

EMBED_DIM, HIDDEN, OUT_DIM = 64, (512, 128), 128
QUERY_FEATURES, ITEM_FEATURES = 3, 5

ROWS_PER_EXAMPLE = 15.5
"""Embedding rows that an example looks up: query id, country and 3 history tags on average; item
id, category, developer, 3 tags and 4.5 title tokens on average over items (over the rows of the
default workload 15.1 in all: `values_per_example` of its record)."""

ROW_BYTES = EMBED_DIM * 4
"""Tables are float32, whatever the precision of the products."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceilings:
    """Measured rates that a floor is made of."""

    float32_gflop_s: float
    """Matrix product of 2048 cubed in float32, by `torch.mm`."""
    product_gflop_s: float
    """The same by `kernels.products`, which may take a faster library."""
    bf16_gflop_s: float
    """The same in bfloat16."""
    gather_gb_s: float
    """Random rows of 64 floats out of a table of 92 MB."""

    @classmethod
    def of_limits(cls, limits: Mapping[str, Mapping[str, float]]) -> "Ceilings":
        """The best rates of `twotower.bench.limits.measure_limits`."""
        return cls(
            float32_gflop_s=limits["gemm_float32_2048x2048x2048_gflop_s"]["best"],
            product_gflop_s=limits["product_float32_2048x2048x2048_gflop_s"]["best"],
            bf16_gflop_s=limits["gemm_bf16_2048x2048x2048_gflop_s"]["best"],
            gather_gb_s=limits["gather_92mb_gb_s"]["best"],
        )

    def of_products(self) -> "Ceilings":
        """With the faster library's rate for float32: the harder floor."""
        return replace(self, float32_gflop_s=max(self.product_gflop_s, self.float32_gflop_s))


@dataclass(frozen=True, slots=True)
class Floor:
    """The least time of one step, by part."""

    gemm_ms: float
    rows_ms: float
    batch: int

    @property
    def step_ms(self) -> float:
        """Both parts."""
        return self.gemm_ms + self.rows_ms

    @property
    def examples_per_s(self) -> float:
        """The throughput that no step can pass."""
        return self.batch / self.step_ms * 1e3


def tower_flop(features: int) -> int:
    """Operations of one example's pass through a tower, forward and backward.

    The layers have features * 64 x 512, 512 x 128 and 128 x 128 weights. A weight costs a multiply
    and an add in each of three products: the output, the gradient to the input and that to the
    weight. So 6 a weight.
    """
    widths = (features * EMBED_DIM, *HIDDEN, OUT_DIM)
    return 6 * sum(a * b for a, b in pairwise(widths))


def logits_flop(batch: int) -> int:
    """Operations of one example's in-batch softmax: its logits, and the gradients to both sides.

    Three products of 128 multiplies and adds with each of ``batch`` candidates.
    """
    return 6 * OUT_DIM * batch


def step_flop(batch: int, *, ssl: bool) -> int:
    """Operations of a step: one query pass, one item pass and one softmax an example.

    With ``ssl`` the item tower runs over two masked views besides, and the views have a softmax of
    their own.
    """
    item_passes, softmaxes = (3, 2) if ssl else (1, 1)
    per_example = tower_flop(QUERY_FEATURES) + item_passes * tower_flop(ITEM_FEATURES)
    return batch * (per_example + softmaxes * logits_flop(batch))


def rows_bytes(batch: int) -> float:
    """Bytes of a step's embedding rows: read forward, read and written by the update.

    The views mask what was looked up already, so ``ssl`` adds none. An id that comes twice in a
    batch counts twice; accumulators, gradients and sorting are charged nothing.
    """
    return batch * ROWS_PER_EXAMPLE * 3 * ROW_BYTES


def step_floor(batch: int, *, ssl: bool, precision: str, ceilings: Ceilings) -> Floor:
    """Floor of a step; ``precision`` (`float32` or `bf16`) is that of the products."""
    rate = {"float32": ceilings.float32_gflop_s, "bf16": ceilings.bf16_gflop_s}[precision]
    return Floor(
        gemm_ms=step_flop(batch, ssl=ssl) / rate / 1e6,
        rows_ms=rows_bytes(batch) / ceilings.gather_gb_s / 1e6,
        batch=batch,
    )
