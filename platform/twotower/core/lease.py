"""One writer a run directory."""

import fcntl
import json
import os
import socket
from typing import IO

from twotower.core.errors import InputError
from twotower.core.storage import Store, make_directory

_FILE = ".lease"


class Lease:
    """Held while a process writes to a run directory; the kernel drops it if the process dies.

    Local folders only: an object store has no lock, there a run's own attempt number in its record
    tells a late writer from the current one.
    """

    def __init__(self, store: Store) -> None:
        """Prepare to hold a directory; nothing is taken before `with`."""
        self._store = store
        self._stream: IO[str] | None = None

    def __enter__(self) -> "Lease":
        """Take the directory; InputError naming the holder if another process has it."""
        if not self._store.is_local:
            return self
        path = self._store.local_path(_FILE)
        make_directory(path.parent)
        stream = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.seek(0)
            holder = stream.read().strip() or "another process"
            stream.close()
            raise InputError(
                f"{self._store.uri}: the run directory is in use by {holder}; "
                "wait for it or stop it"
            ) from error
        stream.seek(0)
        stream.truncate()
        stream.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        stream.flush()
        self._stream = stream
        return self

    def __exit__(self, *_: object) -> None:
        """Give the directory back."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
