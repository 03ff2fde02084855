"""Which files a source has: a path, a folder or a glob, local, by URI or bundled."""

import fnmatch
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import pyarrow.fs as pafs

import twotower
from twotower.core.errors import DataError

Format = Literal["parquet", "csv", "jsonl"]

_BUNDLED = "bundled:"
_SUFFIXES: dict[str, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq"),
    "csv": (".csv", ".csv.gz"),
    "jsonl": (".jsonl", ".jsonl.gz", ".ndjson", ".json"),
}
_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a source."""

    location: str
    """Path or URI that names the file system."""

    path: str
    """Path inside the file system."""

    format: Format
    texts: frozenset[str]
    """Columns of ids and categories: read as text from CSV, as dictionaries from Parquet."""

    size: int
    mtime_ns: int

    @property
    def identity(self) -> tuple[str, int, int]:
        """What a cached digest is looked up by."""
        return self.path, self.size, self.mtime_ns


def list_shards(path: str, kind: Format, texts: frozenset[str], key: str) -> list[Shard]:
    """Shards of a source, sorted by path.

    Args:
        path: file, folder or glob, local or a URI; `bundled:...` is inside the package.
        kind: format of the shards.
        texts: columns of ids and categories.
        key: dotted key of the config, for the message.

    Raises:
        DataError: there is no such file or folder, or it holds no shard of the format.
    """
    location = path
    if path.startswith(_BUNDLED):
        inside = PurePosixPath(path.removeprefix(_BUNDLED))
        location = str(Path(twotower.__file__).parent / "datasets" / inside)
    system, root = _open_location(location, key)
    if _GLOB & set(root):
        found = _matching(system, root)
    else:
        found = _below(system, root, kind, f"{key}: {path}")
    if not found:
        raise DataError(
            f"{key}: {path!r} holds no {kind} shard (files named _* and .* are ignored)"
        )
    return [
        Shard(location, info.path, kind, texts, info.size or 0, info.mtime_ns or 0)
        for info in sorted(found, key=lambda info: info.path)
    ]


def filesystem(location: str) -> pafs.FileSystem:
    """File system of a path or URI."""
    if "://" in location:
        return pafs.FileSystem.from_uri(location)[0]
    return pafs.LocalFileSystem()


def _open_location(location: str, key: str) -> tuple[pafs.FileSystem, str]:
    if "://" not in location:
        return pafs.LocalFileSystem(), Path(location).expanduser().absolute().as_posix()
    try:
        return pafs.FileSystem.from_uri(location)
    except (ValueError, OSError) as error:
        raise DataError(f"{key}: {location!r} can't be opened: {error}") from error


def _matching(system: pafs.FileSystem, pattern: str) -> list[pafs.FileInfo]:
    parts = PurePosixPath(pattern).parts
    depth = next(i for i, part in enumerate(parts) if _GLOB & set(part))
    base = str(PurePosixPath(*parts[:depth])) if depth else ""
    selector = pafs.FileSelector(base, recursive=True, allow_not_found=True)
    return [
        info
        for info in system.get_file_info(selector)
        if info.is_file
        and _visible(info.path, base)
        and ("**" in pattern or len(PurePosixPath(info.path).parts) == len(parts))
        and fnmatch.fnmatchcase(info.path, pattern)
    ]


def _below(system: pafs.FileSystem, root: str, kind: str, where: str) -> list[pafs.FileInfo]:
    info = system.get_file_info(root)
    if info.type == pafs.FileType.NotFound:
        raise DataError(f"{where}: no such file or folder")
    if info.is_file:
        return [info]
    selector = pafs.FileSelector(root, recursive=True)
    return [
        info
        for info in system.get_file_info(selector)
        if info.is_file and _visible(info.path, root) and _has_format(info.base_name, kind)
    ]


def _visible(path: str, root: str) -> bool:
    return not any(part.startswith(("_", ".")) for part in PurePosixPath(path[len(root) :]).parts)


def _has_format(name: str, kind: str) -> bool:
    return name.lower().endswith(_SUFFIXES[kind]) or "." not in name
