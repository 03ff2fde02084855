"""Prepare on a real Ray cluster: the same bytes as without Ray, however it is scheduled."""

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
import ray.data

from prepare_serial import make_config, make_log, prepare_serially
from twotower.core.config import ExperimentConfig, Storage
from twotower.core.errors import DataError, RunError
from twotower.data import plans
from twotower.data.pipeline import prepare
from twotower.data.prepared import Prepared

CASE = {"queries": "items", "undirected": True, "fraction": 0.8}


@pytest.fixture(params=[2, 1], ids=["two_cpus", "one_cpu"], scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[int]:
    ray.init(
        address="local",
        num_cpus=request.param,
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield request.param
    ray.shutdown()


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many pieces of work from a small log; kernels don't look at these sizes."""
    monkeypatch.setattr(plans, "PART_ROWS", 150)
    monkeypatch.setattr(plans, "TASK_ROWS", 300)
    monkeypatch.setattr(plans, "_LANE_ROWS", 30)


def contents(path: str) -> dict[str, str]:
    folder = Path(path)
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def elsewhere(config: ExperimentConfig, folder: Path) -> ExperimentConfig:
    return config.model_copy(update={"storage": Storage(prepared=str(folder))})


@pytest.mark.usefixtures("cluster", "cut")
@pytest.mark.parametrize("block_bytes", [128 << 20, 1 << 10])
def test_same_bytes_as_without_ray(
    block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_log(tmp_path, queries_are_items=True, bad=True)
    config = make_config(tmp_path, **CASE)
    monkeypatch.setattr(ray.data.DataContext.get_current(), "target_max_block_size", block_bytes)
    seen: list[tuple[str, int, int]] = []
    result = prepare(config, on_progress=lambda *step: seen.append(step))
    assert not result.reused
    alone = prepare_serially(elsewhere(config, tmp_path / "alone"))
    assert contents(result.path) == contents(alone.path)
    assert [stage for stage, done, _ in seen if done == 0] == [
        "inspect",
        "read",
        "merge",
        "split",
        "write",
    ]
    assert all(done <= total for _, done, total in seen)
    assert sum(done == total for _, done, total in seen) == 5
    again = prepare(config)
    assert again.reused
    assert again.path == result.path
    Prepared.open(again.path, verify=True)


def test_an_error_of_a_task_reaches_the_user(cluster: int, tmp_path: Path) -> None:
    path = make_log(tmp_path)[0]
    table = pq.read_table(path)
    pq.write_table(table, path, write_page_checksum=True, compression="none")
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 0xFF
    path.write_bytes(data)
    config = make_config(tmp_path)
    with pytest.raises(DataError, match=r"part-0\.parquet: damaged"):
        prepare(config)
    assert not list(Path(config.storage.prepared).iterdir())


def test_a_failing_task_ends_in_one_error_and_nothing_is_left(
    cluster: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_log(tmp_path)
    config = make_config(tmp_path)
    monkeypatch.setattr("twotower.data.stages.split_pairs", os.fspath)  # no kernel: a TypeError
    with pytest.raises(RunError, match="stage 'split' failed"):
        prepare(config)
    assert not list(Path(config.storage.prepared).iterdir())
