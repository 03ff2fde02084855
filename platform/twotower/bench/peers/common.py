"""What every peer script shares: W1 in memory, its batches, its numbers, and the clock.

It runs in the peers' own environments, so it needs numpy and pyarrow only.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

EMBED_DIM, HIDDEN, OUT_DIM = 64, (512, 128), 128
TEMPERATURE, SSL_TEMPERATURE, SSL_WEIGHT = 0.07, 0.1, 0.3
LEARNING_RATE = 0.05
MASKED = 2
"""Item features masked in one view; the other view masks the rest."""

_TICK = os.sysconf("SC_CLK_TCK")
_WARM_UP_STEPS, _LEAST_STEPS = 4, 5


@dataclass(frozen=True, slots=True)
class Column:
    """One feature's values, row after row."""

    offsets: NDArray[np.int32]
    """Shape (rows + 1,): row r has ``values[offsets[r] : offsets[r + 1]]``."""
    values: NDArray[np.int32]
    distinct: int
    """Values are below this."""
    most: int
    """Most values of a row."""

    def take(self, rows: NDArray[np.integer]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the lengths of some rows and their values one after another."""
        if self.most == 1:
            return np.ones(len(rows), np.int32), self.values[rows]
        first = self.offsets[rows]
        lengths = self.offsets[rows + 1] - first
        ends = np.cumsum(lengths)
        at = np.repeat(first - (ends - lengths), lengths) + np.arange(ends[-1], dtype=np.int32)
        return lengths, self.values[at]

    def padded(self) -> NDArray[np.int32]:
        """Return the values plus 1 as (rows, most), 0 where a row has fewer."""
        filled = np.arange(self.most) < np.diff(self.offsets)[:, None]
        table = np.zeros(filled.shape, np.int32)
        table[filled] = self.values + 1
        return table


@dataclass(frozen=True, slots=True)
class Data:
    """W1 in memory."""

    query: dict[str, Column]
    """Features by name, a row an example."""
    item: dict[str, Column]
    """Features by name, a row an item."""
    clicked: NDArray[np.int32]
    """(examples,): the item of each."""


def read(folder: Path) -> Data:
    """Read what ``python -m twotower.bench.workload FOLDER`` wrote; the query table apart."""
    home = folder / "w1"
    features = json.loads((home / "workload.json").read_text("utf-8"))["features"]
    log = pa.concat_tables([pq.read_table(path) for path in sorted((home / "log").iterdir())])
    items = pq.read_table(home / "items.parquet")
    return Data(
        {name: _column(log, name, *size) for name, *size in features["query"]},
        {name: _column(items, name, *size) for name, *size in features["item"]},
        log["item_id"].combine_chunks().to_numpy(),
    )


def _column(table: pa.Table, name: str, distinct: int, most: int) -> Column:
    array = table[name].combine_chunks()
    if isinstance(array, pa.ListArray):
        return Column(array.offsets.to_numpy(), array.flatten().to_numpy(), distinct, most)
    offsets = np.arange(len(array) + 1, dtype=np.int32)
    return Column(offsets, array.to_numpy(), distinct, most)


def batches(rows: int, batch: int, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """Row numbers of shuffled full batches, for ever."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(rows)
        for first in range(0, rows - batch + 1, batch):
            yield order[first : first + batch]


def arguments(peer: str, *, bf16: bool = False) -> argparse.Namespace:
    """Parse a peer's command line; ``--bf16`` is there only where the peer has it."""
    parser = argparse.ArgumentParser(prog=f"{peer}.py")
    parser.add_argument("folder", type=Path, help="folder of twotower.bench.workload")
    parser.add_argument("--batch", type=int, required=True, help="examples a step")
    parser.add_argument("--ssl", action="store_true", help="add the masked item views")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=5.0, help="of a window, at least")
    parser.add_argument("--windows", type=int, default=3)
    if bf16:
        parser.add_argument("--bf16", action="store_true", help="matrix products in bfloat16")
    chosen = parser.parse_args()
    chosen.peer, chosen.bf16 = peer, bf16 and chosen.bf16
    # Held to so many CPUs: a library may have threads that its own setting does not count.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: chosen.threads])
    return chosen


def time_steps(step: Callable[[], float], a: argparse.Namespace) -> dict[str, Any]:
    """Warm ``step`` up, then time windows of at least ``--seconds`` and 5 steps each.

    ``step`` does one whole step and returns its loss. Step and CPU time are those of the median
    window; ``others_share`` is the share of the machine that others used in it.
    """
    step()
    startup = _since_exec_s()
    for _ in range(_WARM_UP_STEPS):
        step()
    windows = [_window(step, a.batch, a.seconds) for _ in range(a.windows)]
    rates = [window["examples_per_s"] for window in windows]
    median = sorted(windows, key=lambda window: window["examples_per_s"])[len(windows) // 2]
    return {
        **median,
        "examples_per_s": round(statistics.median(rates), 1),
        "windows": rates,
        "startup_s": round(startup, 2),
    }


def _window(step: Callable[[], float], batch: int, seconds: float) -> dict[str, Any]:
    times: list[float] = []
    loss = 0.0
    busy, cpu, started = _machine_busy_s(), time.process_time(), time.perf_counter()
    while time.perf_counter() < started + seconds or len(times) < _LEAST_STEPS:
        begun = time.perf_counter()
        loss = step()
        times.append(time.perf_counter() - begun)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    others = max(0.0, _machine_busy_s() - busy - cpu) / (wall * (os.cpu_count() or 1))
    examples = len(times) * batch
    return {
        "examples_per_s": round(examples / wall, 1),
        "step_ms": round(statistics.median(times) * 1e3, 2),
        "cpu_us_per_example": round(cpu / examples * 1e6, 2),
        "others_share": round(others, 3),
        "loss": round(float(loss), 4),
    }


def report(a: argparse.Namespace, figures: Mapping[str, Any], versions: Sequence[Any]) -> None:
    """Print one line of JSON; ``versions`` are the modules whose ``__version__`` matters."""
    line = {
        "peer": a.peer,
        "batch": a.batch,
        "ssl": a.ssl,
        "precision": "bf16" if a.bf16 else "float32",
        "threads": a.threads,
        **figures,
        "peak_rss_mb": round(_peak_rss_mb()),
        "versions": {module.__name__: module.__version__ for module in versions},
    }
    sys.stdout.write(json.dumps(line) + "\n")


def _since_exec_s() -> float:
    text = Path("/proc/self/stat").read_text()
    started = int(text[text.rindex(")") + 2 :].split()[19]) / _TICK
    return float(Path("/proc/uptime").read_text().split()[0]) - started


def _machine_busy_s() -> float:
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICK


def _peak_rss_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
