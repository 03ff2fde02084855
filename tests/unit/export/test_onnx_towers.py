from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from served_arrays import arrays, drawn
from twotower.core.errors import RunError
from twotower.export import onnx_towers
from twotower.models.scorers import GMF, Cosine, NeuMF
from twotower.models.towers import Tower as TorchTower
from twotower.serving.scorers import Kind, Scorer
from twotower.serving.towers import Tower

pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")


def made(widths: tuple[int, ...], kind: Kind, side: str) -> tuple[Tower, Callable[..., Tensor]]:
    """A tower as it is served, and in torch."""
    tower = TorchTower(widths, seed=1, name="t", unit=kind == "cosine")
    width = widths[-1]
    module: Any = Cosine()
    if kind == "gmf":
        module = GMF(width)
    elif kind == "neumf":
        module = NeuMF(width, (5, 3), seed=0)
    if kind != "cosine":
        module.weight.data = torch.from_numpy(drawn(0, *module.weight.shape))
    last = getattr(Scorer.read(arrays(module, "scorer"), kind, int(kind == "neumf")), side)
    served = Tower.read(arrays(tower.mlp.layers, "t"), "t", len(widths) - 1, last)
    return served, lambda x: getattr(module, side)(tower([x]))


@pytest.mark.parametrize("widths", [(6,), (5, 4), (12, 16, 8), (7, 9, 11, 4)])
@pytest.mark.parametrize("kind", ["cosine", "gmf", "neumf"])
@pytest.mark.parametrize("side", ["items", "queries"])
def test_a_graph_computes_what_the_tower_does(
    widths: tuple[int, ...], kind: Kind, side: str
) -> None:
    served, computed = made(widths, kind, side)
    data, difference = onnx_towers.tower_graph(served, widths[0], computed, "t")
    assert difference < 1e-6
    inputs = drawn(0, 33, widths[0])
    inputs[4] = 0
    assert onnx_towers.compare(data, computed, inputs) < 1e-6


def test_a_graph_that_differs_is_refused() -> None:
    served, computed = made((5, 8, 3), "cosine", "items")
    with pytest.raises(RunError, match="differs from torch"):
        onnx_towers.tower_graph(served, 5, lambda x: computed(x + 0.01), "t")
    with pytest.raises(RunError, match="differs from torch"):
        onnx_towers.tower_graph(served, 5, lambda x: computed(x) * np.nan, "t")
