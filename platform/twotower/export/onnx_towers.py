"""Both towers as ONNX graphs, checked against torch.

A graph takes what was looked up: the embeddings of the sparse features, the dense numbers, then (of
queries) the embeddings of the log's features and the history's vector, in the order of
`model.json`. It is written node by node: three kinds of them are all a tower has.
"""

# The extra `onnx` is imported where it is used.
# ruff: noqa: PLC0415
# pyright: reportMissingImports=false

from typing import Any

import numpy as np
import torch

from twotower.core.errors import InputError, RunError
from twotower.core.types import Float32
from twotower.models.towers import Tower

TOLERANCE = 1e-5
"""Largest difference of a number of a unit vector that passes."""

_OPSET, _IR = 18, 10
"""Of 2023 and 2024: what readers of ONNX have long had."""

_NORM_EPS = 1e-12
_CHECKED_ROWS = 256


def check_installed() -> None:
    """InputError where the extra is not installed."""
    _modules()


def tower_graph(tower: Tower, name: str) -> tuple[bytes, float]:
    """A tower as ONNX.

    Args:
        tower: the trained tower.
        name: of the graph.

    Returns:
        The model: `features` float32 ``(rows, width)`` to `vectors` ``(rows, D)``; and the largest
        difference to torch over 256 random rows and a row of zeros.

    Raises:
        RunError: it differs from torch by more than `TOLERANCE`.
    """
    data = _graph(tower, name)
    inputs = np.random.default_rng(0).normal(size=(_CHECKED_ROWS + 1, _width(tower)))
    inputs[-1] = 0
    difference = compare(data, tower, inputs.astype(np.float32))
    if not difference <= TOLERANCE:
        raise RunError(f"{name}: its ONNX graph differs from torch by {difference:g}")
    return data, difference


def compare(data: bytes, tower: Tower, inputs: Float32) -> float:
    """Largest difference between a graph and the tower it came from."""
    _, runtime = _modules()
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"features": inputs})
    with torch.no_grad():
        expected = tower.cpu()([torch.from_numpy(inputs)]).numpy()
    return float(np.abs(found - expected).max(initial=0))


def _graph(tower: Tower, name: str) -> bytes:
    onnx, _ = _modules()
    node, array = onnx.helper.make_node, onnx.numpy_helper.from_array
    nodes: list[Any] = []
    constants = [
        array(np.array([1], dtype=np.int64), "axes"),
        array(np.array(_NORM_EPS, dtype=np.float32), "eps"),
    ]
    state = {n: t.detach().cpu().numpy() for n, t in tower.mlp.layers.state_dict().items()}
    value, last = "features", len(tower.mlp.layers) - 1
    for layer in range(last + 1):
        constants += [array(state[f"{layer}.{n}"], f"{layer}.{n}") for n in ("weight", "bias")]
        names = [value, f"{layer}.weight", f"{layer}.bias"]
        nodes.append(node("Gemm", names, [f"{layer}.out"], transB=1))
        value = f"{layer}.out"
        if layer < last:
            nodes.append(node("Relu", [value], [f"{layer}.relu"]))
            value = f"{layer}.relu"
    nodes += [
        node("ReduceL2", [value, "axes"], ["norm"], keepdims=1),
        node("Max", ["norm", "eps"], ["divisor"]),
        node("Div", [value, "divisor"], ["vectors"]),
    ]
    kind, out = onnx.TensorProto.FLOAT, len(state[f"{last}.bias"])
    value_info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        name,
        [value_info("features", kind, ["rows", _width(tower)])],
        [value_info("vectors", kind, ["rows", out])],
        constants,
    )
    opsets = [onnx.helper.make_opsetid("", _OPSET)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=_IR)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _width(tower: Tower) -> int:
    return tower.mlp.layers.state_dict()["0.weight"].shape[1]


def _modules() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "ONNX needs onnx and onnxruntime, which are not installed: pip install 'twotower[onnx]'"
        ) from error
    return onnx, onnxruntime
