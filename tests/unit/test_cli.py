"""The command line shows what stands in files, whole and as it is."""

import csv
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from job_checkout import write_checkout
from tiny_config import tiny_config
from twotower import cli
from twotower.core.loading import load_config

ROOT = Path(__file__).parents[2]
Captured = pytest.CaptureFixture[str]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, code: int = 0) -> None:
    monkeypatch.setattr(sys, "argv", ["twotower", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code or 0) == code


def write(path: Path, header: list[str], rows: Iterable[list[Any]]) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def test_names_that_look_like_markup_make_a_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    columns = ["item", "[red]kind", "genre [/b]"]
    write(Path("log.csv"), ["user", "item"], ([f"u{n % 40}", f"i{n * 7 % 60}"] for n in range(400)))
    items = ([f"i{n}", f"k{n % 3}", f"g{n % 5}" if n < 8 else ""] for n in range(60))
    write(Path("cat.csv"), columns, items)
    name = "mine [red]of it.yaml"
    run(monkeypatch, "init", "log.csv", "cat.csv", "-o", name)
    told = capsys.readouterr().out
    assert told.splitlines()[-2:] == [name, f"next: twotower prepare '{name}'"]
    assert "[red]kind" in told
    (warning,) = (line for line in told.splitlines() if "genre [/b]" in line and "warning" in line)
    assert warning.startswith("warning  ")
    run(monkeypatch, "config", "show", name)
    assert "mine [red]of it.yaml" in capsys.readouterr().out


def test_a_config_is_shown_whole_to_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    file = ROOT / "configs/debian.yaml"
    run(monkeypatch, "config", "show", str(file))
    _, *rows = (line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    loaded = load_config(file)
    assert [key for key, _ in rows] == list(loaded.provenance)
    values = dict(rows)
    assert json.loads(values["data.interactions.path"].rsplit(maxsplit=1)[0]) == (
        loaded.config.data.interactions.path
    )


def test_a_checked_config_is_named_on_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    folder = tmp_path.joinpath(*["a rather long folder name"] * 4)
    folder.mkdir(parents=True)
    path = folder / "tiny.yaml"
    path.write_text(json.dumps(tiny_config().model_dump(mode="json")))
    run(monkeypatch, "config", "check", str(path))
    assert capsys.readouterr().out == f"{path}: fine\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["study", "configs/study.yaml"],
        ["benchmark", "bench"],
        ["export", "runs/x", "-o", "out/exp", "--onnx"],
        ["evaluate", "--part", "test", "test"],
    ],
)
def test_what_is_offered_can_be_submitted(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(write_checkout(tmp_path))
    nobody = ["--address", "http://127.0.0.1:1"]
    run(monkeypatch, "submit", *arguments, *nobody, code=2)
    told = capsys.readouterr().err
    assert told.startswith("twotower: cluster address http://127.0.0.1:1: nothing answers there")
    run(monkeypatch, "submit", *arguments, "--address", "http://head.invalid:8265", code=2)
    assert "is relative, so it would lie in the job's own folder" in capsys.readouterr().err
