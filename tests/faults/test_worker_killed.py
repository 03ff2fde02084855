"""Workers that die or hang: the run goes on from its last checkpoint to the same result.

Real: Ray, the workers' processes, SIGKILL and SIGSTOP. Small: data and model. The signal is sent
when the driver sees the line of a step, so a worker dies some steps after it.
"""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from small_experiment import small_document
from twotower.core.config import ExperimentConfig
from twotower.core.errors import RunError
from twotower.core.loading import build_config, with_overrides
from twotower.data.pipeline import prepare
from twotower.runtime.cluster import connect
from twotower.runtime.launch import TrainResult, train
from twotower.runtime.run_folder import RunFolder

pytestmark = pytest.mark.timeout(300)

CHECKPOINT_EVERY = 3
TIMES = ("data_wait_s", "step_s", "rows_per_s")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExperimentConfig]:
    document = small_document(tmp_path_factory.mktemp("killed"))
    document["ssl"] = {"weight": 0.5}
    document["train"] |= {
        "num_epochs": 4,
        "num_workers": 2,
        "threads": 1,
        "log_every": 1,
        "checkpoint_every": CHECKPOINT_EVERY,
        "max_failures": 1,
    }
    config = build_config(document, "small")
    with connect(config.cluster):
        prepare(config)
        yield config


@pytest.fixture(scope="module")
def unbroken(config: ExperimentConfig) -> TrainResult:
    return train(config)


def lines_of(folder: Path, file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / file).read_text().splitlines()]


def starts_of(folder: Path) -> list[dict[str, Any]]:
    return [event for event in lines_of(folder, "events.jsonl") if event["event"] == "start"]


class Injector:
    """Sends a signal to the worker of a rank, once, at the line of a step."""

    def __init__(self, config: ExperimentConfig, rank: int, step: int, sent: int) -> None:
        self.folder = RunFolder(config).store.local_path()
        self.rank, self.step, self.signal = rank, step, sent
        self.fired = 0

    def __call__(self, event: Mapping[str, Any]) -> None:
        if event["kind"] == "train" and event["step"] >= self.step and not self.fired:
            os.kill(starts_of(self.folder)[-1]["pids"][self.rank], self.signal)
            self.fired += 1


def elsewhere(config: ExperimentConfig, folder: Path) -> ExperimentConfig:
    """The same experiment in another folder: where results go is no part of it."""
    return with_overrides(config, {"storage.runs": str(folder)})


def result_of(folder: Path) -> dict[str, Any]:
    """All that a run left and that must not depend on what happened to it."""
    lines = lines_of(folder, "metrics.jsonl")
    last = sorted((folder / "checkpoints").iterdir())[-1]
    return {
        "lines": [{k: v for k, v in line.items() if k not in TIMES} for line in lines],
        "state": {path.name: path.read_bytes() for path in last.iterdir()},
        "test": json.loads((folder / "evaluation" / "test.json").read_text()),
        "best": json.loads((folder / "best.json").read_text()),
    }


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_costs_at_most_the_steps_since_the_checkpoint(
    config: ExperimentConfig, unbroken: TrainResult, tmp_path: Path, rank: int
) -> None:
    config = elsewhere(config, tmp_path)
    injector = Injector(config, rank, step=14, sent=signal.SIGKILL)
    result = train(config, on_progress=injector)
    assert injector.fired == 1
    assert result.restarts == 1
    first, second = starts_of(Path(result.path))
    assert (first["step"], len(second["pids"])) == (0, 2)
    assert not set(first["pids"]) & set(second["pids"])
    assert second["step"] >= injector.step - CHECKPOINT_EVERY
    assert result_of(Path(result.path)) == result_of(Path(unbroken.path)), "bitwise"


def test_a_hung_worker_is_given_up_after_the_timeout(
    config: ExperimentConfig, unbroken: TrainResult, tmp_path: Path
) -> None:
    config = elsewhere(with_overrides(config, {"train.collective_timeout_s": 5}), tmp_path)
    injector = Injector(config, rank=1, step=14, sent=signal.SIGSTOP)
    result = train(config, on_progress=injector)
    assert injector.fired == 1
    assert result.restarts == 1
    stopped = starts_of(Path(result.path))[0]["pids"][1]
    with pytest.raises(ProcessLookupError):
        os.kill(stopped, 0)
    ours, whole = result_of(Path(result.path)), result_of(Path(unbroken.path))
    assert ours["lines"] == whole["lines"]
    assert ours["state"] == whole["state"]


@pytest.mark.usefixtures("unbroken")
def test_a_worker_that_dies_again_and_again_ends_the_run(
    config: ExperimentConfig, tmp_path: Path
) -> None:
    config = elsewhere(config, tmp_path)
    folder = RunFolder(config).store.local_path()
    killed: set[int] = set()

    def kill(event: Mapping[str, Any]) -> None:
        if event["kind"] == "train" and event["step"] >= 10:
            pid = starts_of(folder)[-1]["pids"][1]
            if pid not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(RunError, match=r"failed once more than train\.max_failures allows"):
        train(config, on_progress=kill)
    assert len(killed) == 2, "the first start and one restart"
    record = json.loads((folder / "record.json").read_text())
    assert (record["status"], record["restarts"]) == ("failed", 1)
    result = train(config)
    assert result.step > 10, "the same command goes on"
