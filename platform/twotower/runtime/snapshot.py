"""A state copied into host memory, laid out as the files of a checkpoint."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from twotower.core.files import Data
from twotower.core.storage import dump_json

Tensors = Mapping[str, Mapping[str, Tensor]]
"""Part of the state -> name -> tensor."""

STATE = "state.json"
TENSORS = ".safetensors"

_TYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Types by their name in safetensors, in the order of their tensors in a file."""

_ALIGNMENT = 8


class TensorFile:
    """The bytes of one safetensors file, in memory that is allocated once and filled many times.

    They are those of `safetensors.torch.save`: 8 bytes of the header's size, the header, then the
    tensors by type, the widest first, and name.
    """

    def __init__(self, named: Mapping[str, Tensor]) -> None:
        """Lay out a file for tensors of these names, types and shapes; nothing is copied yet."""
        self._layout = _layout(named)
        ranks = list(_TYPES)
        names = sorted(named, key=lambda name: (ranks.index(named[name].dtype), name))
        entries: dict[str, dict[str, Any]] = {}
        end = 0
        for name in names:
            start, end = end, end + named[name].nbytes
            entries[name] = {
                "dtype": _TYPES[named[name].dtype],
                "shape": list(named[name].shape),
                "data_offsets": [start, end],
            }
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        header = len(text).to_bytes(8, "little") + text
        # Pinned memory lets a GPU copy while its next kernels are queued.
        pinned = any(tensor.is_cuda for tensor in named.values())
        self._bytes = torch.empty(len(header) + end, dtype=torch.uint8, pin_memory=pinned)
        self._bytes[: len(header)] = torch.frombuffer(bytearray(header), dtype=torch.uint8)
        self._views: dict[str, Tensor] = {}
        for name in names:
            start, end = (len(header) + place for place in entries[name]["data_offsets"])
            self._views[name] = self._bytes[start:end].view(named[name].dtype)

    def fits(self, named: Mapping[str, Tensor]) -> bool:
        """Whether tensors are of the names, types and shapes that this file is laid out for."""
        return self._layout == _layout(named)

    def fill(self, named: Mapping[str, Tensor]) -> memoryview:
        """Copy the tensors in; a GPU may go on copying. The file's bytes, until the next call."""
        for name, view in self._views.items():
            source = named[name].detach()
            view.view(source.shape).copy_(source, non_blocking=True)
        return self._bytes.numpy().data


class Snapshot:
    """A copy of a state as the files of a checkpoint; each one takes the memory of the last."""

    def __init__(self) -> None:
        self._files: dict[str, TensorFile] = {}
        self._copied: torch.cuda.Event | None = None

    def take(self, tensors: Tensors, document: Mapping[str, Any]) -> dict[str, Data]:
        """Copy a state.

        Args:
            tensors: parts of the state; live, they may change once this returns.
            document: JSON.

        Returns:
            Bytes by name: `<part>.safetensors` and `state.json`. They hold after `wait`, and only
            until the next call.
        """
        taken: dict[str, Data] = {}
        for part, named in tensors.items():
            file = self._files.get(part)
            if file is None or not file.fits(named):
                file = self._files[part] = TensorFile(named)
            taken[f"{part}{TENSORS}"] = file.fill(named)
        taken[STATE] = dump_json(dict(document))
        if any(tensor.is_cuda for named in tensors.values() for tensor in named.values()):
            self._copied = torch.cuda.Event()
            self._copied.record()
        return taken

    def wait(self) -> None:
        """Wait for copies that a GPU still makes."""
        if self._copied is not None:
            self._copied.synchronize()


def _layout(named: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size, bool]]:
    return {name: (t.dtype, t.shape, t.is_cuda) for name, t in named.items()}
