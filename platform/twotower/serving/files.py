"""The files of an export: JSON and safetensors, each checked against the manifest before use.

    manifest.json              layout, and every file's size and SHA-256; written last
    model.json                 features, tables, architecture, where it comes from, what it measured
    tables.safetensors         `<table>/<tensor>`
    towers.safetensors         both MLPs, the scorer and the history encoder
    vocabularies.safetensors   `<vocabulary>.bytes` and `.offsets`
    items.safetensors          ids, names, vectors, tie order, what histories are looked up by
    queries.safetensors        ids, encoded features, history and seen items of the known queries

No code in any of them: what isn't one of these names is never opened as anything but bytes.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from twotower.core.errors import DataError
from twotower.serving.arrays import Tensors, views
from twotower.serving.places import Opener, opener

LAYOUT = 2
"""Version of the layout; an export of another one has to be written again."""

MANIFEST = "manifest.json"
MODEL = "model.json"
TABLES, TOWERS, VOCABULARIES, ITEMS, QUERIES = (
    f"{name}.safetensors" for name in ("tables", "towers", "vocabularies", "items", "queries")
)
REQUIRED = (MODEL, TABLES, TOWERS, VOCABULARIES, ITEMS, QUERIES)

_AGAIN = "export the run again (`twotower export RUN`)"
_CHUNK_BYTES = 1 << 24
_DIGEST = re.compile("[0-9a-f]{64}")
_NAME = re.compile(r"(?!\.{1,2}$)[^/\\\x00-\x1f\ud800-\udfff]{1,255}")


def read_files(folder: str | Path) -> dict[str, bytes]:
    """Bytes of the required files of an export, every file of its manifest checked.

    Args:
        folder: local, or a URI (which takes pyarrow).

    Raises:
        DataError: no export stands there, it has another layout, or a file is missing, cut or
            changed; the file is named.
    """
    where, open_file = str(folder).rstrip("/"), opener(folder)
    listed = _listed(where, open_file)
    files: dict[str, bytes] = {}
    for name, (size, digest) in listed.items():
        try:
            if name in REQUIRED:
                with open_file(name) as stream:
                    files[name] = stream.read()
                found = len(files[name]), hashlib.sha256(files[name]).hexdigest()
            else:
                found = _describe(open_file, name)
        except OSError as error:
            raise DataError(
                f"{where}/{name}: can't be read ({error.strerror or error}); {_AGAIN}"
            ) from error
        if found != (size, digest):
            what = f"has {found[0]} bytes, not {size}" if found[0] != size else "has changed"
            raise DataError(f"{where}/{name}: damaged ({what}, says {MANIFEST}); {_AGAIN}")
    return files


def parse_manifest(data: bytes, oldest: int = LAYOUT) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each file by name, the required ones among them.

    Args:
        data: `manifest.json`; all layouts so far list the same files.
        oldest: layout that will do.

    Raises:
        ValueError: it is no manifest of an export of this layout; the message says what is wrong.
    """
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"damaged (not JSON: {error})") from error
    layout = manifest.get("layout") if isinstance(manifest, dict) else None
    if type(layout) is not int or not oldest <= layout <= LAYOUT:
        raise ValueError(f"is of layout {layout!r}, this version reads layout {LAYOUT}")
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise ValueError("damaged (it lists no files)")
    for name, about in files.items():
        if not _NAME.fullmatch(name) or name == MANIFEST:
            raise ValueError(f"damaged ({name[:99]!r} is no file name)")
        if not is_description(about):
            raise ValueError(f"damaged (it has no size and SHA-256 of {name!r})")
    if missing := [name for name in REQUIRED if name not in files]:
        raise ValueError(f"names no {missing[0]}")
    return {name: (about["size"], about["sha256"]) for name, about in files.items()}


def is_description(about: Any) -> bool:
    """Whether it says of a file what a manifest must: its size in bytes and its SHA-256."""
    if not isinstance(about, dict) or about.keys() != {"size", "sha256"}:
        return False
    size, digest = about["size"], about["sha256"]
    if type(size) is not int or size < 0:
        return False
    return isinstance(digest, str) and _DIGEST.fullmatch(digest) is not None


def parse_tensors(files: Mapping[str, bytes], name: str) -> Tensors:
    """The arrays of a safetensors file: views of its bytes."""
    try:
        return views(files[name])
    except ValueError as error:
        raise DataError(f"{name}: no safetensors file ({error}); {_AGAIN}") from error


def parse_json(files: Mapping[str, bytes], name: str) -> Any:
    """The value of a JSON file."""
    try:
        return json.loads(files[name])
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: not JSON ({error}); {_AGAIN}") from error


def dump_tensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """A safetensors file of arrays."""
    return safetensors.numpy.save({n: np.ascontiguousarray(t) for n, t in tensors.items()})


def _listed(where: str, open_file: Opener) -> dict[str, tuple[int, str]]:
    """What the manifest of a folder lists."""
    try:
        with open_file(MANIFEST) as stream:
            data = stream.read()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{where}: holds no export (no readable {MANIFEST}); write one with "
            "`twotower export RUN`"
        ) from error
    try:
        return parse_manifest(data)
    except ValueError as error:
        raise DataError(f"{where}/{MANIFEST}: {error}; {_AGAIN}") from error


def _describe(open_file: Opener, name: str) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with open_file(name) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()
