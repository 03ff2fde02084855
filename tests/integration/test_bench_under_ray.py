"""The timed loop under Ray Train, on a small workload."""

from pathlib import Path

import pytest

from small_w1 import QUICK, small_w1
from twotower.bench.task import run_task
from twotower.bench.w1 import Cell, cell_config


@pytest.mark.parametrize("workers", [1, 2])
def test_training_under_ray_is_timed_and_stopped(workers: int, tmp_path: Path) -> None:
    base, _ = small_w1(tmp_path)
    changes = {**QUICK, "train.log_every": 5, "train.num_workers": workers, "train.threads": 1}
    config = cell_config(base, Cell(512, ssl=False), changes=changes)
    spec = {
        "config": config.model_dump(mode="json"),
        "timing": {"windows": 2, "seconds": 0.5, "warmup_s": 0.2},
    }
    found = run_task("twotower.bench.under_ray", spec, threads=1, cpus=2)
    assert found["examples_per_s"] == pytest.approx(512 / found["step_ms"] * 1e3, rel=0.5)
    # Ray's own CPU time was there and was taken off: the net rate is the higher one.
    assert found["ray_cpus_used"] > 0
    assert found["examples_per_s_net"] > 0.8 * found["examples_per_s"]
    assert found["cpu_us_per_example"] > 0
    assert found["peak_rss_mb"] > 100 * workers
    assert not (tmp_path / "runs").exists(), "the run was kept elsewhere, and deleted"
