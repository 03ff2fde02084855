"""The result file of training on workload W1: ours without Ray, under Ray Train, the peers."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twotower.bench import result
from twotower.bench.floor import Ceilings
from twotower.bench.measures import Measures, Plan, Tell
from twotower.bench.w1 import Cell, base_config, prepared_path
from twotower.bench.workload import write_workload
from twotower.core.records import environment
from twotower.core.storage import Store

FILE = "train.json"

NOTES = (
    "Ours trains on distinct pairs with weights and carries `history_tags` in the query table: a "
    "list a query, of the same mean length over rows as the log's own list a row, which the peers "
    "look up.",
    "A batch of ours holds each item's embedding once and counts how many rows it stands for, so "
    "its logits are batch x distinct items (about 70 % of 4096 x 4096). The floor charges batch x "
    "batch; a share above 1 is possible.",
    "float32 of ours goes through oneDNN where torch.mm takes MKL (`kernels/products.py`). "
    "`floor_share` counts products at torch.mm's rate, so a share above 1 is possible for this "
    "reason too; `hard_floor_share` at the faster of the two.",
    "Ours without Ray: rows / wall time, logging included. Under Ray, and on both sides of "
    "ray_share: rows / time in steps and waiting for data, from the loop's own lines.",
    "ray_share_net: the rate under Ray divided by 1 - (CPU seconds a second of Ray's own processes "
    "/ CPUs), over the rate without Ray. Ray's own are raylet, GCS, agents, Ray Train's controller "
    "and the driver.",
    "shares: `softmax` makes its gradient in the forward pass; `backward` is the towers' and the "
    "norms'; `update` sums gradients by row and moves dense weights and touched rows.",
    "spread = (largest - smallest) / median over repeats.",
)


def bench(plan: Plan, out: Path, tell: Tell) -> dict[str, Any]:
    """Measure, write `train.json` (after each cell) and return its document.

    Of an earlier file, a plan that is not whole replaces what it measures; such a file can't be
    quoted.

    Raises:
        InputError: the config or the workload can't be used.
        RunError: one of our own measurements failed; the file holds the cells before it.
    """
    tell("workload")
    write_workload(plan.folder, plan.sizes)
    base = base_config(plan.folder)
    measures = Measures(plan, base, prepared_path(base), tell)
    earlier = {} if plan.is_whole else _earlier_cells(out)
    limits = measures.limits()
    document = _document(plan, limits)
    cells: dict[str, dict[str, Any]] = dict(earlier)

    def write(found: Mapping[Cell, Any]) -> dict[str, Any]:
        ceilings = Ceilings.of_limits(document["limits"])
        for cell, samples in found.items():
            entry = result.cell_entry(cell, samples, ceilings)
            cells[cell.name] = {**earlier.get(cell.name, {}), **entry}
        if "curves" in document:
            result.less_all_reduce(cells, document["curves"]["exchange"])
        return _write(out, document, cells, plan, one_run=not earlier)

    found: dict[Cell, Any] = {}
    for cell in plan.cells:
        found[cell] = measures.cell(cell)
        write(found)
    if plan.with_curves:
        document["curves"] = measures.curves()
        document["checkpoint"] = measures.checkpoint(out)
    document["limits"] = _best(limits, measures.limits())
    return write(found)


def _best(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The better of two measurements of each ceiling: what disturbs one only lowers it."""
    return {
        name: {kind: max(rate, second[name][kind]) for kind, rate in rates.items()}
        for name, rates in first.items()
    }


def _document(plan: Plan, limits: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "workload": asdict(plan.sizes),
        "environment": environment(),
        "threads": plan.threads,
        "repeats": plan.repeats,
        "timing": asdict(plan.timing),
        "limits": limits,
        "gpu": _gpu(),
        "notes": list(NOTES),
    }


def _gpu() -> dict[str, Any]:
    if Path("/dev/nvidiactl").exists():
        return {"present": True, "measured": False}
    return {"present": False, "reason": "no NVIDIA device on this machine"}


def _earlier_cells(out: Path) -> dict[str, dict[str, Any]]:
    store = Store(out)
    found = store.read_json(FILE)["cells"] if store.exists(FILE) else []
    return {cell["cell"]: cell for cell in found}


def _write(
    out: Path,
    document: Mapping[str, Any],
    cells: Mapping[str, dict[str, Any]],
    plan: Plan,
    *,
    one_run: bool,
) -> dict[str, Any]:
    reasons = result.reasons_not_to_quote(list(cells.values()), plan.repeats)
    if not one_run:
        reasons.append("cells come from several runs")
    whole = {
        **document,
        "cells": list(cells.values()),
        "skipped": result.skipped(list(cells.values())),
        "quotable": not reasons,
        "not_quotable_because": reasons,
    }
    Store(out).write_json(FILE, whole)
    return whole
