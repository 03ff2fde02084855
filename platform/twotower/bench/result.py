"""From single measurements to the result file of training: medians, ratios, what is missing."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from twotower.bench.floor import Ceilings, step_floor
from twotower.bench.w1 import CELLS, Cell
from twotower.bench.windows import spread

Sample = Mapping[str, Any]
"""One measurement; one that could not be made holds `skipped` or `failed`, the reason."""

OURS, ONE_WORKER, TWO_WORKERS = "twotower", "1 worker", "2 workers"
"""Names of measurements; two workers have the threads of one between them."""

PRECISIONS = ("float32", "bf16")
FRAMEWORKS = ("tfrs", "torchrec_fused")
"""Peers that are frameworks rather than scripts tuned by hand."""

QUIET = 0.05
"""Largest share of the machine that others may use while a figure is measured."""

_MEDIANS = (
    "step_ms",
    "loop_examples_per_s",
    "cpu_us_per_example",
    "data_wait_share",
    "examples_per_s_net",
    "ray_cpus_used",
)


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """Repeats of one measurement as one entry: medians, spread, largest memory; or why not."""
    for problem in ("skipped", "failed"):
        if found := [sample[problem] for sample in samples if problem in sample]:
            return {problem: found[0]}
    rates = [sample["examples_per_s"] for sample in samples]
    entry = {
        "examples_per_s": round(statistics.median(rates)),
        "spread": spread(rates),
        "repeats": [round(rate) for rate in rates],
        "peak_rss_mb": round(max(sample["peak_rss_mb"] for sample in samples)),
        "others_share": max(sample["others_share"] for sample in samples),
    }
    for key in _MEDIANS:
        if all(key in sample for sample in samples):
            entry[key] = round(statistics.median(sample[key] for sample in samples), 4)
    if all("shares" in sample for sample in samples):
        entry["shares"] = {
            phase: round(statistics.median(sample["shares"][phase] for sample in samples), 4)
            for phase in samples[0]["shares"]
        }
    return entry


def precision_entry(
    cell: Cell, precision: str, samples: Mapping[str, Sequence[Sample]], ceilings: Ceilings
) -> dict[str, Any]:
    """One cell at one precision: ours, its share of the floor, and the peers beside it.

    Args:
        cell: the cell.
        precision: of the matrix products.
        samples: repeats by name, ours under `OURS`.
        ceilings: of this run.
    """
    entry = summarise(samples[OURS])
    peers = {name: summarise(found) for name, found in samples.items() if name != OURS}
    floor = step_floor(cell.batch, ssl=cell.ssl, precision=precision, ceilings=ceilings)
    hard = step_floor(
        cell.batch, ssl=cell.ssl, precision=precision, ceilings=ceilings.of_products()
    )
    rates = {name: peer["examples_per_s"] for name, peer in peers.items() if "spread" in peer}
    best = max(rates, key=lambda name: rates[name]) if rates else None
    return {
        **entry,
        "floor_examples_per_s": round(floor.examples_per_s),
        "floor_share": round(entry["examples_per_s"] / floor.examples_per_s, 4),
        "hard_floor_share": round(entry["examples_per_s"] / hard.examples_per_s, 4),
        "best_peer": best,
        "ratio_to_best_peer": round(entry["examples_per_s"] / rates[best], 4) if best else None,
        "peers": peers,
    }


def cell_entry(
    cell: Cell,
    samples: Mapping[str, Mapping[str, Sequence[Sample]]],
    ceilings: Ceilings,
) -> dict[str, Any]:
    """One cell of the file; ``samples`` are by precision, those under Ray by `ray`."""
    entry: dict[str, Any] = {"cell": cell.name, "batch": cell.batch, "ssl": cell.ssl}
    for precision in PRECISIONS:
        if precision in samples:
            entry[precision] = precision_entry(cell, precision, samples[precision], ceilings)
    if {"float32", "bf16"} <= entry.keys():
        entry["bf16"] |= _against_float32(entry["bf16"], entry["float32"])
    if "ray" in samples:
        under = {name: summarise(found) for name, found in samples["ray"].items()}
        entry |= {"ray": under, **_ray_shares(under[ONE_WORKER], entry["float32"])}
        if "spread" in under.get(TWO_WORKERS, {}):
            under[TWO_WORKERS]["over_one_worker"] = round(
                under[TWO_WORKERS]["examples_per_s"] / under[ONE_WORKER]["examples_per_s"], 4
            )
    return entry


def _against_float32(bf16: Mapping[str, Any], float32: Mapping[str, Any]) -> dict[str, Any]:
    """How far bf16 is ahead of our float32, and of the best framework at any precision."""
    every = [
        peer["examples_per_s"]
        for entry in (bf16, float32)
        for name, peer in entry["peers"].items()
        if name in FRAMEWORKS and "spread" in peer
    ]
    own = bf16["examples_per_s"]
    return {
        "over_own_float32": round(own / float32["examples_per_s"], 4),
        "over_best_framework": round(own / max(every), 4) if every else None,
    }


def _ray_shares(one: Mapping[str, Any], without: Mapping[str, Any]) -> dict[str, float]:
    rate = without["loop_examples_per_s"]
    return {
        "ray_share": round(one["examples_per_s"] / rate, 4),
        "ray_share_net": round(one["examples_per_s_net"] / rate, 4),
    }


def less_all_reduce(
    cells: Mapping[str, dict[str, Any]], exchange: Sequence[Mapping[str, Any]]
) -> None:
    """Add what two workers reach of one worker whose step took the collectives' time longer.

    Args:
        cells: entries of `cell_entry` by name; those with both kinds of workers change in place.
        exchange: lines of the curve; the first one with two workers counts for its cell.
    """
    for line in reversed(exchange):
        ray = cells.get(line["cell"], {}).get("ray", {})
        one, two = ray.get(ONE_WORKER, {}), ray.get(TWO_WORKERS, {})
        if line["workers"] != 2 or "spread" not in one or "spread" not in two:
            continue
        longer = line["batch"] / (one["step_ms"] + line["collective_ms"]) * 1e3
        two["collective_ms"] = line["collective_ms"]
        two["over_one_worker_less_all_reduce"] = round(two["examples_per_s"] / longer, 4)


def reasons_not_to_quote(cells: Sequence[Mapping[str, Any]], repeats: int) -> list[str]:
    """Why the file's figures can't be quoted; empty where they can."""
    reasons: list[str] = []
    names = [cell["cell"] for cell in cells]
    reasons += [f"cell {cell.name} is missing" for cell in CELLS if cell.name not in names]
    if repeats < 3:
        reasons.append(f"{repeats} repeats: at least 3 are needed")
    for cell in cells:
        if "ray" not in cell:
            reasons.append(f"cell {cell['cell']}: nothing was measured under Ray")
        for precision in PRECISIONS:
            if precision not in cell:
                reasons.append(f"cell {cell['cell']}: {precision} is missing")
                continue
            entry = cell[precision]
            where = f"cell {cell['cell']}, {precision}"
            if not entry["peers"]:
                reasons.append(f"{where}: no peer was measured")
            if entry["others_share"] > QUIET:
                reasons.append(f"{where}: others used {entry['others_share']:.0%} of the machine")
    return reasons + [f"{one['peer']} was skipped: {one['reason']}" for one in skipped(cells)]


def skipped(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Peers that gave no figure, each once, with the reason."""
    found: dict[str, str] = {}
    for cell in cells:
        for precision in PRECISIONS:
            for name, peer in cell.get(precision, {"peers": {}})["peers"].items():
                if reason := peer.get("skipped") or peer.get("failed"):
                    found.setdefault(name, reason)
    return [{"peer": name, "reason": reason} for name, reason in found.items()]
