"""Arrays of a safetensors file as views of its bytes: opened, an export takes its size once.

8 bytes    size of the header, little-endian
header     JSON: name -> dtype, shape, first and last byte after the header
the rest   the numbers; every byte belongs to exactly one array
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]
"""Arrays by name."""

_SIZE = 8
_METADATA = "__metadata__"
_MOST = 1 << 48
_TYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2",
    "U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip


def views(data: bytes) -> Tensors:
    """The arrays of a safetensors file by name, none of which can be written to.

    An array that the file did not align is copied.

    Raises:
        ValueError: it is no such file, or its parts don't cover it.
    """
    size = int.from_bytes(data[:_SIZE], "little")
    start = _SIZE + size
    if len(data) < _SIZE or start > len(data):
        raise ValueError("its header is cut")
    try:
        header = json.loads(data[_SIZE:start], object_pairs_hook=_distinct)
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    header.pop(_METADATA, None)
    found: dict[str, NDArray[Any]] = {}
    ends: list[tuple[int, int]] = []
    for name, described in header.items():
        kind, shape, first, last = _entry(name, described)
        if last > len(data) - start or last - first != math.prod(shape) * kind.itemsize:
            raise ValueError(f"{name!r} doesn't fit its bytes")
        ends.append((first, last))
        flat = np.frombuffer(data, kind, math.prod(shape), start + first)
        found[name] = (flat if flat.flags.aligned else _copied(flat)).reshape(shape)
    done = 0
    for first, last in sorted(ends):
        if first != done:
            raise ValueError("its arrays overlap or leave a gap")
        done = last
    if done != len(data) - start:
        raise ValueError("it has bytes that belong to no array")
    return found


def _entry(name: str, described: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """Type, shape, and first and last byte of an array."""
    if not isinstance(described, dict) or described.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r} has no dtype, shape and data_offsets")
    dtype, shape, ends = (described[key] for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in _TYPES:
        raise ValueError(f"{name!r} is of type {dtype!r}, which is not read here")
    if not _are_sizes(shape) or not _are_sizes(ends) or len(ends) != 2 or ends[0] > ends[1]:
        raise ValueError(f"{name!r} has a shape or place that can't be")
    return np.dtype(_TYPES[dtype]), tuple(shape), ends[0], ends[1]


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(one) is int and 0 <= one < _MOST for one in values)


def _copied(array: NDArray[Any]) -> NDArray[Any]:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its header has a name twice")
    return found
