"""Files and directories of a local disk that survive a crash, and the system calls they take.

POSIX promises little: after a crash a write may have reached the disk in part, and a new, changed
or deleted name may be there or not, in any order, until the file or its directory was synced.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

Data = bytes | memoryview
"""Bytes of a file; a memoryview is of single bytes, in one piece."""

_TEMPORARY = ".tmp-"
_CHUNK_BYTES = 1 << 24


class Disk:
    """The system calls that change a disk.

    All durable writes go through `DISK`, so that a test can take notes of every call, and try a
    crash after each.
    """

    def create(self, path: Path) -> int:
        """Make a file that must not exist; its descriptor."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def open_end(self, path: Path) -> int:
        """Open a file to write behind its end, made if need be; its descriptor."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)

    def write(self, descriptor: int, data: Data) -> None:
        """Write all bytes; threads run meanwhile."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest[:_CHUNK_BYTES]) :]

    def sync(self, descriptor: int) -> None:
        """Make what was written durable, not the file's name."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a file."""
        os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name in its directory, in place of what has it."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Delete a file."""
        path.unlink()

    def make_directory(self, path: Path) -> None:
        """Make a directory whose parent exists; fine if it is there."""
        path.mkdir(exist_ok=True)

    def remove_directory(self, path: Path) -> None:
        """Delete an empty directory."""
        path.rmdir()

    def sync_directory(self, path: Path) -> None:
        """Make all names in a directory durable, and the absence of those that are gone."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


DISK = Disk()

_durable: set[Path] = set()
"""Directories whose own names this process has made durable."""


def write_file(path: Path, data: Data) -> None:
    """Write a file that appears whole or not at all, durable before this returns."""
    make_directory(path.parent)
    temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    try:
        descriptor = DISK.create(temporary)
        try:
            DISK.write(descriptor, data)
            DISK.sync(descriptor)
        finally:
            DISK.close(descriptor)
        DISK.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            DISK.unlink(temporary)
        raise
    sync_directory(path.parent)


def append(path: Path, data: Data) -> None:
    """Add bytes to the end of a file in one write; not durable before `sync_file`."""
    make_directory(path.parent)
    descriptor = DISK.open_end(path)
    try:
        DISK.write(descriptor, data)
    finally:
        DISK.close(descriptor)


def sync_file(path: Path) -> None:
    """Make what was appended to a file durable, and its name."""
    descriptor = DISK.open_end(path)
    try:
        DISK.sync(descriptor)
    finally:
        DISK.close(descriptor)
    sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Make a directory and its parents, each one durable.

    That a directory exists does not say that its name is durable: the process that made it may have
    been killed before it synced. So each is synced once a process, whoever made it.
    """
    if path in _durable and path.is_dir():
        return
    if path != path.parent:
        make_directory(path.parent)
        existed = path.is_dir()
        if not existed:
            DISK.make_directory(path)
        try:
            sync_directory(path.parent)
        except OSError:
            if not existed:  # else no folder of ours: we may not even read what it lies in
                raise
    _durable.add(path)


def sync_directory(path: Path) -> None:
    """Make all names in a directory durable, and the absence of those that are gone."""
    DISK.sync_directory(path)


def delete_file(path: Path) -> None:
    """Delete a file; fine if it is gone."""
    with suppress(FileNotFoundError):
        DISK.unlink(path)


def delete_directory(path: Path) -> None:
    """Delete a directory and all in it; fine if it is gone. A crash may leave any part of it."""
    _durable.discard(path)
    with suppress(FileNotFoundError):
        for found in list(path.iterdir()):
            if found.is_dir() and not found.is_symlink():
                delete_directory(found)
            else:
                delete_file(found)
        DISK.remove_directory(path)


def is_temporary(name: str) -> bool:
    """Whether a name is that of a file in the making, or of one that a crash left."""
    return name.startswith(_TEMPORARY)


def temporary_files(path: Path) -> Iterator[Path]:
    """Files in a directory, at any depth, that a crash left in the making."""
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names if is_temporary(name))
