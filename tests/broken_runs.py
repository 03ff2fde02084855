"""What a run leaves, read back for comparison: its result, the rows it trained on, its faults."""

import json
from pathlib import Path
from typing import Any

TIMES = ("data_wait_s", "step_s", "rows_per_s")
"""Of a line of metrics; they differ from run to run."""

Rows = list[tuple[int, int]]
"""(query, item) of a global batch, in its order."""


def lines_of(run: str | Path, file: str) -> list[dict[str, Any]]:
    """A file of JSON lines; none where it is missing."""
    path = Path(run) / file
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def events_of(run: str | Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in lines_of(run, "events.jsonl") if event["event"] == kind]


def result_of(run: str | Path) -> dict[str, Any]:
    """All that a run left and that must not depend on what happened to it; floats as written."""
    folder = Path(run)
    lines = lines_of(folder, "metrics.jsonl")
    last = sorted((folder / "checkpoints").glob("step-*"))[-1]
    return {
        "lines": [{k: v for k, v in line.items() if k not in TIMES} for line in lines],
        "state": {path.name: path.read_bytes() for path in last.iterdir()},
        "test": json.loads((folder / "evaluation" / "test.json").read_text()),
        "best": json.loads((folder / "best.json").read_text()),
    }


def trained_rows(run: str | Path) -> dict[int, Rows]:
    """Rows of every step along the history that survived: each step as last trained on."""
    traced = [
        line
        for path in sorted(Path(run).glob("trace-*.jsonl"))
        for line in lines_of(run, path.name)
    ]
    attempts: dict[int, int] = {}
    for line in traced:
        attempts[line["step"]] = max(line["attempt"], attempts.get(line["step"], 0))
    found: dict[int, Rows] = {}
    for step, attempt in sorted(attempts.items()):
        rows = [
            r for t in traced if (t["step"], t["attempt"]) == (step, attempt) for r in t["rows"]
        ]
        found[step] = [(query, item) for _, query, item in sorted(rows)]
    return found


def missed_and_repeated(run: str | Path, expected: dict[int, Rows]) -> tuple[int, int]:
    """Rows that a run's surviving history lacks, and rows that it has too often, step by step."""
    found = trained_rows(run)
    missed = repeated = 0
    for step in expected.keys() | found.keys():
        want, have = list(expected.get(step, [])), list(found.get(step, []))
        for row in list(have):
            if row in want:
                want.remove(row)
                have.remove(row)
        missed, repeated = missed + len(want), repeated + len(have)
    return missed, repeated
