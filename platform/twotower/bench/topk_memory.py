"""Peak memory of a search, in a process of its own: python -m twotower.bench.topk_memory ..."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from twotower.bench.measure import forget_peak, memory_mb
from twotower.bench.topk import OURS, read_vectors, search


def peak(vectors: Path, queries: int, threads: int, way: str, tile_mb: int) -> dict[str, Any]:
    """What a search adds to the process's memory at its peak, in MiB, by the bound it was given.

    Args:
        vectors: .npz file of `write_vectors`.
        queries: how many of its queries.
        threads: of torch.
        way: a key of `OURS`.
        tile_mb: the bound.
    """
    command = [sys.executable, "-m", "twotower.bench.topk_memory"]
    command += [str(part) for part in (vectors, queries, threads, way, tile_mb)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure one search, in this process, and print its line."""
    vectors, queries, threads, way, tile_mb = sys.argv[1:]
    query, item = read_vectors(Path(vectors), int(queries))
    torch.set_num_threads(int(threads))
    search(query[:300], item[:20_000], OURS[way])  # libraries take their own memory once
    forget_peak()
    before = memory_mb("VmRSS")
    search(query, item, OURS[way], int(tile_mb))
    line = {
        "way": way,
        "threads": int(threads),
        "tile_mb": int(tile_mb),
        "vectors_mb": round((query.nbytes + item.nbytes) / 2**20),
        "added_mb": round(memory_mb("VmHWM") - before),
    }
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
