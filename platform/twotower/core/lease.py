"""One writer a run directory: a lock on a local disk, a fence on any storage."""

import fcntl
import json
import os
import secrets
import socket
import time
from contextlib import suppress
from typing import IO, Any

from twotower.core.errors import DataError, InputError, RunError
from twotower.core.files import make_directory
from twotower.core.storage import Store

_LEASE = ".lease"
_WRITER = ".writer"

_NAMING_S = 2.0
"""So long who finds a directory taken waits for the holder to write its name."""


class Lease:
    """Held while a process writes to a run directory; the kernel drops it if the process dies.

    Local folders only: an object store has no lock, there the `Fence` stops the earlier of two
    writers at its next commit.
    """

    def __init__(
        self, store: Store, *, what: str = "the run directory", sweep: bool = True
    ) -> None:
        """Prepare to hold a directory; nothing is taken before `with`.

        Args:
            store: the directory.
            what: it is, for messages.
            sweep: what a crash left in the making is deleted, at any depth; false where others
                write below too.
        """
        self._store, self._what, self._sweeps = store, what, sweep
        self._stream: IO[str] | None = None

    def __enter__(self) -> "Lease":
        """Take the directory.

        Raises:
            InputError: another process has it; it is named.
        """
        if not self._store.is_local:
            return self
        path = self._store.local_path(_LEASE)
        make_directory(path.parent)
        stream = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(stream)
            stream.close()
            raise InputError(
                f"{self._store.uri}: {self._what} is in use by {holder}; wait for it or stop it"
            ) from error
        stream.seek(0)
        stream.truncate()
        stream.write(json.dumps(_self()))
        stream.flush()
        self._stream = stream
        if self._sweeps:
            self._store.sweep()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the directory back."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class Fence:
    """Tells a late writer of a run directory from the current one, on any storage.

    A lease is the driver's, and workers write: those of a driver that was killed may live on for
    seconds, and one that hung may wake up. Each writer takes the next number when it begins; one
    that is no longer the last stops before it commits or deletes anything more.
    """

    def __init__(self, store: Store) -> None:
        """Prepare to write to a directory."""
        self._store = store
        self._mine: dict[str, Any] | None = None

    def take(self) -> int:
        """Become the writer; the number of writers that this directory has had."""
        last = self._read()
        number = int(last["number"]) + 1 if last else 1
        self._mine = {"number": number, "token": secrets.token_hex(8), **_self()}
        self._store.write_json(_WRITER, self._mine)
        return number

    def check(self) -> None:
        """Go on only as the current writer; nothing is checked before `take`.

        Raises:
            RunError: another writer took the directory, or it was deleted.
        """
        if self._mine is None:
            return
        now = self._read()
        if now != self._mine:
            by = f"process {now['pid']} on {now['host']}" if now else "its deletion"
            raise RunError(
                f"{self._store.uri}: taken over by {by}; this writer (number "
                f"{self._mine['number']}) stops and leaves the directory as it is"
            )

    def _read(self) -> dict[str, Any] | None:
        try:
            found = self._store.read_json(_WRITER)
            return {name: found[name] for name in ("number", "token", "pid", "host")}
        except (DataError, LookupError, TypeError):
            return None


def _self() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname()}


def _holder(stream: IO[str]) -> str:
    """Who holds a lease, as it wrote itself down; a name that a dead process left is not it."""
    until = time.monotonic() + _NAMING_S
    while time.monotonic() < until:
        stream.seek(0)
        text = stream.read().strip()
        with suppress(ValueError):
            if _may_live(json.loads(text)):
                return text
        time.sleep(0.01)
    return "another process"


def _may_live(holder: Any) -> bool:
    """Whether a holder is on another host, or a process of this one."""
    if not isinstance(holder, dict) or holder.get("host") != socket.gethostname():
        return isinstance(holder, dict)
    try:
        os.kill(int(holder["pid"]), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, LookupError):
        return False
    return True
