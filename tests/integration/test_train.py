"""Training under Ray Train on a tiny real experiment.

Real: Ray, the workers, gloo, the signals, the files. Small: data and model.
"""

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from small_experiment import small_document
from twotower.core.config import ExperimentConfig
from twotower.core.errors import (
    ConfigError,
    DivergedError,
    InputError,
    ResourceError,
    StoppedError,
)
from twotower.core.lease import Lease
from twotower.core.loading import build_config, with_overrides
from twotower.core.storage import Store
from twotower.data.pipeline import prepare
from twotower.data.prepared import Prepared
from twotower.runtime.assess import evaluate
from twotower.runtime.cluster import connect
from twotower.runtime.launch import train
from twotower.runtime.reference import train_reference
from twotower.runtime.run_folder import RunFolder

pytestmark = pytest.mark.timeout(240)

SSL = {"ssl.weight": 0.5, "loss.logq": "streaming", "loss.mixed_negatives": 32}
CODES = {
    "tags": {"kind": "dpq_vq", "num_subspaces": 2, "num_centroids": 6, "warmup_steps": 3},
    "category": {"kind": "dpq_sx", "num_subspaces": 2, "num_centroids": 5, "revive_every": 4},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    document = small_document(tmp_path_factory.mktemp("train"))
    document["train"] |= {"num_epochs": 2, "num_workers": 2, "threads": 1, "log_every": 1}
    return build_config(document, "small")


@pytest.fixture(scope="module")
def prepared(config: ExperimentConfig) -> Iterator[Prepared]:
    """The dataset, on a cluster of two CPUs that all tests here share."""
    with connect(config.cluster):
        yield Prepared.open(prepare(config).path)


def lines_of(run: str | Path, kind: str) -> list[dict[str, Any]]:
    lines = (Path(run) / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == kind]


def events_of(run: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(run) / "events.jsonl").read_text().splitlines()]


def record_of(run: str | Path) -> dict[str, Any]:
    return json.loads((Path(run) / "record.json").read_text())


def test_two_workers_train_as_one_process_does(
    config: ExperimentConfig,
    prepared: Prepared,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = with_overrides(config, {**SSL, "model.embeddings.item": CODES})
    seen: list[Mapping[str, Any]] = []
    result = train(config, on_progress=seen.append)
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", ""), "Ray is quiet"

    alone = train_reference(config, prepared, store=Store(tmp_path / "alone"))
    ours, theirs = (lines_of(run, "train") for run in (result.path, tmp_path / "alone"))
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    assert len(ours) == alone.last_step
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert mine.get("codebook", 0) == pytest.approx(other.get("codebook", 0), rel=1e-4)
    assert ours[-1]["codebook"] > 0
    for mine, other in zip(
        lines_of(result.path, "validation"), lines_of(tmp_path / "alone", "validation"), strict=True
    ):
        assert mine["recall@10"] == pytest.approx(other["recall@10"], abs=0.01)

    assert not result.reused
    assert result.restarts == 0
    assert {event["phase"] for event in seen if event["kind"] == "phase"} == {
        "prepare", "start", "train", "evaluate", "baselines",
    }  # fmt: skip
    assert [e for e in seen if e["kind"] == "train"] == ours
    record = record_of(result.path)
    assert (record["status"], record["exit_reason"], record["step"]) == (
        "done", "done", alone.last_step,
    )  # fmt: skip
    assert {stage["name"] for stage in record["stages"]} >= {"start", "train", "evaluate"}
    assert len(events_of(result.path)[0]["pids"]) == 2
    assert not (Path(result.path) / "ray").exists(), "Ray's own files are no part of a run"

    # Two workers shared the queries and the items; one process ranks them all alike.
    measured = evaluate(result.path, "test")["summary"]
    for name, found in result.summaries["test"].items():
        assert measured[name]["n"] == found["n"]
        assert measured[name]["value"] == pytest.approx(found["value"], abs=1e-3)

    began = time.monotonic()
    again = train(config)
    assert again.reused
    assert time.monotonic() - began < 2


def test_a_stopped_run_goes_on_with_another_number_of_workers(
    config: ExperimentConfig, prepared: Prepared, tmp_path: Path
) -> None:
    calm = {"train.num_epochs": 25, "train.learning_rate": 0.005}
    config = with_overrides(config, {**SSL, **calm, "seed": 1})

    def stop(event: Mapping[str, Any]) -> None:
        if event["kind"] == "train" and event["step"] == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError, match="the same command goes on"):
        train(config, on_progress=stop)
    folder = RunFolder(config)
    assert folder.record["status"] == "stopped"
    stopped_at = int(folder.store.list("checkpoints")[-1].removeprefix("step-"))
    assert stopped_at >= 5
    result = train(with_overrides(config, {"train.num_workers": 1}))
    first, second = (event for event in events_of(result.path) if event["event"] == "start")
    assert (first["step"], second["step"]) == (0, stopped_at)
    assert (len(first["pids"]), len(second["pids"])) == (2, 1)
    assert len(record_of(result.path)["attempts"]) == 2
    train_reference(config, prepared, store=Store(tmp_path / "whole"))
    ours, whole = (lines_of(run, "train") for run in (result.path, tmp_path / "whole"))
    assert [line["step"] for line in ours] == [line["step"] for line in whole], "each step once"
    # float32 sums of two ranks round otherwise; later steps amplify it, the more the higher the rate.
    for mine, other in [(m, o) for m, o in zip(ours, whole, strict=True) if m["step"] <= 50]:
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)


@pytest.mark.usefixtures("prepared")
def test_training_that_diverges_ends_without_being_tried_again(config: ExperimentConfig) -> None:
    config = with_overrides(config, {"train.learning_rate": 1e38, "loss.temperature": 1e-3})
    with pytest.raises(DivergedError, match=r"step \d+: the loss is not finite"):
        train(config)
    folder = RunFolder(config)
    assert folder.record["status"] == "failed"
    assert "not finite" in folder.record["exit_reason"]
    starts = [e for e in events_of(folder.store.local_path()) if e["event"] == "start"]
    assert len(starts) == 1


@pytest.mark.usefixtures("prepared")
def test_more_workers_than_cpus_are_refused_before_anything_is_written(
    config: ExperimentConfig,
) -> None:
    config = with_overrides(config, {"train.num_workers": 8, "seed": 2})
    began = time.monotonic()
    with pytest.raises(
        ResourceError, match=r"train\.num_workers: 8 workers need 8 CPUs, the cluster has 2"
    ):
        train(config)
    assert time.monotonic() - began < 5
    assert not RunFolder(config).store.exists()


@pytest.mark.usefixtures("prepared")
def test_gpus_that_are_not_there_are_refused(config: ExperimentConfig) -> None:
    config = with_overrides(config, {"train.device": "cuda", "seed": 2})
    with pytest.raises(ResourceError, match=r"2 workers need 2 GPUs, the cluster has 0"):
        train(config)


@pytest.mark.usefixtures("prepared")
def test_a_run_directory_in_use_is_refused(config: ExperimentConfig) -> None:
    config = with_overrides(config, {"seed": 3})
    with (
        Lease(RunFolder(config).store),
        pytest.raises(InputError, match=r"in use by .*pid"),
    ):
        train(config)


@pytest.mark.usefixtures("prepared")
def test_a_warm_up_as_long_as_the_run_is_refused_before_workers_start(
    config: ExperimentConfig,
) -> None:
    tables = {"tags": CODES["tags"] | {"warmup_steps": 10**6}}
    config = with_overrides(config, {"model.embeddings": {"item": tables}})
    with pytest.raises(ConfigError, match=r"item\.tags warms up for 1000000 steps, the run has"):
        train(config)
    assert not RunFolder(config).store.exists()
