"""An object store in memory behind pyarrow's own file system interface; notes changes, dies at one.

A put appears whole when it ends, or not at all; there are no directories and no renames. Deleting
many objects is one call of which a crash may leave any part done.
"""

import io
import itertools
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.fs as pafs
from typing_extensions import override

from crash_disk import Killed, Mark
from twotower.core.storage import Store

Objects = dict[str, bytes]


class Bucket(pafs.FileSystemHandler):
    """Objects by key. After each change all objects are noted; dies before the change ``die_at``."""

    def __init__(self, objects: Objects | None = None) -> None:
        self.objects: Objects = dict(objects or {})
        self.notes: list[list[Objects] | Mark] = []
        self.die_at: int | None = None

    def store(self) -> Store:
        """A store over the bucket, as one of a URI would be."""
        store = Store("bucket/run")
        store._fs, store._root, store.uri = (
            pafs.PyFileSystem(self),
            "bucket/run",
            "mem://bucket/run",
        )
        return store

    @property
    def calls(self) -> int:
        return sum(not isinstance(note, Mark) for note in self.notes)

    def mark(self, what: str, value: int) -> None:
        self.notes.append(Mark(what, value))

    def points(self, first_note: int = 0) -> Iterator[tuple[int, Objects]]:
        """(notes played, objects) for every crash from a note on."""
        now: Objects = {}
        for done, note in enumerate(self.notes):
            if isinstance(note, Mark):
                continue
            if done >= first_note:
                yield from ((done, torn) for torn in note)
            now = note[-1]
        yield len(self.notes), now

    def change(self, *torn: Objects) -> None:
        """Make a change: ``torn`` are the states a crash may leave, the last is the whole change."""
        if self.die_at is not None and self.calls >= self.die_at:
            raise Killed
        self.notes.append([dict(self.objects), *torn])
        self.objects = dict(torn[-1])

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        return [self._info(path) for path in paths]

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        base = selector.base_dir.rstrip("/") + "/"
        names = {
            key.removeprefix(base).partition("/")[0] for key in self.objects if key.startswith(base)
        }
        return [self._info(base + name) for name in sorted(names)]

    def delete_file(self, path: str) -> None:
        self.change({key: data for key, data in self.objects.items() if key != path})

    def delete_dir(self, path: str) -> None:
        inside = [key for key in self.objects if key.startswith(path + "/")]
        left = [
            {key: data for key, data in self.objects.items() if key not in gone}
            for size in range(1, len(inside) + 1)
            for gone in itertools.combinations(inside, size)
        ]
        self.change(*left)

    def open_input_file(self, path: str) -> pa.NativeFile:
        if path not in self.objects:
            raise FileNotFoundError(path)
        return pa.BufferReader(self.objects[path])

    def open_output_stream(self, path: str, metadata: dict[str, str]) -> pa.NativeFile:
        return pa.PythonFile(_Put(self, path), mode="w")

    def _info(self, path: str) -> pafs.FileInfo:
        if path in self.objects:
            return pafs.FileInfo(path, pafs.FileType.File, size=len(self.objects[path]))
        folder = any(key.startswith(path + "/") for key in self.objects)
        return pafs.FileInfo(path, pafs.FileType.Directory if folder else pafs.FileType.NotFound)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def get_type_name(self) -> str:
        return "bucket"

    def normalize_path(self, path: str) -> str:
        return path

    def _refuse(self, *_: object) -> None:
        raise NotImplementedError("an object store has no such call")

    open_input_stream = open_input_file
    create_dir = delete_dir_contents = delete_root_dir_contents = _refuse
    move = copy_file = open_append_stream = _refuse


class _Put(io.BytesIO):
    def __init__(self, bucket: Bucket, key: str) -> None:
        super().__init__()
        self._bucket, self._key = bucket, key

    @override
    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            super().close()
            self._bucket.change({**self._bucket.objects, self._key: data})
