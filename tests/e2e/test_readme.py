"""The README's second section, followed by a newcomer with files of their own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from twotower.datasets.synthetic import write_synthetic

ROOT = Path(__file__).parents[2]


def commands(title: str = "From your own files to a first Recall") -> list[list[str]]:
    """The `twotower` lines of a section, by default that on one's own files."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split(f"## {title}")[1].split("\n## ")[0]
    lines = re.findall(r"^ {4}twotower (.*?)(?:\s+#.*)?$", section, flags=re.MULTILINE)
    return [line.split() for line in lines]


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "twotower.cli", *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, f"twotower {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done


def test_the_section_has_five_commands() -> None:
    assert [line[0] for line in commands()] == ["init", "config", "prepare", "train", "tune"]


@pytest.mark.timeout(600)
def test_five_commands_lead_from_parquet_to_a_recall(tmp_path: Path) -> None:
    write_synthetic(
        tmp_path / "own", rows=6000, queries=400, items=300, shards=3, seed=1, clusters=8
    )
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    small = ["--set", "train.num_epochs=2", "--set", "cluster.num_cpus=2"]
    for line in commands():
        arguments = [
            {"LOG": "own/interactions", "CATALOGUE": "own/items.parquet", "16": "2"}.get(a, a)
            for a in line
        ]
        if line[0] in {"train", "tune"}:
            arguments += small
        done = run(arguments, tmp_path)
        assert "Traceback" not in done.stderr
        assert "(pid=" not in done.stderr + done.stdout, "Ray's own lines on the console"
        if line[0] == "train":
            assert "Recall@50" in done.stdout
    summaries = [
        json.loads(p.read_text()) for p in (tmp_path / "runs").glob("mine-*/evaluation/test.json")
    ]
    assert 0 < summaries[0]["summary"]["recall@50"]["value"] <= 1
    again = run(["train", "mine.yaml", *small], tmp_path)
    assert "done already" in again.stdout

    (found,) = (path.parents[1] for path in (tmp_path / "runs").glob("mine-*/evaluation/test.json"))
    given = {"ID": "q1", "COLUMN": "brand", "CATALOGUE": "own/items.parquet"}
    shown = ""
    for line in commands("Ship it"):
        arguments = [given.get(a, re.sub("^RUN", str(found), a)) for a in line]
        done = run(arguments, tmp_path)
        assert "Traceback" not in done.stderr
        shown += done.stdout
    assert re.search(r"recall@50 against exact search [01]\.\d{4}", shown)
    assert re.search(r"^10 +i\d+ +b\d+ ", shown, flags=re.MULTILINE), "ten items with names"
    assert "300 items" in shown
