"""Where a dataset is made, and how it comes to count: whole, or not at all.

Work goes on in a scratch directory that one process holds. The manifest is written last, then the
directory takes its name. What a killed process leaves is a scratch directory, which the next
preparation in the same storage removes.
"""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from twotower.core.errors import InputError
from twotower.core.hashing import UInt64
from twotower.core.lease import Lease
from twotower.core.storage import MANIFEST, Store, sync_directory
from twotower.core.types import Int64
from twotower.data.catalogue import Catalogue
from twotower.data.counts import Files, SplitCounts
from twotower.data.splits import PARTS, TEST, VALIDATION
from twotower.data.write import Written

_SCRATCH = ".scratch-"
_LEASE = ".lease"


class Workplace:
    """A scratch directory and the directory that files are written to; a context manager."""

    def __init__(self, storage: str, name: str) -> None:
        """Prepare to make the dataset ``name`` in a storage; nothing is touched before `with`."""
        self._store = Store(storage)
        self._name = name
        self.scratch = self._store.child(_SCRATCH + name)
        # An object store can't rename: files go where they will stay, and don't count until the
        # manifest is there.
        self.target = self.scratch.child("out") if self._store.is_local else self._store.child(name)
        self._held = ExitStack()
        self._syncs: list[Future[None]] = []

    def __enter__(self) -> "Workplace":
        """Take the scratch directory, clean; InputError if another process holds it."""
        self._sweep()
        self._held.enter_context(Lease(self.scratch))
        for name in self.scratch.list():
            if name != _LEASE:
                self.scratch.delete(name)
        self._store.delete(self._name)  # a damaged dataset, or a torn one on an object store
        # Syncs wait for the disk while tasks compute.
        self._syncing = self._held.enter_context(ThreadPoolExecutor(4, "sync"))
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the scratch directory and give it back."""
        for sync in self._syncs:
            sync.cancel()
        self.scratch.delete()
        self._held.close()

    def written(self, files: Iterable[Written]) -> None:
        """Make files durable that tasks have written."""
        if self.target.is_local:
            paths = [self.target.local_path(file.name) for file in files]
            self._syncs += [self._syncing.submit(_sync, path) for path in paths]

    def commit(self, manifest: dict[str, Any]) -> None:
        """Write the manifest; from here on the dataset stands."""
        for sync in self._syncs:
            sync.result()
        if not self.target.is_local:
            self.target.write_json(MANIFEST, manifest)
            return
        for folder in {file.parent for file in self.target.local_path().rglob("*")}:
            sync_directory(folder)
        self.target.write_json(MANIFEST, manifest)
        self.target.local_path().rename(self._store.local_path(self._name))
        sync_directory(self._store.local_path())

    def _sweep(self) -> None:
        """Remove scratch directories of processes that are gone."""
        if not self._store.is_local:
            return  # no lock tells there whether one is in use
        for name in self._store.list():
            if name.startswith(_SCRATCH):
                stale = self._store.child(name)
                try:
                    with Lease(stale):
                        stale.delete()
                except InputError:
                    continue  # its process lives


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe_files(files: Files) -> dict[str, dict[str, Any]]:
    """Rows, size and SHA-256 of each file, by name."""
    return {
        name: {"rows": file.rows, "size": file.size, "sha256": file.sha256}
        for name, file in sorted(files.written.items())
    }


def describe_buckets(bucket_rows: Int64, names: Iterable[str]) -> list[dict[str, Any]]:
    """Files of train rows with the positions they hold."""
    first = np.cumsum(bucket_rows) - bucket_rows
    return [
        {"file": name, "rows": int(rows), "first": int(start)}
        for name, rows, start in zip(names, bucket_rows, first, strict=True)
    ]


def describe_digests(counts: SplitCounts, catalogue: Catalogue) -> dict[str, str]:
    """Digests of what an evaluation depends on: the ids of held-out pairs, and of the candidates.

    Those of pairs are the same whatever the order of the pairs.
    """
    return {
        f"{PARTS[code]}_pairs": _digest(int(counts.pairs[code]), counts.digests[code])
        for code in (VALIDATION, TEST)
    } | {"candidates": _digest(catalogue.num_rows, catalogue.hashes)}


def _digest(count: int, words: UInt64) -> str:
    return hashlib.sha256(f"{count}:".encode() + words.astype("<u8").tobytes()).hexdigest()
