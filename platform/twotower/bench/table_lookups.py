"""Lookups in served tables on one core, beside a plain NumPy gather of float32 rows.

`python -m twotower.bench.table_lookups` is the process of all kinds: a window of gathers and one of
the table's lookups follow each other, on the same ids, and a ratio is of two neighbours.

Shape letters:
    V values    E width of a row    n ids of a batch
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

from twotower.bench.measure import Window
from twotower.bench.step import LOOK_EVERY_S
from twotower.bench.table_kinds import first_frequent, served
from twotower.bench.task import serve
from twotower.bench.windows import spread
from twotower.bench.workload import zipf_ranks
from twotower.core.types import Float32, Int64

BATCHES = (1, 1024, 65536)
DRAWS = ("uniform", "zipf")

_DRAWN = 1 << 18
"""Ids drawn; looked up in turn, again and again. Their float32 rows are 64 MB: more than most
caches hold."""

_CALLS = 64
"""Lookups of one id between looks at the clock."""

Look = Callable[[Int64], Float32]


def measure_lookups(
    num_values: int, width: int, batches: Sequence[int], seconds: float, repeats: int
) -> dict[str, Any]:
    """Look up by every kind, draw and batch.

    Returns:
        ``sizes`` (kind -> ``bytes`` in memory, ``share_of_full`` and ``settings``), ``lookups`` (a
        line each: ``ids_per_s``, ``gather_ids_per_s``, ``us_per_call``, ``ratio`` of the rates with
        its ``spread``) and ``others_share``.
    """
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((num_values, width), dtype=np.float32)
    drawn = {draw: _ids(rng, draw, num_values) for draw in DRAWS}
    sizes: dict[str, Any] = {}
    lines: list[dict[str, Any]] = []
    with Window(LOOK_EVERY_S) as tree:
        for name, settings, table in served(num_values, width):
            size = table.payload_bytes()
            share = round(size / rows.nbytes, 4)
            sizes[name] = {"bytes": size, "share_of_full": share, "settings": settings}
            for draw, ids in drawn.items():
                for batch in batches:
                    both = (lambda ids: rows[ids], table.rows)
                    found = _turns(both, _parts(ids, batch), batch, seconds, repeats)
                    lines.append({"kind": name, "draw": draw, "batch": batch, **found})
    others = round(tree.figures.others_share, 3)
    return {"sizes": sizes, "lookups": lines, "others_share": others}


def _ids(rng: np.random.Generator, draw: str, num_values: int) -> Int64:
    if draw == "uniform":
        return rng.integers(0, num_values, _DRAWN)
    return first_frequent(zipf_ranks(rng, num_values, _DRAWN), num_values)


def _parts(ids: Int64, batch: int) -> list[Int64]:
    """Batches, each an array of its own."""
    return [ids[start : start + batch].copy() for start in range(0, len(ids) - batch + 1, batch)]


def _turns(
    both: tuple[Look, Look], parts: list[Int64], batch: int, seconds: float, repeats: int
) -> dict[str, Any]:
    turns = [cycle(parts), cycle(parts)]
    calls = max(1, _CALLS // batch)
    rates: list[tuple[float, float]] = []
    for _ in range(repeats + 1):
        gather, own = (
            _rate(look, ids, calls, seconds) * batch for look, ids in zip(both, turns, strict=True)
        )
        rates.append((gather, own))
    rates = rates[1:]  # the first turn meets cold caches
    ratios = [own / gather for gather, own in rates]
    gather, own = (statistics.median(pair[of] for pair in rates) for of in (0, 1))
    return {
        "ids_per_s": round(own),
        "gather_ids_per_s": round(gather),
        "us_per_call": round(batch / own * 1e6, 2),
        "ratio": round(statistics.median(ratios), 4),
        "spread": spread(ratios),
    }


def _rate(look: Look, ids: Iterator[Int64], calls: int, seconds: float) -> float:
    """Lookups a second, over at least so long."""
    done, began = 0, time.perf_counter()
    while True:
        for _ in range(calls):
            look(next(ids))
        done += calls
        spent = time.perf_counter() - began
        if spent >= seconds:
            return done / spent


def _measure(spec: Mapping[str, Any]) -> dict[str, Any]:
    return measure_lookups(
        spec["values"], spec["width"], spec["batches"], spec["seconds"], spec["repeats"]
    )


if __name__ == "__main__":
    serve(_measure)
