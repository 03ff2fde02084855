"""Cheap scores of the whole catalogue, tile by tile, with a proven bound of their error.

Shape letters:
    Q queries    N items    D width    b queries of one block    T tiles    w items of one tile

Tile t holds items t, t + T, t + 2T, ...: whatever order the catalogue has, one tile is like any
other, so the first ones say what scores to expect of the rest.

The bound. A product takes q as q', x as x' and gives a where q.x was asked. Then

    |a - q.x| <= |q - q'| |x| + |q'| |x - x'|    what the inputs lose (Cauchy-Schwarz)
               + gamma |q'| |x'|                 what adding up loses, in any order
               + r |a|                           what rounding the result loses

The first three make ``slack``, one number a query, with the largest |x| and |x - x'| of all items;
|q - q'| and |x - x'| are measured, not assumed. bfloat16: 8 bits, so r = 2^-8; its units may
truncate and drop subnormal numbers, so gamma is that of a unit of 2^-22 instead of 2^-24.
float32: r = 0, and inputs are taken as they are unless torch's settings cut them (`rounding`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from twotower.evaluation.rounding import float32_loss, norms, sum_loss
from twotower.kernels.memory import keep_freed_memory

_RESULT_LOSS = {torch.bfloat16: 2.0**-8, torch.float32: 0.0}
_UNDERFLOW = 1e-30


@dataclass(frozen=True, slots=True)
class Block:
    """Some queries, ready for products."""

    query: Tensor
    """``(b, D)`` in the type and layout of the product."""

    slack: Tensor
    """float64 ``(b,)``: bound of the error less what rounding the result loses."""


class Coarse:
    """Scores in bfloat16 or float32 of a fixed catalogue."""

    def __init__(
        self, item_ND: Tensor, dtype: torch.dtype, tile_items: int, *, lanes: int, kept_bytes: int
    ) -> None:
        """Divide the catalogue into tiles.

        Args:
            item_ND: float32 ``(N, D)``, finite, N >= 1.
            dtype: bfloat16 or float32.
            tile_items: most items of a tile.
            lanes: scores whose maximum will be taken at once. Tiles are filled up to a multiple of
                it; the filling scores -inf.
            kept_bytes: converted tiles are kept if all of them fit, made anew each time otherwise.
        """
        self.dtype, self.lanes, self.lowest = dtype, lanes, torch.finfo(dtype).min
        self.num_tiles = _ceil(len(item_ND), tile_items)
        self.width = _ceil(_ceil(len(item_ND), self.num_tiles), lanes) * lanes
        self._item_ND = item_ND
        if item_ND.device.type == "cpu":
            keep_freed_memory()
        self._by_onednn = dtype == torch.float32 and _has_onednn(item_ND.device)
        size = self.num_tiles * self.width * item_ND.shape[1] * dtype.itemsize
        self._kept: list[Tensor] = []
        # Filled in place: small results kept between large ones would keep the heap from shrinking.
        bounds = torch.zeros(2, self.num_tiles, dtype=torch.float64, device=item_ND.device)
        for index in range(self.num_tiles):
            tile_wD = item_ND[index :: self.num_tiles]
            taken_wD = tile_wD.to(dtype)
            bounds[0, index] = norms(tile_wD).max()
            bounds[1, index] = self._lost(tile_wD, taken_wD).max()
            if size <= kept_bytes:
                self._kept.append(self._laid_out(taken_wD))
        self._longest, self._lost_of_item = bounds.amax(1).tolist()

    def block(self, query_bD: Tensor) -> Block:
        """Make float32 queries ``(b, D)`` ready.

        Vectors so long that their products could overflow get a slack that proves nothing.
        """
        taken_bD = query_bD.to(self.dtype)
        length_b, lost_b = norms(query_bD), self._lost(query_bD, taken_bD)
        width = query_bD.shape[1]
        if self.dtype == torch.float32:
            adding = float32_loss(width, on_cuda=query_bD.is_cuda)
        else:
            adding = sum_loss(width, 2.0**-22)
        ready = taken_bD.to_mkldnn() if self._by_onednn else taken_bD
        taken_b, longest = length_b + lost_b, self._longest + self._lost_of_item
        slack_b = lost_b * self._longest + taken_b * self._lost_of_item + adding * taken_b * longest
        return Block(ready, slack_b * 1.001 + _UNDERFLOW)

    def scores(self, block: Block, index: int) -> Tensor:
        """``(b, width)`` in `dtype`: of tile ``index``, whose item j is item index + j T."""
        if self._kept:
            tile_wD = self._kept[index]
        else:
            tile_wD = self._laid_out(self._item_ND[index :: self.num_tiles].to(self.dtype))
        device = tile_wD.device.type
        with torch.autocast(device, enabled=False), _whole_sums(on_cuda=device == "cuda"):
            if self._by_onednn:
                scores_bw = linear(block.query, tile_wD).to_dense()
            else:
                scores_bw = block.query @ tile_wD.T
        filled = _ceil(len(self._item_ND) - index, self.num_tiles)
        scores_bw[:, filled:] = -torch.inf
        return scores_bw

    def reach(self, scores_b: Tensor, slack_b: Tensor) -> Tensor:
        """What an item must score here if it is truly at least as good as some that score so.

        Those have true scores of at least ``low = a - slack - r |a|``, which rises with a. An item
        of true score s scores a' with s <= a' + slack + r |a'|, which rises with a' too; s >= low
        solved for a' gives the least a', here rounded down.

        Args:
            scores_b: of one query each, in any float type.
            slack_b: `Block.slack`.

        Returns:
            ``(b,)`` in `dtype`.
        """
        loss = _RESULT_LOSS[self.dtype]
        coarse_b = scores_b.double().clamp(min=self.lowest)
        least_b = coarse_b - 2 * slack_b - loss * coarse_b.abs()
        least_b = torch.where(least_b >= 0, least_b / (1 + loss), least_b / (1 - loss))
        # To the nearest number of the type may be up: the next lower one is below for certain.
        rounded_b = least_b.to(self.dtype)
        return torch.nextafter(rounded_b, torch.full_like(rounded_b, -torch.inf))

    def _lost(self, rows_RD: Tensor, taken_RD: Tensor) -> Tensor:
        """Bounds of ``|x - x'|``, float64 ``(R,)``; float32 numbers keep the difference whole."""
        if self.dtype == torch.float32:
            return torch.zeros(len(rows_RD), dtype=torch.float64, device=rows_RD.device)
        return norms(rows_RD - taken_RD)

    def _laid_out(self, tile_wD: Tensor) -> Tensor:
        if missing := self.width - len(tile_wD):
            tile_wD = torch.cat([tile_wD, tile_wD.new_zeros(missing, tile_wD.shape[1])])
        return tile_wD.to_mkldnn() if self._by_onednn else tile_wD.contiguous()


def dtypes(device: torch.device) -> Sequence[torch.dtype]:
    """Types worth looking through on a device, cheapest first."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        native = any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
    return (torch.bfloat16, torch.float32) if native else (torch.float32,)


def _ceil(total: int, part: int) -> int:
    return -(-total // part)


def _has_onednn(device: torch.device) -> bool:
    """Its float32 products use AVX-512 wherever the processor has it; MKL's do on Intel's only."""
    return device.type == "cpu" and torch.backends.mkldnn.is_available()


@contextmanager
def _whole_sums(*, on_cuda: bool) -> Iterator[None]:
    """Forbid CUDA to add up parts of a bfloat16 product in bfloat16: the bound has no room."""
    if not on_cuda:
        yield
        return
    matmul: Any = torch.backends.cuda.matmul
    before = matmul.allow_bf16_reduced_precision_reduction
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        matmul.allow_bf16_reduced_precision_reduction = before
