"""The files of an export: JSON and safetensors, each checked against the manifest before use.

    manifest.json              layout, and every file's size and SHA-256; written last
    model.json                 features, tables, architecture, where it comes from, what it measured
    tables.safetensors         `<table>/<tensor>`
    towers.safetensors         both MLPs and the history encoder
    vocabularies.safetensors   `<vocabulary>.bytes` and `.offsets`
    items.safetensors          ids, names, vectors, tie order, what histories are looked up by
    queries.safetensors        ids, encoded features, history and seen items of the known queries

No code in any of them: what isn't one of these names is never opened as anything but bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from twotower.core.errors import DataError

LAYOUT = 1
"""Version of the layout; an export of another one has to be written again."""

MANIFEST = "manifest.json"
MODEL = "model.json"
TABLES, TOWERS, VOCABULARIES, ITEMS, QUERIES = (
    f"{name}.safetensors" for name in ("tables", "towers", "vocabularies", "items", "queries")
)
REQUIRED = (MODEL, TABLES, TOWERS, VOCABULARIES, ITEMS, QUERIES)

Tensors = dict[str, NDArray[Any]]

_AGAIN = "export the run again (`twotower export RUN`)"
_CHUNK_BYTES = 1 << 24


def read_files(folder: Path) -> dict[str, bytes]:
    """Bytes of the required files of an export, every file of its manifest checked.

    Raises:
        DataError: no export stands there, it has another layout, or a file is missing, cut or
            changed; the file is named.
    """
    listed = _listed(folder)
    if missing := [name for name in REQUIRED if name not in listed]:
        raise DataError(f"{folder / MANIFEST}: names no {missing[0]}; {_AGAIN}")
    files: dict[str, bytes] = {}
    for name, (size, digest) in listed.items():
        path = folder / name
        try:
            if name in REQUIRED:
                files[name] = path.read_bytes()
                found = len(files[name]), hashlib.sha256(files[name]).hexdigest()
            else:
                found = _describe(path)
        except OSError as error:
            raise DataError(f"{path}: can't be read ({error.strerror}); {_AGAIN}") from error
        if found != (size, digest):
            what = f"has {found[0]} bytes, not {size}" if found[0] != size else "has changed"
            raise DataError(f"{path}: damaged ({what}, says {MANIFEST}); {_AGAIN}")
    return files


def parse_tensors(files: Mapping[str, bytes], name: str) -> Tensors:
    """The arrays of a safetensors file."""
    try:
        return safetensors.numpy.load(files[name])
    except SafetensorError as error:
        raise DataError(f"{name}: no safetensors file ({error}); {_AGAIN}") from error


def parse_json(files: Mapping[str, bytes], name: str) -> Any:
    """The value of a JSON file."""
    try:
        return json.loads(files[name])
    except ValueError as error:
        raise DataError(f"{name}: not JSON ({error}); {_AGAIN}") from error


def dump_tensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """A safetensors file of arrays."""
    return safetensors.numpy.save({n: np.ascontiguousarray(t) for n, t in tensors.items()})


def _listed(folder: Path) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each file, by name."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"{folder}: holds no export (no readable {MANIFEST}); write one with "
            "`twotower export RUN`"
        ) from error
    except ValueError as error:
        raise DataError(f"{path}: damaged (not JSON: {error}); {_AGAIN}") from error
    layout = manifest.get("layout") if isinstance(manifest, dict) else None
    if layout != LAYOUT:
        raise DataError(
            f"{path}: is of layout {layout}, this version reads layout {LAYOUT}; {_AGAIN}"
        )
    try:
        files = manifest["files"].items()
        found = {name: (int(one["size"]), str(one["sha256"])) for name, one in files}
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged (it lists no files); {_AGAIN}") from error
    if outside := [name for name in found if name != Path(name).name or name in {"", ".."}]:
        raise DataError(f"{path}: damaged ({outside[0]!r} is no file name); {_AGAIN}")
    return found


def _describe(path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()
