"""Files of JSON lines that only grow."""

import json
from collections.abc import Callable
from typing import Any

from twotower.core.files import append, sync_file
from twotower.core.storage import Store

Line = dict[str, Any]


class JsonLines:
    """A file of JSON lines that only grows; threads may append.

    After a crash of the machine the file may end in a torn line, and what was appended since the
    last `sync` may be garbage; neither is a line.

    On an object store, which can't append, lines are held back until `sync`.
    """

    def __init__(self, store: Store, name: str) -> None:
        """Use a file, which need not exist."""
        self._store, self._name = store, name
        self._held: list[bytes] | None = None if store.is_local else [self._read()]

    def lines(self) -> list[Line]:
        """All whole lines."""
        return [line for _, line in self.numbered()]

    def numbered(self) -> list[tuple[int, Line]]:
        """The same with their places in the file, from 1."""
        return self._parsed()[0]

    def append(self, line: Line) -> None:
        """Add a line; others see it at once on a local disk."""
        data = _dump(line)
        if self._held is not None:
            self._held.append(data)
        else:
            append(self._store.local_path(self._name), data)

    def sync(self) -> None:
        """Make all lines durable that were appended before."""
        if self._held is not None:
            self._store.write_bytes(self._name, b"".join(tuple(self._held)))
        elif self._store.exists(self._name):
            sync_file(self._store.local_path(self._name))

    def keep(self, wanted: Callable[[Line], bool]) -> int:
        """Drop the lines that are not wanted, and what is no line; the count of the latter."""
        found, broken = self._parsed()
        data = b"".join(_dump(line) for _, line in found if wanted(line))
        if data != self._read():
            self._store.write_bytes(self._name, data)
        if self._held is not None:
            self._held = [data]
        return broken

    def _parsed(self) -> tuple[list[tuple[int, Line]], int]:
        """Whole lines, and how many others there are; a torn end is expected and not counted."""
        *whole, _ = self._read().split(b"\n")
        lines = [(place, _parse(text)) for place, text in enumerate(whole, start=1)]
        found = [(place, line) for place, line in lines if line is not None]
        return found, len(lines) - len(found)

    def _read(self) -> bytes:
        return self._store.read_bytes(self._name) if self._store.exists(self._name) else b""


def _dump(line: Line) -> bytes:
    return (json.dumps(line, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _parse(text: bytes) -> Line | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None
