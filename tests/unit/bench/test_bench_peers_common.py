"""What the peers' scripts share: reading W1, batches, the clock, the line they print."""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from twotower.bench.peers import common
from twotower.bench.workload import Sizes, write_workload

SIZES = Sizes(rows=500, items=60, queries=40, categories=5, developers=9, tags=12, tokens=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("w1")
    write_workload(home, SIZES)
    return home


def test_columns_are_the_lists_of_the_files(folder: Path) -> None:
    data = common.read(folder)
    assert list(data.query) == ["query_id", "country", "history_tags"]
    assert list(data.item) == ["item_id", "category", "developer", "tags", "title_tokens"]
    rows = pq.read_table(folder / "w1" / "log").to_pylist()
    items = pq.read_table(folder / "w1" / "items.parquet").to_pylist()
    assert data.clicked.tolist() == [row["item_id"] for row in rows]
    chosen = np.array([7, 0, 7, 59, 31])
    for side, table in ((data.query, rows), (data.item, items)):
        for name, column in side.items():
            lists = [row[name] if column.most > 1 else [row[name]] for row in table]
            lengths, values = column.take(chosen)
            assert lengths.tolist() == [len(lists[row]) for row in chosen]
            assert values.tolist() == [value for row in chosen for value in lists[row]]
            padded = [[v + 1 for v in row] + [0] * (column.most - len(row)) for row in lists]
            assert column.padded().tolist() == padded


def test_batches_are_full_shuffled_and_cover_an_epoch_once() -> None:
    ahead = common.batches(10, 4)
    epochs = [np.concatenate([next(ahead), next(ahead)]).tolist() for _ in range(2)]
    assert all(len(set(epoch)) == 8 and set(epoch) <= set(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def timing(windows: int, seconds: float) -> argparse.Namespace:
    return argparse.Namespace(batch=32, windows=windows, seconds=seconds)


def test_the_median_window_is_reported_and_the_warm_up_is_not() -> None:
    """A step can't be faster than it waits; waits are far apart, so a busy machine keeps order."""
    waits = iter([0.2] * 5 + [0.1] * 5 + [0.005] * 5 + [0.03] * 5)
    figures = common.time_steps(lambda: time.sleep(next(waits)) or 3.5, timing(3, 0.0))
    slow, fast, middle = figures["windows"]
    assert 32 / 0.2 < slow <= 32 / 0.1 < middle <= 32 / 0.03 < fast <= 32 / 0.005
    assert figures["examples_per_s"] == middle
    assert 30 <= figures["step_ms"] < 100
    assert figures["cpu_us_per_example"] < 30 / 32 * 1e3 / 2
    assert figures["loss"] == 3.5
    assert figures["startup_s"] > 0.2


def test_cpu_time_of_a_busy_step_is_counted() -> None:
    def busy() -> float:
        end = time.process_time() + 0.01
        while time.process_time() < end:
            pass
        return 0.0

    figures = common.time_steps(busy, timing(1, 0.1))
    assert figures["cpu_us_per_example"] == pytest.approx(0.01 / 32 * 1e6, rel=0.5)


def test_a_window_lasts_as_long_as_asked() -> None:
    started = time.perf_counter()
    common.time_steps(lambda: time.sleep(0.001) or 0.0, timing(2, 0.2))
    assert time.perf_counter() - started >= 0.4


def test_the_line_has_the_case_the_figures_and_the_versions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = os.sched_getaffinity(0)
    monkeypatch.setattr(
        sys, "argv", ["x.py", "DATA", "--batch", "64", "--ssl", "--bf16", "--threads", "1"]
    )
    try:
        a = common.arguments("torch_tuned", bf16=True)
        assert len(os.sched_getaffinity(0)) == 1
    finally:
        os.sched_setaffinity(0, before)
    common.report(a, {"examples_per_s": 5.0}, [np])
    line = json.loads(capsys.readouterr().out)
    assert line.pop("peak_rss_mb") > 10
    assert line == {
        "peer": "torch_tuned",
        "batch": 64,
        "ssl": True,
        "precision": "bf16",
        "threads": 1,
        "examples_per_s": 5.0,
        "versions": {"numpy": np.__version__},
    }
