"""The result file of compressed tables: what each kind costs a step, in memory and in a lookup."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twotower.bench.measures import Tell
from twotower.bench.result import QUIET
from twotower.bench.table_kinds import FULL, LARGE, changes, kinds
from twotower.bench.table_lookups import BATCHES as LOOKUP_BATCHES
from twotower.bench.task import run_task
from twotower.bench.w1 import Cell, base_config, cell_config, prepared_path
from twotower.bench.workload import Sizes, write_workload
from twotower.core.config import ExperimentConfig
from twotower.core.records import environment
from twotower.core.storage import Store

FILE = "tables.json"

NOTES = (
    "All tables of W1 with 5,000 values or more are stored by the kind, at its defaults (low_rank "
    "with an eighth of the width, hashed with an eighth of the rows); the others are full.",
    "ratio: time of a step over that of a step with full tables, on the same batches; windows of "
    "both in turn, median over neighbours. spread = (largest - smallest) / median.",
    "Looks for unused centroids come every 200 steps and are timed apart, with every value counted "
    "as trained: ratio_with_revivals holds their share.",
    "state_mb: weights, tables and optimizer state; low_rank keeps its short rows in rows of full "
    "width while it trains. peak_rss_mb: of a process that trains this kind alone, data and "
    "libraries included.",
    "A served table has random contents; ids by Zipf's law (exponent 1.05) have the most frequent "
    "value first. The gather is `rows[ids]` of NumPy over a float32 table of as many rows; "
    "`ServedTable.rows` of a full table is the same after a look whether all ids are in range.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    folder: Path
    """Where the workload and its prepared data lie, or are made."""

    seconds: float = 2.0
    """Least length of a window of training; one of lookups takes a tenth."""

    repeats: int = 5
    threads: int = 2
    """Of training; lookups have one."""

    batches: tuple[int, ...] = (1024, 4096)
    kinds: tuple[str, ...] = tuple(kinds(1))
    values: int = 1_000_000
    """Of the served tables."""

    width: int = 64
    """Of their rows."""

    lookup_batches: tuple[int, ...] = LOOKUP_BATCHES
    sizes: Sizes = field(default_factory=Sizes)
    """Of the workload; W1's own unless a test wants it small."""

    changes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Changes of every config, by dotted path; there for tests."""


def bench(plan: Plan, out: Path, tell: Tell) -> dict[str, Any]:
    """Measure, write `tables.json` and return its document.

    Raises:
        InputError: the config or the workload can't be used.
        RunError: a measurement failed.
    """
    tell("workload")
    write_workload(plan.folder, plan.sizes)
    base = base_config(plan.folder)
    prepared = prepared_path(base)
    training = [
        line for batch in plan.batches for line in _training(plan, base, prepared, batch, tell)
    ]
    tell("lookups")
    lookups = _lookups(plan)
    reasons = reasons_not_to_quote(plan, training, lookups)
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "workload": asdict(plan.sizes),
        "tables": {side: list(features) for side, features in LARGE.items()},
        "environment": environment(),
        "threads": plan.threads,
        "seconds": plan.seconds,
        "repeats": plan.repeats,
        "training": training,
        "serving": {"values": plan.values, "width": plan.width, "threads": 1, **lookups},
        "notes": list(NOTES),
        "quotable": not reasons,
        "not_quotable_because": reasons,
    }
    Store(out).write_json(FILE, document)
    return document


def _training(
    plan: Plan, base: ExperimentConfig, prepared: str, batch: int, tell: Tell
) -> list[dict[str, Any]]:
    """A line a kind at one batch, full tables first."""

    def config(kind: str) -> dict[str, Any]:
        cell = cell_config(base, Cell(batch, ssl=False), changes=plan.changes)
        own = changes(kind, cell.model.embed_dim)
        return cell_config(
            base, Cell(batch, ssl=False), changes={**plan.changes, **own}
        ).model_dump(mode="json")

    common = {"prepared": prepared, "threads": plan.threads}
    lines: list[dict[str, Any]] = []
    for kind in (FULL, *plan.kinds):
        tell(f"batch {batch}, {kind}")
        spec = {**common, "config": config(kind)}
        memory = _run("table_memory", spec, plan.threads)
        timed: dict[str, Any] = {}
        if kind != FULL:
            spec = {**common, "full": config(FULL), "own": config(kind)}
            timing = {"seconds": plan.seconds, "repeats": plan.repeats}
            timed = _run("table_steps", {**spec, **timing}, plan.threads)
        lines.append({"kind": kind, "batch": batch, **timed, **memory})
    return lines


def _lookups(plan: Plan) -> dict[str, Any]:
    spec = {
        "values": plan.values,
        "width": plan.width,
        "batches": list(plan.lookup_batches),
        "seconds": plan.seconds / 10,
        "repeats": plan.repeats,
    }
    return _run("table_lookups", spec, 1)


def _run(module: str, spec: Mapping[str, Any], threads: int) -> dict[str, Any]:
    return run_task(f"twotower.bench.{module}", spec, threads=threads, cpus=threads)


def reasons_not_to_quote(
    plan: Plan, training: Sequence[Mapping[str, Any]], lookups: Mapping[str, Any]
) -> list[str]:
    """Why the file's figures can't be quoted; empty where they can."""
    reasons = [] if plan.repeats >= 3 else [f"{plan.repeats} repeats: at least 3 are needed"]
    missing = [kind for kind in kinds(1) if kind not in plan.kinds]
    reasons += [f"{kind} is missing" for kind in missing]
    measured = {
        f"batch {line['batch']}, {line['kind']}": line["others_share"]
        for line in training
        if "others_share" in line
    }
    measured["lookups"] = lookups["others_share"]
    return reasons + [
        f"{where}: others used {share:.0%} of the machine"
        for where, share in measured.items()
        if share > QUIET
    ]
