"""`jobs/train.py` as a process of its own, with a Ray cluster of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from broken_runs import lines_of
from faults.rig import is_alive, run_folder
from small_experiment import write_yaml
from twotower.core.config import ExperimentConfig

ROOT = Path(__file__).parents[2]
_LONGEST_S = 400.0


class Command:
    """One start of the command; its processes are its own descendants."""

    def __init__(
        self, config: ExperimentConfig, folder: Path, before: Sequence[str] = (), **streams: Any
    ) -> None:
        """Start it behind the words of ``before``, if any."""
        document = config.model_dump(mode="json")
        file = write_yaml(folder / "small.yaml", document)
        self.run = run_folder(config)
        self.seen: dict[int, str] = {}
        self.ended_at = 0.0
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE} | streams
        self.process: subprocess.Popen[Any] = subprocess.Popen(
            [*before, sys.executable, "jobs/train.py", str(file)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": "platform"},
            **streams,
        )

    def wait_for_step(self, step: int) -> None:
        """Wait until the metrics show that a step is done; note the processes on the way."""
        self.wait_for(lambda: self.last_step() >= step)

    def wait_for(self, condition: Any) -> None:
        """Wait until something holds, while the command runs."""
        until = time.monotonic() + _LONGEST_S
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until, "waited in vain"
            time.sleep(0.02)
        self.seen |= descendants(self.process.pid)

    def last_step(self) -> int:
        """Steps done according to the metrics; 0 before the first line."""
        return max((line["step"] for line in lines_of(self.run, "metrics.jsonl")), default=0)

    def end(self) -> tuple[int, str]:
        """Wait for the end; the exit code and what was said on stderr."""
        self.seen |= descendants(self.process.pid)
        said = self.process.communicate(timeout=_LONGEST_S)[1]
        self.ended_at = time.time()
        return self.process.returncode, (said or b"").decode()

    def stop_hard(self) -> None:
        """For `finally`: nothing of a test outlives it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def left_alive(self, seconds: float = 30.0) -> list[str]:
        """Processes that were seen below the command and still run some time after its end."""
        until = time.monotonic() + seconds
        while (left := [pid for pid in self.seen if is_alive(pid)]) and time.monotonic() < until:
            time.sleep(0.2)
        return [f"process {pid} {self.seen[pid]}" for pid in left]


def descendants(pid: int) -> dict[int, str]:
    """Pid and title of every process below one."""
    parents: dict[int, int] = {}
    titles: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            stat = (folder / "stat").read_text()
            titles[int(folder.name)] = title_of((folder / "cmdline").read_bytes().split(b"\0"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    found: dict[int, str] = {}
    grown = True
    while grown:
        new = {p for p, parent in parents.items() if parent in {pid, *found} and p not in found}
        found |= {p: titles.get(p, "") for p in new}
        grown = bool(new)
    return found


def title_of(arguments: Sequence[bytes]) -> str:
    """The first word of a command line: Ray's workers carry the name of their actor there."""
    return arguments[0].decode(errors="replace").strip() if arguments else ""


def run_to_end(config: ExperimentConfig, folder: Path) -> None:
    """Run the command to its end; it must succeed."""
    command = Command(config, folder)
    try:
        code, said = command.end()
    finally:
        command.stop_hard()
    assert code == 0, said


def check_resumed(row: dict[str, Any], left: list[str]) -> None:
    """The run came to the unbroken one's end, and nothing of the broken start is left."""
    assert (row["outcome"], row["bitwise"], row["leftovers"], left) == ("done", True, [], [])
    assert (row["rows_missed"], row["rows_repeated"]) == (0, 0)
