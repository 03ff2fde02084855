"""Directories on local disk or object storage, and the one protocol that commits what must survive.

A local file appears whole or not at all: temporary name, fsync, rename, fsync of the directory.
Object stores have no rename, there one put is the commit. A set of files counts once its
`manifest.json` stands, which names every file with its size and SHA-256 and is written last.
`tests/unit/core/test_commit_points.py` tries a crash after every system call of all this.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.fs as pafs

from twotower.core.errors import ConfigError, DataError, InputError, RunError
from twotower.core.files import (
    Data,
    delete_directory,
    delete_file,
    is_temporary,
    sync_directory,
    temporary_files,
    write_file,
)

MANIFEST = "manifest.json"


class Store:
    """A directory, by a local path or by a URI that pyarrow.fs knows (`s3://bucket/folder`).

    Names are relative POSIX paths inside it; one that would leave it raises InputError.
    """

    def __init__(self, location: str | Path) -> None:
        """Open a directory; nothing is created before the first write."""
        text = str(location)
        if "://" in text:
            try:
                self._fs, self._root = pafs.FileSystem.from_uri(text)
            except (ValueError, OSError) as error:
                raise InputError(f"storage {text!r}: can't be opened: {error}") from error
        else:
            self._fs, self._root = pafs.LocalFileSystem(), str(Path(text).absolute())
        self.uri = text

    @property
    def is_local(self) -> bool:
        """Whether the directory is on a local file system."""
        return isinstance(self._fs, pafs.LocalFileSystem)

    @property
    def filesystem(self) -> pafs.FileSystem:
        """The pyarrow filesystem, for readers of Parquet; paths come from `full_path`."""
        return self._fs

    def full_path(self, name: str = "") -> str:
        """Path of a name inside the pyarrow filesystem."""
        return f"{self._root}/{_inside(name)}" if name else self._root

    def local_path(self, name: str = "") -> Path:
        """Path of a name on the local disk; InputError on an object store."""
        if not self.is_local:
            raise InputError(f"storage {self.uri!r}: a local folder is needed here")
        return Path(self.full_path(name))

    def child(self, name: str) -> "Store":
        """The directory of that name inside this one."""
        store = object.__new__(Store)
        store._fs, store._root = self._fs, self.full_path(name)
        store.uri = f"{self.uri.rstrip('/')}/{name}"
        return store

    @property
    def parent(self) -> "Store":
        """The directory that this one lies in."""
        store = object.__new__(Store)
        store._fs, store._root = self._fs, self._root.rstrip("/").rpartition("/")[0]
        store.uri = self.uri.rstrip("/").rpartition("/")[0] or "."
        return store

    def require_writable(self, key: str) -> None:
        """ConfigError naming ``key`` where a local directory can't be made or written to."""
        if not self.is_local:
            return
        place = self.local_path()
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            why = "is no folder" if not place.is_dir() else "can't be written to"
            raise ConfigError(f"{key}: {self.uri!r} can't be used, {place} {why}")

    def exists(self, name: str = "") -> bool:
        """Whether a file or directory of that name stands."""
        return self._fs.get_file_info(self.full_path(name)).type != pafs.FileType.NotFound

    def list(self, name: str = "") -> list[str]:
        """Sorted names directly inside a directory, no temporary ones; empty if it is missing."""
        selector = pafs.FileSelector(self.full_path(name), allow_not_found=True)
        names = [info.base_name for info in self._fs.get_file_info(selector)]
        return sorted(n for n in names if not is_temporary(n))

    def read_bytes(self, name: str) -> bytes:
        """A file's bytes; DataError if it is missing."""
        try:
            with self._fs.open_input_file(self.full_path(name)) as stream:
                return stream.read()
        except FileNotFoundError as error:
            raise DataError(f"{self.uri}/{name}: no such file") from error

    def write_bytes(self, name: str, data: Data) -> None:
        """Write a file so that it appears whole or not at all, whatever happens meanwhile.

        Raises:
            RunError: the disk is full, or can't be written to; what stood there before still does.
        """
        with self._naming_failures(name):
            if self.is_local:
                write_file(self.local_path(name), data)
            else:
                with self._fs.open_output_stream(self.full_path(name)) as stream:
                    stream.write(data)

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as readable JSON with sorted keys; NaN is refused."""
        self.write_bytes(name, dump_json(value))

    def read_json(self, name: str) -> Any:
        """Read a JSON file; DataError if it is missing or not JSON."""
        try:
            return json.loads(self.read_bytes(name))
        except ValueError as error:
            raise DataError(f"{self.uri}/{name}: not JSON: {error}") from error

    def delete(self, name: str = "") -> None:
        """Delete a file or a whole directory; fine if it is already gone.

        A committed directory loses its manifest first, so a torn deletion leaves no half commit.
        """
        kind = self._fs.get_file_info(self.full_path(name)).type
        if kind == pafs.FileType.Directory:
            manifest = f"{name}/{MANIFEST}" if name else MANIFEST
            if self.exists(manifest):
                self._delete_file(manifest)
                self.sync(name)
            if self.is_local:
                delete_directory(self.local_path(name))
            else:
                self._fs.delete_dir(self.full_path(name))
        elif kind == pafs.FileType.File:
            self._delete_file(name)

    def sync(self, name: str = "") -> None:
        """Make the names in a directory durable: after a deletion, or found after a crash."""
        if self.is_local:
            sync_directory(self.local_path(name))

    def sweep(self) -> tuple[str, ...]:
        """Delete files that a crash left in the making, at any depth; their names.

        Only for who alone writes here: another's file in the making would go too.
        """
        if not self.is_local:
            return ()  # a put that was cut off leaves nothing
        found = tuple(temporary_files(self.local_path()))
        for path in found:
            delete_file(path)
        return tuple(str(path.relative_to(self.local_path())) for path in found)

    def _delete_file(self, name: str) -> None:
        if self.is_local:
            delete_file(self.local_path(name))
        else:
            self._fs.delete_file(self.full_path(name))

    @contextmanager
    def _naming_failures(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self.uri}/{name}: can't be written: {error.strerror or error}; make room or "
                "mend the storage, then run the same command again"
            ) from error


def commit(store: Store, files: Mapping[str, Data], **extra: Any) -> dict[str, Any]:
    """Commit files to a directory of their own, the manifest that makes them count last.

    Args:
        store: the directory; what an unfinished commit left there is replaced.
        files: bytes by name.
        extra: JSON values kept in the manifest beside `files`.

    Returns:
        The manifest: ``{"files": {name: {"size", "sha256"}}, **extra}``.
    """
    if store.exists(MANIFEST):
        store.delete(MANIFEST)
    for name, data in files.items():
        store.write_bytes(name, data)
    manifest = {"files": {name: describe(data) for name, data in files.items()}, **extra}
    store.write_json(MANIFEST, manifest)
    return manifest


def load_commit(store: Store) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the files of a committed directory, every byte checked.

    Raises:
        DataError: no manifest stands, or a file is missing, cut or changed; the file is named.
    """
    if not store.exists(MANIFEST):
        raise DataError(f"{store.uri}: was never committed (no {MANIFEST})")
    manifest = store.read_json(MANIFEST)
    files: dict[str, bytes] = {}
    try:
        for name, expected in manifest["files"].items():
            data = store.read_bytes(name)
            if describe(data) != {key: expected[key] for key in ("size", "sha256")}:
                raise DataError(f"{store.uri}/{name}: damaged (it differs from its manifest)")
            files[name] = data
    except (KeyError, TypeError, AttributeError, InputError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{store.uri}/{MANIFEST}: damaged (it is no manifest)") from error
    return manifest, files


def describe(data: Data) -> dict[str, Any]:
    """What a manifest says of a file: its size in bytes and its SHA-256."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def dump_json(value: Any) -> bytes:
    """Readable JSON, keys sorted, one trailing newline; ValueError on NaN or infinity."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise InputError(f"name {name!r}: must be a relative path that stays inside its folder")
    return str(path)
