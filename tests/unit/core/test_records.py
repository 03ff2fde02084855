"""The command in a record runs again from the root of a checkout."""

import shlex
import sys
from pathlib import Path

import pytest

from twotower import cli
from twotower.bench import table
from twotower.core.records import command, environment

ROOT = Path(__file__).parents[3]
COMMANDS = {
    "/home/me/.venv/bin/twotower": ["twotower"],
    "twotower": ["twotower"],
    cli.__file__: ["twotower"],
    table.__file__: ["python", "-m", "twotower.bench.table"],
    "jobs/train.py": ["python", "jobs/train.py"],
    str(ROOT / "tune/search.py"): ["python", "tune/search.py"],
    "/home/me/own/study.py": ["python", "study.py"],
    "/usr/bin/pytest": ["pytest"],
}


@pytest.mark.parametrize("program", COMMANDS)
def test_a_command_is_one_that_a_shell_takes(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["train", "my config.yaml", "--set", "model.embeddings.large={kind: mgqe}", "$HOME"]
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    assert shlex.split(command()) == [*COMMANDS[program], *arguments]
    assert environment()["command"] == command()


def test_an_entry_file_is_found_from_its_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "jobs")
    monkeypatch.setattr(sys, "argv", ["train.py", "x.yaml"])
    assert command() == "python jobs/train.py x.yaml"
