"""Collect the rows of the fault tests in one file.

TWOTOWER_FAULT_ROWS=rows.jsonl pytest tests/faults
PYTHONPATH=platform python tests/faults/collect.py rows.jsonl docs/benchmarks/faults.json
"""

import json
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twotower.core.records import environment
from twotower.core.storage import dump_json

COMMANDS = [
    "TWOTOWER_FAULT_ROWS=rows.jsonl .venv/bin/pytest -m 'not slow' tests/faults",
    "TWOTOWER_FAULT_ROWS=rows.jsonl .venv/bin/pytest -m slow tests",
    "PYTHONPATH=platform .venv/bin/python tests/faults/collect.py rows.jsonl docs/benchmarks/faults.json",
]
PARTS = ("detect_s", "regroup_s", "process_s", "restore_s", "recover_s")
BY_RAY = ("A1", "A2", "B3", "C1", "random")
"""Cases whose workers died and were started again by the same driver."""


def collect(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The document: what was run where, figures over all cases, the rows."""
    facts = environment()
    restarts = [f for r in rows if r["case"] in BY_RAY for f in r["faults"] if f.get("recover_s")]
    compared = [r for r in rows if "bitwise" in r and r["outcome"] == "done" and r["case"] != "C2"]
    every = [fault for r in rows for fault in r.get("faults", ())]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "what": "Real faults in real runs: two workers under Ray Train, a small experiment",
        "commands": COMMANDS,
        "commit": facts["commit"],
        "versions": facts["versions"],
        "hardware": {name: facts[name] for name in ("cpu", "cpus", "memory_gib", "system")},
        "meaning": {
            "detect_s": "from the fault to the first sign of it: a survivor's error, or a new process",
            "regroup_s": "from the fault to the birth of the first process that takes over",
            "process_s": "from there until it trains: interpreter, imports, process group",
            "restore_s": "from there until the checkpoint is restored",
            "recover_s": "from the fault to the first step that had not been done before",
            "lost_steps": "step of the fault less the step that was gone on from",
            "end_s": "from the signal until all that it hit had ended",
            "bitwise": "checkpoint, metrics, best and test evaluation equal the unbroken run's bytes",
        },
        "summary": {
            "cases": len(rows),
            "faults_fired": len(every),
            "recoveries": len(restarts),
            **{name: _spread([f[name] for f in restarts if name in f]) for name in PARTS},
            "lost_steps_max": max((f.get("lost_steps") or 0 for f in every), default=0),
            "bitwise": f"{sum(r['bitwise'] for r in compared)} of {len(compared)}",
            "rows_missed": sum(r["rows_missed"] for r in compared),
            "rows_repeated": sum(r["rows_repeated"] for r in compared),
            "leftovers": sum(len(r.get("leftovers", ())) for r in rows),
        },
        "rows": list(rows),
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    """Median, 95th percentile (nearest rank) and maximum, in seconds."""
    if not values:
        return None
    ordered = sorted(values)
    p95 = ordered[-(-95 * len(ordered) // 100) - 1]
    return {"median": round(statistics.median(ordered), 2), "p95": p95, "max": ordered[-1]}


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    target.write_bytes(dump_json(collect(lines)))
