"""How a process ends: one function says it for the command line and for the entry files."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from twotower import cli
from twotower.core.errors import ConfigError, RunError, StoppedError
from twotower.runtime import entry

ROOT = Path(__file__).parents[3]
FULL = OSError(errno.ENOSPC, "No space left on device")
ENDINGS: dict[str, tuple[BaseException | None, int, str]] = {
    "done": (None, 0, ""),
    "bad input": (ConfigError("ssl.weight: too much"), 2, "ssl.weight: too much"),
    "failed": (RunError("rank 1 died"), 3, "rank 1 died"),
    "resumable": (StoppedError("the same command goes on"), 4, "the same command goes on"),
    "full disk": (FULL, 3, f"{FULL}; run with --debug for the traceback"),
    "interrupted": (KeyboardInterrupt(), 128 + signal.SIGINT, "interrupted"),
    "closed pipe": (BrokenPipeError(errno.EPIPE, "Broken pipe"), 128 + signal.SIGPIPE, ""),
}


def end(way: str, error: BaseException | None, monkeypatch: pytest.MonkeyPatch, *more: str) -> int:
    """End the command line (`twotower`) or an entry file by an error; the exit code."""

    def fail(*_: object) -> None:
        if error is not None:
            raise error

    action = "show" if error is not None else "check"
    monkeypatch.setattr(sys, "argv", [way, "config", action, "x.yaml", *more])
    monkeypatch.setattr(cli, "load_config", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main() if way == "twotower" else entry.run(fail)
    assert "--debug" not in sys.argv, "what reads the arguments must not see it"
    return int(ended.value.code or 0)


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize("way", ["twotower", "jobs/train.py"])
def test_both_kinds_of_process_end_alike(
    way: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, code, told = ENDINGS[name]
    line = f"{way}: {told}\n" if told else ""
    assert end(way, error, monkeypatch) == code
    assert capsys.readouterr().err == line
    assert end(way, error, monkeypatch, "--debug") == code
    said = capsys.readouterr().err
    assert said.endswith(line)
    assert ("Traceback" in said) == (error is not None)


def test_a_fault_of_ours_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for way in ("twotower", "jobs/train.py"):
        with pytest.raises(ZeroDivisionError):
            end(way, ZeroDivisionError(), monkeypatch)


def started(*arguments: str, **streams: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "twotower.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform")}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stderr=subprocess.PIPE, **streams
    )


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_left_ends_a_real_process_without_a_word(form: list[str]) -> None:
    process = started("config", "show", "configs/debian.yaml", *form, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(60) == 128 + signal.SIGPIPE


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_results_that_find_the_disk_full_are_told(form: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        process = started("config", "show", "configs/debian.yaml", *form, stdout=full)
        _, said = process.communicate(timeout=60)
    assert said == f"twotower: {FULL}; run with --debug for the traceback\n"
    assert process.returncode == RunError.exit_code
