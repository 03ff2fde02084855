"""Which files a source has: a path, a folder or a glob, local, by URI or bundled."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import pyarrow as pa
import pyarrow.fs as pafs

import twotower
from twotower.core.errors import DataError

Format = Literal["parquet", "csv", "jsonl"]

_BUNDLED = "bundled:"
_GLOB = frozenset("*?[")

SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
"""Ends of the names of shards in a folder; a name without a dot may be any of them."""


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
    numbers: frozenset[str] = frozenset()
    """Columns of numbers: float64 from CSV and JSON lines, however whole they are."""

    others: frozenset[str] = frozenset()
    """Columns of times, of lists, and of conditions: read as what their values are."""

    @property
    def columns(self) -> frozenset[str]:
        """Columns that are read, and all of CSV and JSON lines that is looked at."""
        return self.texts | self.numbers | self.others

    @property
    def identity(self) -> tuple[str, int, int]:
        """What a cached digest is looked up by."""
        return self.path, self.size, self.mtime_ns


def list_shards(
    path: str,
    kind: Format | None,
    texts: frozenset[str],
    key: str = "",
    *,
    numbers: frozenset[str] = frozenset(),
    others: frozenset[str] = frozenset(),
) -> list[Shard]:
    """Shards of a source, sorted by path.

    Args:
        path: file, folder or glob, local or a URI; `bundled:...` is inside the package.
        kind: format of the shards; None = each one's by its name, Parquet if that says nothing.
        texts: columns of ids and categories.
        key: dotted key of the config, for the message.
        numbers: columns of numbers.
        others: further columns that are read.

    Raises:
        DataError: there is no such file or folder, or it holds no shard of the format.
    """
    location = path
    if path.startswith(_BUNDLED):
        inside = PurePosixPath(path.removeprefix(_BUNDLED))
        location = str(Path(twotower.__file__).parent / "datasets" / inside)
    where = f"{key}: {path}" if key else path
    system, root = _open_location(location, where)
    if _GLOB & set(root):
        found, wanted = _matching(system, root, where), "no file matches"
    else:
        found = _below(system, root, kind, where)
        ends = ", ".join(end for end, own in SUFFIXES.items() if kind in (None, own))
        wanted = f"no files in it that end with {ends}"
    if not found:
        raise DataError(
            f"{where}: holds no {f'{kind} ' if kind else ''}shard; {wanted} (files named _* and .* "
            "are ignored)"
        )
    return [
        Shard(
            location=location,
            path=info.path,
            format=kind or format_of(info.base_name) or "parquet",
            texts=texts,
            size=info.size or 0,
            mtime_ns=info.mtime_ns or 0,
            numbers=numbers,
            others=others,
        )
        for info in sorted(found, key=lambda info: info.path)
    ]


def format_of(name: str) -> Format | None:
    """Format that the end of a file's name says."""
    return next((kind for end, kind in SUFFIXES.items() if name.lower().endswith(end)), None)


def open_stream(shard: Shard) -> pa.NativeFile:
    """The bytes of a shard, decompressed."""
    return filesystem(shard.location).open_input_stream(shard.path, compression="detect")


def filesystem(location: str) -> pafs.FileSystem:
    """File system of a path or URI."""
    if "://" in location:
        return pafs.FileSystem.from_uri(location)[0]
    return pafs.LocalFileSystem()


def _open_location(location: str, where: str) -> tuple[pafs.FileSystem, str]:
    if "://" not in location:
        return pafs.LocalFileSystem(), Path(location).expanduser().absolute().as_posix()
    try:
        return pafs.FileSystem.from_uri(location)
    except (ValueError, OSError) as error:
        raise DataError(f"{where}: can't be opened: {error}") from error


def _matching(system: pafs.FileSystem, pattern: str, where: str) -> list[pafs.FileInfo]:
    """Files that a glob names; `**` is any number of folders, none too."""
    parts = PurePosixPath(pattern).parts
    if any("**" in part and part != "**" for part in parts):
        raise DataError(f"{where}: ** is a part of its own between slashes, as in a/**/*.parquet")
    depth = next(i for i, part in enumerate(parts) if _GLOB & set(part))
    base = str(PurePosixPath(*parts[:depth])) if depth else ""
    selector = pafs.FileSelector(base, recursive=True, allow_not_found=True)
    return [
        info
        for info in system.get_file_info(selector)
        if info.is_file
        and _visible(info.path, base)
        and _matches(PurePosixPath(info.path).parts[depth:], parts[depth:])
    ]


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns or not parts:
        return not parts and all(pattern == "**" for pattern in patterns)
    if patterns[0] == "**":
        return _matches(parts, patterns[1:]) or _matches(parts[1:], patterns)
    return fnmatch.fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])


def _below(
    system: pafs.FileSystem, root: str, kind: Format | None, where: str
) -> list[pafs.FileInfo]:
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


def _has_format(name: str, kind: Format | None) -> bool:
    own = format_of(name)
    return "." not in name or (own == kind if kind else own is not None)
