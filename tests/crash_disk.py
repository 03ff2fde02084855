"""Every disk that a crash may leave: real calls are noted, then played back in part.

`NotingDisk` carries calls out and takes notes. `Crashes` plays the notes back under the weakest
reading of POSIX: what was synced is there; of the rest, any part may be there, in any order. New,
changed and deleted names are lost or kept one by one until their directory is synced; what was
written to a file is lost, cut, or read as zeros until the file is synced. Only a rename is whole.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import override

from twotower.core.files import Data, Disk

Tree = tuple[tuple[str, bytes | None], ...]
"""A disk: relative path -> bytes, None for a directory; sorted."""

_ROOT = 0


class Killed(BaseException):
    """The process was killed at this call; nothing of it can go on."""


@dataclass(frozen=True)
class Name:
    """A change of names in one directory: some go, one may come; atomic."""

    directory: int
    gone: tuple[str, ...]
    new: str | None = None
    node: int = -1


@dataclass(frozen=True)
class Write:
    node: int
    data: bytes


@dataclass(frozen=True)
class Sync:
    """fsync of a file or a directory."""

    node: int


@dataclass(frozen=True)
class Mark:
    """What the test says of itself between calls."""

    what: str
    value: Any


Note = Name | Write | Sync | Mark


class NotingDisk(Disk):
    """The real disk below a folder, with notes of every call; dies before the call ``die_at``."""

    def __init__(self, root: Path) -> None:
        """Begin with what stands in the folder, all of it durable."""
        self.root = root
        self.start: list[tuple[int, str, int, bytes | None]] = []
        self.notes: list[Note] = []
        self.die_at: int | None = None
        self.forgets_files = self.forgets_directories = False
        """Syncs that are left out, to see that the crashes then do harm."""
        self.directories = {_ROOT}
        self._nodes: dict[Path, int] = {root: _ROOT}
        self._open: dict[int, int] = {}
        self._count = itertools.count(1)
        for path in sorted(root.rglob("*")):
            node = self._nodes[path] = next(self._count)
            data = None if path.is_dir() else path.read_bytes()
            if data is None:
                self.directories.add(node)
            self.start.append((self._nodes[path.parent], path.name, node, data))

    def mark(self, what: str, value: Any) -> None:
        self.notes.append(Mark(what, value))

    @property
    def calls(self) -> int:
        """Calls that change the disk, so far."""
        return sum(not isinstance(note, Mark) for note in self.notes)

    @override
    def create(self, path: Path) -> int:
        self._next()
        descriptor = super().create(path)
        if self._is_ours(path):
            self._open[descriptor] = self._add(path)
        return descriptor

    @override
    def open_end(self, path: Path) -> int:
        new = not path.exists()
        if new:
            self._next()
        descriptor = super().open_end(path)
        if self._is_ours(path):
            self._open[descriptor] = self._add(path) if new else self._nodes[path]
        return descriptor

    @override
    def write(self, descriptor: int, data: Data) -> None:
        self._next()
        super().write(descriptor, data)
        if descriptor in self._open:
            self.notes.append(Write(self._open[descriptor], bytes(data)))

    @override
    def sync(self, descriptor: int) -> None:
        self._next()
        if descriptor in self._open and not self.forgets_files:
            self.notes.append(Sync(self._open[descriptor]))

    @override
    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)
        super().close(descriptor)

    @override
    def rename(self, source: Path, target: Path) -> None:
        self._next()
        super().rename(source, target)
        assert source.parent == target.parent
        node = self._nodes[target] = self._nodes.pop(source)
        directory = self._nodes[source.parent]
        self.notes.append(Name(directory, (source.name,), target.name, node))

    @override
    def unlink(self, path: Path) -> None:
        self._next()
        super().unlink(path)
        self._remove(path)

    @override
    def make_directory(self, path: Path) -> None:
        self._next()
        super().make_directory(path)
        self.directories.add(self._add(path))

    @override
    def remove_directory(self, path: Path) -> None:
        self._next()
        super().remove_directory(path)
        self._remove(path)

    @override
    def sync_directory(self, path: Path) -> None:
        if not self._is_ours(path):
            return
        self._next()
        if not self.forgets_directories:
            self.notes.append(Sync(self._nodes[path]))

    def _is_ours(self, path: Path) -> bool:
        return path == self.root or self.root in path.parents

    def _next(self) -> None:
        """Die here where this is the call to die at; a dead process makes no more calls."""
        if self.die_at is not None and self.calls >= self.die_at:
            raise Killed

    def _add(self, path: Path) -> int:
        node = self._nodes[path] = next(self._count)
        self.notes.append(Name(self._nodes[path.parent], (), path.name, node))
        return node

    def _remove(self, path: Path) -> None:
        del self._nodes[path]
        self.notes.append(Name(self._nodes[path.parent], (path.name,)))


@dataclass
class Crashes:
    """The disks that a crash may leave, after each note in turn."""

    disk: NotingDisk
    names: dict[int, dict[str, int]] = field(default_factory=dict)
    """Durable names of each directory."""
    data: dict[int, bytes] = field(default_factory=dict)
    """Durable bytes of each file."""
    changes: list[Name] = field(default_factory=list)
    """Changes of names that are not durable, in their order."""
    written: dict[int, bytes] = field(default_factory=dict)
    """Bytes behind the durable ones that are not durable."""

    def points(self, first_note: int = 0, most: int | None = None) -> Iterator[tuple[int, Tree]]:
        """(notes played, disk) for every crash from a note on; a disk may come many times.

        Args:
            first_note: notes played before.
            most: disks a note; all by default.
        """
        for directory, name, node, data in self.disk.start:
            self.names.setdefault(directory, {})[name] = node
            self.data[node] = data or b""
        for done, note in enumerate(self.disk.notes):
            if done >= first_note and not isinstance(note, Mark):
                yield from ((done, tree) for tree in itertools.islice(self._trees(), most))
            self._play(note)
        trees = itertools.islice(self._trees(), most)
        yield from ((len(self.disk.notes), tree) for tree in trees)

    def _play(self, note: Note) -> None:
        if isinstance(note, Name):
            self.changes.append(note)
            self.data.setdefault(note.node, b"")
        elif isinstance(note, Write):
            self.written[note.node] = self.written.get(note.node, b"") + note.data
        elif isinstance(note, Sync):
            self.data[note.node] = self.data.get(note.node, b"") + self.written.pop(note.node, b"")
            for change in [c for c in self.changes if c.directory == note.node]:
                self.changes.remove(change)
                _apply(self.names, change)

    def _trees(self) -> Iterator[Tree]:
        unsure = list(self.written)
        versions = [list(_versions(self.data[node], self.written[node])) for node in unsure]
        for kept in itertools.product((False, True), repeat=len(self.changes)):
            names = {directory: dict(found) for directory, found in self.names.items()}
            for change in itertools.compress(self.changes, kept):
                _apply(names, change)
            reached = {node for found in names.values() for node in found.values()}
            choices = [
                found if node in reached else found[:1]
                for node, found in zip(unsure, versions, strict=True)
            ]
            for chosen in itertools.product(*choices):
                data = {**self.data, **dict(zip(unsure, chosen, strict=True))}
                yield tuple(sorted(self._walk(names, data, _ROOT, "")))

    def _walk(
        self, names: dict[int, dict[str, int]], data: dict[int, bytes], directory: int, path: str
    ) -> Iterator[tuple[str, bytes | None]]:
        for name, node in names.get(directory, {}).items():
            if node in self.disk.directories:
                yield f"{path}{name}", None
                yield from self._walk(names, data, node, f"{path}{name}/")
            else:
                yield f"{path}{name}", data[node]


def _apply(names: dict[int, dict[str, int]], change: Name) -> None:
    found = names.setdefault(change.directory, {})
    for name in change.gone:
        found.pop(name, None)
    if change.new is not None:
        found[change.new] = change.node


def _versions(durable: bytes, written: bytes) -> Iterator[bytes]:
    """What a file may hold: nothing new, all, cut anywhere, zeros, a hole before the end."""
    size = len(written)
    for cut in sorted({0, 1, size // 4, size // 2, 3 * size // 4, size - 1, size}):
        yield durable + written[:cut]
    yield durable + bytes(size)
    yield durable + bytes(size // 2) + written[size // 2 :]


def lay_out(tree: Tree, folder: Path) -> None:
    """Make a disk's files in a folder that doesn't exist."""
    folder.mkdir()
    for path, data in tree:
        if data is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(data)
