"""The result file of exact evaluation: python -m twotower.bench.topk_run OUT --peers FOLDER."""

import argparse
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twotower.bench.topk import OURS, measure, write_vectors
from twotower.bench.topk_memory import peak
from twotower.core.records import environment
from twotower.core.storage import Store

THREADS = (1, 2)
TILES_MB = (16, 64, 256, 1024)


def bench(out: Path, vectors: Path, peers: Path | None, queries: int, repeats: int) -> None:
    """Measure speed by threads and memory by its bound, and write `topk.json`."""
    document: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "workload": "W3 of the peers' kit",
        "environment": environment(),
        "speed": [measure(vectors, queries, threads, repeats, peers) for threads in THREADS],
        "memory": [
            peak(vectors, queries, max(THREADS), way, tile_mb)
            for way in OURS
            for tile_mb in TILES_MB
        ],
    }
    Store(out).write_json("topk.json", document)


def main() -> None:
    """Measure with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of topk.json")
    parser.add_argument("--peers", type=Path, help="folder of environments, FAISS's as etl")
    parser.add_argument("--vectors", type=Path, help=".npz of q and v; made anew without")
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="twotower-topk-") as scratch:
        vectors = a.vectors
        if vectors is None:
            vectors = Path(scratch) / "w3.npz"
            write_vectors(vectors)
        bench(a.out, vectors, a.peers, a.queries, a.repeats)


if __name__ == "__main__":
    main()
