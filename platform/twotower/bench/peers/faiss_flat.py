"""FAISS Flat over unit vectors, on demand: python faiss_flat.py VECTORS.npz QUERIES K THREADS.

Runs in an environment of its own (faiss_flat.txt). Says it is ready in one line of JSON, then
answers every line of its input with one: `search` with the seconds a search took, `save PATH` once
the items found last are in that .npy file.
"""

# pyright: reportMissingImports=false
import json
import sys
import time

import faiss
import numpy as np


def main() -> None:
    """Serve until the input ends."""
    path, queries, k, threads = sys.argv[1], *map(int, sys.argv[2:5])
    faiss.omp_set_num_threads(threads)
    arrays = np.load(path)
    query, item = arrays["q"][:queries], arrays["v"]
    index = faiss.IndexFlatIP(item.shape[1])
    index.add(item)
    found = np.empty((0, k), np.int64)
    _say(version=faiss.__version__)
    for line in sys.stdin:
        command, *rest = line.split()
        if command == "search":
            wall, cpu = time.perf_counter(), time.process_time()
            found = index.search(query, k)[1]
            _say(wall_s=time.perf_counter() - wall, cpu_s=time.process_time() - cpu)
        else:
            np.save(rest[0], found)
            _say(saved=rest[0])


def _say(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
