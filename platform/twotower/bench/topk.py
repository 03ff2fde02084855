"""Exact evaluation against FAISS Flat on workload W3: in turn, on the same threads.

W3: 200,000 items and up to 50,000 queries of 128 numbers and length 1, in 2,000 clusters as a
trained two-tower model makes them; the best 100 by inner product.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from twotower.bench.faiss_flat import faiss_flat
from twotower.bench.measure import Figures, measured
from twotower.core.types import Float32, Ragged
from twotower.evaluation.scorers import CosineScorer
from twotower.evaluation.topk import Candidates, Top, top_k

K = 100
OURS: Mapping[str, Sequence[torch.dtype]] = {
    "float32": (torch.float32,),
    "bfloat16": (torch.bfloat16, torch.float32),
}
"""Types in which short lists are looked for, by the name of the way."""

FAISS = "faiss_flat"
_CHECKED = 200
_CLOSE = 1e-6
"""Two items whose float64 scores differ by less may change places."""


def write_vectors(
    path: Path, queries: int = 50_000, items: int = 200_000, width: int = 128
) -> None:
    """Write W3's vectors, number for number those of the peers' kit, as `q` and `v` of an .npz."""
    rng, width = np.random.default_rng(3), 128
    centre = rng.standard_normal((2000, width)).astype(np.float32)
    item_cluster, query_cluster = rng.integers(0, 2000, items), rng.integers(0, 2000, queries)
    item = centre[item_cluster] + rng.standard_normal((items, width)).astype(np.float32)
    query = centre[query_cluster] + rng.standard_normal((queries, width)).astype(np.float32)
    item /= np.linalg.norm(item, axis=1, keepdims=True)
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    np.savez(path, q=query, v=item)


def read_vectors(path: Path, queries: int) -> tuple[Float32, Float32]:
    """The first queries of a file of `write_vectors`, and all its items."""
    with np.load(path) as arrays:
        return arrays["q"][:queries], arrays["v"]


def search(
    query: Float32, item: Float32, shortlists: Sequence[torch.dtype], tile_mb: int = 256
) -> Top:
    """The best K of every query, on torch's threads, as an evaluation without a filter."""
    nothing = Ragged.from_lengths(np.zeros(len(query), np.int64), np.zeros(0, np.int64))
    keys = np.random.default_rng(0).integers(0, 2**63, len(item)).astype(np.uint64)
    candidates = Candidates(np.full(len(query), -1), nothing, keys)
    scorer = CosineScorer(torch.from_numpy(query), torch.from_numpy(item), shortlists)
    return top_k(scorer, candidates, K, tile_mb=tile_mb)


def measure(
    vectors: Path, queries: int, threads: int, repeats: int, peers: Path | None = None
) -> dict[str, Any]:
    """Speed of our ways and of FAISS Flat, one after the other, several times over.

    Args:
        vectors: .npz file of `write_vectors`.
        queries: how many of its queries.
        threads: of torch and of FAISS.
        repeats: rounds; before them one that isn't counted.
        peers: folder of environments, FAISS's as `etl`; without it FAISS is left out.

    Raises:
        InputError: the environment is not there or lacks FAISS.
    """
    query, item = read_vectors(vectors, queries)
    runs: dict[str, list[Figures]] = {name: [] for name in (*OURS, *([FAISS] if peers else []))}
    tops: dict[str, Top] = {}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    start = faiss_flat(peers, vectors, queries, K, threads) if peers else nullcontext()
    with start as faiss:
        for _ in range(repeats + 1):
            for name, shortlists in OURS.items():
                tops[name], figures = measured(lambda way=shortlists: search(query, item, way))
                runs[name].append(figures)
            if faiss:
                runs[FAISS].append(measured(faiss.search)[1])
        ids: dict[str, NDArray[Any]] = {name: top.items for name, top in tops.items()}
        if faiss:
            ids[FAISS] = faiss.ids()
    torch.set_num_threads(before)
    engines = {
        name: {**_speed(runs[name][1:], queries), "wrong_places": wrong_places(query, item, found)}
        for name, found in ids.items()
    }
    for name, top in tops.items():
        engines[name]["searched_again"] = top.searched
    case = {"queries": queries, "items": len(item), "width": item.shape[1], "k": K}
    return {**case, "threads": threads, "engines": engines, "times_faiss": _ratios(runs)}


def wrong_places(query: Float32, item: Float32, ids: NDArray[Any]) -> int:
    """Places in the first queries' lists whose item is truly worse than who belongs there.

    Truth is float64; differences below 1e-6 are none.
    """
    wrong = 0
    for start in range(0, min(len(query), _CHECKED), 50):
        rows = slice(start, min(start + 50, len(query), _CHECKED))
        true = query[rows].astype(np.float64) @ item.T.astype(np.float64)
        listed = np.take_along_axis(true, ids[rows].astype(np.int64), 1)
        best = -np.sort(-np.partition(true, -K, axis=1)[:, -K:], axis=1)
        wrong += int((np.abs(listed - best) >= _CLOSE).sum())
    return wrong


def _speed(runs: Sequence[Figures], queries: int) -> dict[str, Any]:
    """Best and median of the runs; the machine may be shared, so CPU time stands beside."""
    wall, cpu = ([getattr(run, key) / queries for run in runs] for key in ("wall_s", "cpu_s"))
    return {
        "queries_per_s": round(1 / statistics.median(wall)),
        "queries_per_s_best": round(1 / min(wall)),
        "cpu_us_per_query": round(statistics.median(cpu) * 1e6),
        "cpu_us_per_query_best": round(min(cpu) * 1e6),
        "others_share": [round(run.others_share, 3) for run in runs],
    }


def _ratios(runs: Mapping[str, Sequence[Figures]]) -> dict[str, dict[str, float]]:
    """How many times as fast as FAISS each way is: median over rounds, by wall and by CPU time."""

    def ratio(name: str, of: Callable[[Figures], float]) -> float:
        pairs = zip(runs[FAISS][1:], runs[name][1:], strict=True)
        return round(statistics.median(of(theirs) / of(ours) for theirs, ours in pairs), 3)

    if FAISS not in runs:
        return {}
    return {
        name: {"wall": ratio(name, lambda f: f.wall_s), "cpu": ratio(name, lambda f: f.cpu_s)}
        for name in OURS
    }
