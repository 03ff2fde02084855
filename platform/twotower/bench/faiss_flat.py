"""FAISS Flat in its own interpreter, started once and searched on demand."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from twotower.core.errors import InputError

_SCRIPT = Path(__file__).parent / "peers" / "faiss_flat.py"


class FaissFlat:
    """One process of `peers/faiss_flat.py`, waiting for work."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Wait until the process has its index."""
        self._process = process
        self.version = str(self._answer()["version"])

    def search(self) -> None:
        """Search all queries once."""
        self._ask("search")

    def ids(self) -> NDArray[np.int64]:
        """Items of the last search, ``(Q, K)``."""
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/ids.npy"
            self._ask(f"save {path}")
            return np.load(path)

    def _ask(self, line: str) -> dict[str, Any]:
        stream = _open(self._process.stdin)
        stream.write(line + "\n")
        stream.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = _open(self._process.stdout).readline()
        if not line:
            raise InputError(
                "peers/faiss_flat.py ended early, its last words are above: make its environment "
                "from peers/faiss_flat.txt"
            )
        return json.loads(line)


@contextmanager
def faiss_flat(
    peers: Path, vectors: Path, queries: int, k: int, threads: int
) -> Iterator[FaissFlat]:
    """Start FAISS over the first queries of a file of `write_vectors`; ends with the block.

    Raises:
        InputError: the environment is not there or lacks FAISS.
    """
    python = peers / "etl" / "bin" / "python"
    if not python.exists():
        raise InputError(f"{python} is missing: make an environment of peers/faiss_flat.txt there")
    command = [python, "-B", _SCRIPT, vectors, queries, k, threads]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    with subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**kept, "OMP_NUM_THREADS": str(threads)},
    ) as process:
        yield FaissFlat(process)


def _open(stream: IO[str] | None) -> IO[str]:
    assert stream is not None, "started with pipes"
    return stream
