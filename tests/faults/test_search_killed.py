"""A search whose driver is stopped or killed goes on, repeats nothing and loses nothing.

Real: the entry files as processes, Ray, the signals. Small: data and model.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from small_experiment import SPACE, small_document, write_yaml
from twotower.core.errors import StoppedError
from twotower.core.loading import load_config
from twotower.core.space_loading import build_space
from twotower.core.storage import Store
from twotower.runtime.journal import Journal
from twotower.runtime.search import search_name

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_search_that_is_stopped_or_killed_goes_on_and_repeats_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    document = small_document(tmp_path)
    document["train"]["num_epochs"] = 30
    file = write_yaml(tmp_path / "small.yaml", document)
    space = write_yaml(tmp_path / "space.yaml", SPACE)
    config = load_config(file).config
    store = Store(config.storage.runs).child(
        search_name(config, build_space(SPACE, config, "space"))
    )
    command = [sys.executable, "tune/search.py", str(file), "--space", str(space), "--trials", "4"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 120
        while not any(t.ended for t in Journal(store).trials()):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(number)
        told = process.communicate(timeout=60)[1].decode()
    finally:
        process.kill()
        process.wait()
    before = [t for t in Journal(store).trials() if t.ended]
    assert len(before) < 4
    if number == signal.SIGTERM:
        assert process.returncode == StoppedError.exit_code
        assert "the same command goes on" in told
        assert "Traceback" not in told
    done = subprocess.run(
        [sys.executable, "tune/resume.py", store.uri],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    after = Journal(store).trials()
    assert [t.number for t in after] == [0, 1, 2, 3]
    assert [t for t in after if t.number in {b.number for b in before}] == before
    assert f"4 trials, {len(before)} of them from before" in done.stdout
    shown = subprocess.run(
        [sys.executable, "tune/report.py", store.uri],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "best: trial" in shown.stdout


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": "platform"}
