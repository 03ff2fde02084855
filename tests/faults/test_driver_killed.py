"""A driver that is killed: the same command goes on from the last checkpoint, nothing is left over.

Real: `jobs/train.py` as a process, its Ray, SIGKILL. Small: data and model.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from small_experiment import small_document, write_yaml
from twotower.core.loading import load_config
from twotower.runtime.checkpoint import CheckpointStore
from twotower.runtime.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(300)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def test_a_killed_driver_loses_at_most_the_steps_since_the_checkpoint(tmp_path: Path) -> None:
    document = small_document(tmp_path)
    document["train"] |= {"num_epochs": 40, "num_workers": 2, "threads": 1, "checkpoint_every": 3}
    file = write_yaml(tmp_path / "small.yaml", document)
    folder = RunFolder(load_config(file).config)
    run = folder.store.local_path()
    command = [sys.executable, "jobs/train.py", str(file)]
    environment = {**os.environ, "PYTHONPATH": "platform"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    checkpoints = CheckpointStore(folder.store.child("checkpoints"), 2)
    try:
        wait_until(lambda: process.poll() is not None or len(checkpoints.steps()) > 1, 150)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.communicate()
    record = json.loads((run / "record.json").read_text())
    assert record["status"] == "running", "nobody was left to write another"
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    wait_until(lambda: not any(map(is_alive, events[0]["pids"])), 30)
    committed = checkpoints.steps()[-1]

    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    first, second = (event for event in events if event["event"] == "start")
    assert (first["step"], second["step"]) == (0, committed)
    record = json.loads((run / "record.json").read_text())
    assert (record["status"], len(record["attempts"])) == ("done", 2)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["kind"] == "validation"]
    assert steps == sorted(set(steps)), "each once"
    assert len(steps) == 40
