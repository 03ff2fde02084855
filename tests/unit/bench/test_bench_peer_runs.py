"""Running a peer in its interpreter: a real script in this one, and every way it can't."""

import shutil
import stat
import sys
from pathlib import Path

import pytest

from twotower.bench import peer_runs
from twotower.bench.peer_runs import PEERS, SCRIPTS, interpreter, run_peer
from twotower.bench.workload import Sizes, write_workload

SIZES = Sizes(rows=4_000, items=60, queries=40, categories=5, developers=9, tags=12, tokens=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("w1")
    write_workload(home, SIZES)
    return home


def script(folder: Path, text: str) -> Path:
    """A Python of an environment that has every module and prints a text of ours."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\n[ "$1" = -I ] && exit 0\n{text}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_every_peer_has_a_script_and_an_environment_file() -> None:
    for name in PEERS:
        assert (SCRIPTS / f"{name}.py").is_file()
        assert f"{name}.py" in (SCRIPTS / f"{name}.txt").read_text()
    assert interpreter(Path("envs"), "tfrs") == Path("envs/tf/bin/python")
    assert interpreter(Path("envs"), "torchrec_fused") == Path("envs/torch/bin/python")


@pytest.mark.parametrize(
    ("name", "ssl", "precision"),
    [("torch_tuned", True, "bf16"), ("torch_tuned", False, "float32"), ("torch_naive", True, "float32")],
)  # fmt: skip
def test_a_real_peer_runs_and_gives_its_line(
    folder: Path, name: str, ssl: bool, precision: str
) -> None:
    line = run_peer(
        name,
        Path(sys.executable),
        folder,
        64,
        ssl=ssl,
        precision=precision,
        threads=1,
        seconds=0.1,
        windows=2,
    )
    assert line["examples_per_s"] > 0
    assert len(line["windows"]) == 2
    expected = {"peer": name, "ssl": ssl, "precision": precision, "batch": 64, "threads": 1}
    assert {key: line[key] for key in expected} == expected
    assert {"step_ms", "cpu_us_per_example", "peak_rss_mb", "startup_s"} <= line.keys()
    # ln(64) = 4.16: at the start a loss is near that of a blind guess, over one or two softmaxes
    assert 3.5 < line["loss"] < (4.16 * 1.3 + 3.5 if ssl else 6.5)


def test_a_missing_interpreter_is_skipped_with_the_way_out(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "tfrs")
    line = run_peer("tfrs", python, tmp_path, 64, ssl=False, threads=1)
    assert line["skipped"] == f"{python} is missing: make an environment of peers/tfrs.txt there"
    assert (line["peer"], line["batch"], line["ssl"]) == ("tfrs", 64, False)


def test_an_interpreter_without_the_package_is_skipped(tmp_path: Path) -> None:
    """This environment has torch but not torchrec; the script must not be started."""
    line = run_peer("torchrec_fused", Path(sys.executable), tmp_path, 64, ssl=False)
    assert "has no torchrec: make an environment of peers/torchrec_fused.txt" in line["skipped"]


def test_a_precision_that_the_peer_lacks_is_skipped(tmp_path: Path) -> None:
    line = run_peer("tfrs", Path(sys.executable), tmp_path, 64, ssl=False, precision="bf16")
    assert line["skipped"] == "tfrs runs in float32 only"


def test_a_peer_that_breaks_says_how_it_ended(tmp_path: Path) -> None:
    line = run_peer("torch_tuned", Path(sys.executable), tmp_path, 64, ssl=False, threads=1)
    assert line["failed"].startswith("exit code 1: ")
    assert "workload.json" in line["failed"]


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("echo hello", "no line of JSON"),
        ("exit 0", "no line of JSON"),
        ("""echo '{"peer": "tfrs"}'""", "another case"),
        ("sleep 5", "no result within 0.2 s"),
    ],
)
def test_output_that_is_no_result_is_a_failure(tmp_path: Path, says: str, reason: str) -> None:
    python = script(tmp_path, says)
    line = run_peer("torch_tuned", python, tmp_path, 64, ssl=False, timeout_s=0.2 if "sleep" in says else 60)  # fmt: skip
    assert reason in line["failed"]


def test_lines_before_the_result_are_passed_over(tmp_path: Path) -> None:
    told = '{"peer": "tfrs", "batch": 64, "ssl": false, "precision": "float32", "threads": 2}'
    line = run_peer("tfrs", script(tmp_path, f"echo noise; echo '{told}'"), tmp_path, 64, ssl=False)
    assert line == {"peer": "tfrs", "batch": 64, "ssl": False, "precision": "float32", "threads": 2}


def test_scripts_need_no_package_of_ours(folder: Path, tmp_path: Path) -> None:
    """Copied away from the platform, without its path, a script still runs."""
    for path in SCRIPTS.glob("*.py"):
        shutil.copy(path, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peer_runs, "SCRIPTS", tmp_path)
        line = run_peer("torch_tuned", Path(sys.executable), folder, 64, ssl=False, threads=1, seconds=0.0)  # fmt: skip
    assert line["examples_per_s"] > 0
