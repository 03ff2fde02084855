"""Watching a run from outside, by the lines that it writes."""

import json
import time
from collections.abc import Callable

from twotower.core.storage import Store
from twotower.training.loop import Line

_REMOTE_EVERY_S = 5.0
"""Seconds between looks at an object store."""


class Tail:
    """New lines of a file of JSON lines, as they come.

    A resumed run cuts the file back; lines that were passed on before that are not taken back.
    """

    def __init__(self, store: Store, name: str, on_line: Callable[[Line], None]) -> None:
        """Begin behind what stands now."""
        self._store, self._name, self._on_line = store, name, on_line
        self._next_look = 0.0
        self._offset = 0
        self._offset = len(self._added())

    def look(self) -> None:
        """Pass on what was added since the last look."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + (0 if self._store.is_local else _REMOTE_EVERY_S)
        whole, newline, _ = self._added().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for text in whole.split(b"\n") if newline else []:
            try:
                line = json.loads(text)
            except ValueError:
                continue  # cut back and grown past our place: this is the end of some line
            if isinstance(line, dict):
                self._on_line(line)

    def _added(self) -> bytes:
        if not self._store.exists(self._name):
            return b""
        path = self._store.full_path(self._name)
        with self._store.filesystem.open_input_file(path) as stream:
            self._offset = min(self._offset, stream.size())
            stream.seek(self._offset)
            return stream.read()
