from typing import Any

import numpy as np
import pytest
import torch

from twotower.core.errors import RunError
from twotower.export import onnx_towers
from twotower.models.towers import Tower

pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")


@pytest.mark.parametrize("widths", [(5, 3), (12, 16, 8), (7, 9, 11, 4)])
def test_a_graph_computes_what_the_tower_does(widths: tuple[int, ...]) -> None:
    tower = Tower(widths, seed=1, name="t")
    data, difference = onnx_towers.tower_graph(tower, "t")
    assert difference < onnx_towers.TOLERANCE
    inputs = np.random.default_rng(0).normal(size=(33, widths[0])).astype(np.float32)
    inputs[4] = 0
    assert onnx_towers.compare(data, tower, inputs) < onnx_towers.TOLERANCE


def test_a_graph_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = Tower((5, 8, 3), seed=1, name="t")
    graph: Any = onnx_towers._graph

    def other(tower: Tower, name: str) -> bytes:
        with torch.no_grad():
            next(tower.parameters()).add_(0.01)
        data = graph(tower, name)
        with torch.no_grad():
            next(tower.parameters()).sub_(0.01)
        return data

    monkeypatch.setattr(onnx_towers, "_graph", other)
    with pytest.raises(RunError, match="differs from torch"):
        onnx_towers.tower_graph(tower, "t")
