"""Both towers as ONNX graphs, checked against torch.

A graph takes what was looked up: the embeddings of the sparse features, the dense numbers, then (of
queries) the embeddings of the log's features and the history's vector, in the order of
`model.json`. It ends as the tower does, with the scorer's last step, and is written node by node:
few kinds of them are all a tower has.
"""

# The extra `onnx` is imported where it is used.
# ruff: noqa: PLC0415
# pyright: reportMissingImports=false

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twotower.core.errors import InputError, RunError
from twotower.core.types import Float32
from twotower.models.two_tower import TwoTower
from twotower.serving.layers import Linear
from twotower.serving.model import Model
from twotower.serving.scorers import NORM_EPS, Halves, LastStep, Same, Unit, Weighted
from twotower.serving.towers import Tower

NAMES = ("item_tower", "query_tower")

TOLERANCE = 1e-5
"""Largest difference of a number that passes, where the longest vector has norm 1."""

_OPSET, _IR = 18, 10
"""Of 2023 and 2024: what readers of ONNX have long had."""

_CHECKED_ROWS = 256

Computed = Callable[[Tensor], Tensor]
"""A tower in torch: ``(rows, width)``, on the CPU -> ``(rows, X)``, anywhere."""


def check_installed() -> None:
    """InputError where the extra is not installed."""
    _modules()


def graphs(served: Model, trained: TwoTower) -> dict[str, tuple[bytes, float]]:
    """Both towers, as `tower_graph` gives them, by name."""
    scorer, device = trained.scorer, trained.device
    items = served.items.inputs(served.items.side.encode([{}]))
    queries = served.query_inputs(served.encode_nothing())

    def item_tower(x: Tensor) -> Tensor:
        return scorer.items(trained.item_tower([x.to(device)]))

    def query_tower(x: Tensor) -> Tensor:
        return scorer.queries(trained.query_tower([x.to(device)]))

    towers = (
        (served.items.tower, items.shape[1], item_tower),
        (served.query_tower, queries.shape[1], query_tower),
    )
    return {name: tower_graph(*tower, name) for name, tower in zip(NAMES, towers, strict=True)}


def tower_graph(tower: Tower, width: int, computed: Computed, name: str) -> tuple[bytes, float]:
    """A tower as ONNX.

    Args:
        tower: as it is served.
        width: of what it reads.
        computed: the trained tower, with the scorer's last step.
        name: of the graph.

    Returns:
        The model: `features` float32 ``(rows, width)`` to `vectors` ``(rows, X)``; and the largest
        difference to torch over 256 random rows and a row of zeros, as `compare` has it.

    Raises:
        RunError: it differs from torch by more than `TOLERANCE`.
    """
    data = _Graph().write(tower, width, name)
    inputs = np.random.default_rng(0).normal(size=(_CHECKED_ROWS + 1, width))
    inputs[-1] = 0
    difference = compare(data, computed, inputs.astype(np.float32))
    if not difference <= TOLERANCE:
        raise RunError(f"{name}: its ONNX graph differs from torch by {difference:g}")
    return data, difference


def compare(data: bytes, computed: Computed, inputs: Float32) -> float:
    """Largest difference between a graph and torch, over the norm of the longest vector."""
    _, runtime = _modules()
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"features": inputs})
    with torch.no_grad():
        expected = computed(torch.from_numpy(inputs)).cpu().numpy()
    longest = np.linalg.norm(expected, axis=1).max(initial=1e-30)
    return float(np.abs(found - expected).max(initial=0) / longest)


class _Graph:
    """The nodes and constants of one tower."""

    def __init__(self) -> None:
        self._onnx, _ = _modules()
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def write(self, tower: Tower, width: int, name: str) -> bytes:
        value = "features"
        for number, layer in enumerate(tower.layers):
            value = self._node("Relu", [value]) if number else value
            value = self._linear(layer, value)
        value = self._last(tower.last, value)
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], ["vectors"]))
        kind = self._onnx.TensorProto.FLOAT
        out = tower(np.zeros((1, width), dtype=np.float32)).shape[1]
        value_info = self._onnx.helper.make_tensor_value_info
        graph = self._onnx.helper.make_graph(
            self._nodes,
            name,
            [value_info("features", kind, ["rows", width])],
            [value_info("vectors", kind, ["rows", out])],
            self._constants,
        )
        opsets = [self._onnx.helper.make_opsetid("", _OPSET)]
        model = self._onnx.helper.make_model(graph, opset_imports=opsets, ir_version=_IR)
        self._onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()

    def _last(self, step: LastStep, value: str) -> str:
        match step:
            case Same():
                return value
            case Weighted():
                return self._node("Mul", [value, self._constant(step.weight)])
            case Unit():
                axes = self._constant(np.array([1], dtype=np.int64))
                norm = self._node("ReduceL2", [value, axes], keepdims=1)
                least = self._constant(np.array(NORM_EPS, dtype=np.float32))
                return self._node("Div", [value, self._node("Max", [norm, least])])
            case Halves():
                of_product, of_deep = f"{value}.product", f"{value}.deep"
                self._nodes.append(
                    self._onnx.helper.make_node(
                        "Split", [value], [of_product, of_deep], axis=1, num_outputs=2
                    )
                )
                parts = [self._last(step.product, of_product), self._linear(step.deep, of_deep)]
                return self._node("Concat", parts, axis=1)

    def _linear(self, layer: Linear, value: str) -> str:
        names = [value, self._constant(layer.weight), self._constant(layer.bias)]
        return self._node("Gemm", names, transB=1)

    def _node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node of one output, whose name is given back."""
        name = f"{kind}.{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _constant(self, array: NDArray[Any]) -> str:
        name = f"constant.{len(self._constants)}"
        contiguous = np.ascontiguousarray(array) if array.ndim else array
        self._constants.append(self._onnx.numpy_helper.from_array(contiguous, name))
        return name


def _modules() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "ONNX needs onnx and onnxruntime, which are not installed: pip install 'twotower[onnx]'"
        ) from error
    return onnx, onnxruntime
