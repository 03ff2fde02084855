"""The result file of training: what it is computed from, and a small run of all of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from small_w1 import QUICK, SIZES, small_w1
from twotower.bench.floor import Ceilings, step_floor
from twotower.bench.measures import Measures, Plan
from twotower.bench.result import (
    ONE_WORKER,
    OURS,
    TWO_WORKERS,
    cell_entry,
    less_all_reduce,
    reasons_not_to_quote,
    skipped,
    summarise,
)
from twotower.bench.shares import PHASES
from twotower.bench.summary import summary, topk_summary
from twotower.bench.train import FILE, bench
from twotower.bench.w1 import CELLS, Cell
from twotower.bench.windows import Timing
from twotower.core.storage import Store

LIMITS = {
    "gemm_float32_2048x2048x2048_gflop_s": {"best": 150.0, "median": 140.0},
    "product_float32_2048x2048x2048_gflop_s": {"best": 300.0, "median": 280.0},
    "gemm_bf16_2048x2048x2048_gflop_s": {"best": 415.0, "median": 400.0},
    "gather_92mb_gb_s": {"best": 7.0, "median": 6.0},
}
CEILINGS = Ceilings.of_limits(LIMITS)


def sample(rate: float, **more: Any) -> dict[str, Any]:
    return {"examples_per_s": rate, "peak_rss_mb": rate / 10, "others_share": 0.01, **more}


def samples(*rates: float, **more: Any) -> list[dict[str, Any]]:
    return [sample(rate, **more) for rate in rates]


def ray_samples(*rates: float) -> list[dict[str, Any]]:
    return [
        sample(
            rate,
            examples_per_s_net=rate * 1.05,
            step_ms=4096 / rate * 1e3,
            data_wait_share=0.002,
        )
        for rate in rates
    ]


def whole_cell(cell: Cell) -> dict[str, Any]:
    return cell_entry(
        cell,
        {
            "float32": {
                OURS: samples(300, 200, 250, loop_examples_per_s=260),
                "torch_tuned": samples(100, 125, 110),
            },
            "bf16": {
                OURS: samples(500, 510, 505),
                "torch_tuned": samples(400, 400, 400),
                "torchrec_fused": samples(220, 220, 220),
            },
            "ray": {
                ONE_WORKER: ray_samples(240, 230, 235),
                TWO_WORKERS: ray_samples(250, 240, 245),
            },
        },
        CEILINGS,
    )


def test_repeats_become_median_spread_and_largest_memory() -> None:
    found = summarise(samples(300, 200, 250, step_ms=2.0))
    assert found["examples_per_s"] == 250
    assert found["spread"] == 0.4
    assert found["peak_rss_mb"] == 30
    assert found["repeats"] == [300, 200, 250]
    assert found["step_ms"] == 2.0


def test_a_cell_holds_shares_of_floor_peers_and_ray() -> None:
    cell = Cell(4096, ssl=False)
    found = whole_cell(cell)
    floor = step_floor(4096, ssl=False, precision="float32", ceilings=CEILINGS)
    assert found["float32"]["floor_share"] == round(250 / floor.examples_per_s, 4)
    assert found["float32"]["best_peer"] == "torch_tuned"
    assert found["float32"]["ratio_to_best_peer"] == round(250 / 110, 4)
    assert found["bf16"]["over_own_float32"] == round(505 / 250, 4)
    assert found["bf16"]["over_best_framework"] == round(505 / 220, 4)
    assert found["ray_share"] == round(235 / 260, 4), "both by the loop's own lines"
    assert found["ray_share_net"] == pytest.approx(1.05 * 235 / 260, rel=1e-3)
    assert found["ray"][TWO_WORKERS]["over_one_worker"] == round(245 / 235, 4)


def test_two_workers_are_held_against_one_with_a_longer_step() -> None:
    cells = {"4096": whole_cell(Cell(4096, ssl=False))}
    line = {"cell": "4096", "workers": 2, "batch": 4096, "collective_ms": 500.0}
    less_all_reduce(cells, [{**line, "workers": 4}, line, {**line, "collective_ms": 9e9}])
    two = cells["4096"]["ray"][TWO_WORKERS]
    one_ms = 4096 / 235 * 1e3
    assert two["over_one_worker_less_all_reduce"] == pytest.approx(
        245 / (4096 / (one_ms + 500) * 1e3), rel=1e-3
    )


def test_a_whole_quiet_run_can_be_quoted() -> None:
    cells = [whole_cell(cell) for cell in CELLS]
    assert reasons_not_to_quote(cells, repeats=3) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda cells: cells.pop(), "cell 4096_ssl is missing"),
        (lambda cells: cells[0].pop("ray"), "nothing was measured under Ray"),
        (lambda cells: cells[1].pop("bf16"), "bf16 is missing"),
        (lambda cells: cells[0]["float32"].update(others_share=0.4), "others used 40%"),
        (lambda cells: cells[0]["float32"].update(peers={}), "no peer was measured"),
        (
            lambda cells: cells[0]["float32"]["peers"].update(tfrs={"skipped": "no Python there"}),
            "tfrs was skipped: no Python there",
        ),
        (
            lambda cells: cells[0]["bf16"]["peers"].update(tfrs={"failed": "exit code 1"}),
            "tfrs was skipped: exit code 1",
        ),
    ],
)
def test_what_is_missing_keeps_a_run_from_being_quoted(change: Any, told: str) -> None:
    cells = [whole_cell(cell) for cell in CELLS]
    change(cells)
    reasons = reasons_not_to_quote(cells, repeats=3)
    assert any(told in reason for reason in reasons), reasons


def test_few_repeats_can_not_be_quoted() -> None:
    assert reasons_not_to_quote([whole_cell(cell) for cell in CELLS], repeats=2)


def test_a_repeat_that_failed_takes_its_peer_out() -> None:
    entry = cell_entry(
        Cell(1024, ssl=False),
        {"float32": {OURS: samples(10, 10, 10), "tfrs": [sample(20), {"failed": "it broke"}]}},
        CEILINGS,
    )
    assert entry["float32"]["best_peer"] is None
    assert skipped([entry]) == [{"peer": "tfrs", "reason": "it broke"}]


def test_a_small_run_writes_the_file_and_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_w1(tmp_path / "data")
    # Measuring all ceilings takes a minute and gigabytes; this is the same kind of document.
    monkeypatch.setattr(Measures, "limits", lambda self: LIMITS)
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd() / "platform"))
    plan = Plan(
        folder=tmp_path / "data",
        environments=tmp_path / "none",
        cells=(Cell(64, ssl=True),),
        precisions=("float32",),
        peers=("torch_tuned", "tfrs"),
        repeats=2,
        timing=Timing(windows=1, seconds=0.1, warmup_s=0.1),
        sizes=SIZES,
        changes={**QUICK, "train.log_every": 5},
        threads=1,
        with_ray=False,
        with_curves=False,
    )
    told: list[str] = []
    found = bench(plan, tmp_path, told.append)
    assert Store(tmp_path).read_json(FILE) == found
    (cell,) = found["cells"]
    assert cell["float32"]["best_peer"] == "torch_tuned"
    assert len(cell["float32"]["repeats"]) == 2
    assert told.index("64_ssl float32 torch_tuned 1/2") < told.index("64_ssl float32 twotower 2/2")
    assert [one["peer"] for one in found["skipped"]] == ["tfrs"]
    assert found["quotable"] is False
    assert found["limits"] == LIMITS

    again = bench(
        replace(plan, cells=(Cell(64, ssl=False),), peers=(), repeats=1), tmp_path, told.append
    )
    assert [cell["cell"] for cell in again["cells"]] == ["64_ssl", "64"]
    assert "cells come from several runs" in again["not_quotable_because"]

    text = shown(again)
    assert "64 SSL" in text
    assert "torch_tuned" in text


def shown(document: dict[str, Any]) -> str:
    console = Console(width=160, record=True)
    for table in summary(document):
        console.print(table)
    return console.export_text()


def test_tables_show_ray_curves_and_checkpoints() -> None:
    shares = dict.fromkeys(PHASES, 0.125)
    cells = {cell.name: whole_cell(cell) for cell in CELLS}
    for cell in cells.values():
        cell["float32"]["shares"] = shares
    exchange = {
        "cell": "4096",
        "items": 200_000,
        "workers": 2,
        "batch": 4096,
        "bytes": 5_060_000,
        "wire_bytes": 5_060_000,
        "dense_wire_bytes": 94_020_000,
        "collective_ms": 76.5,
    }
    less_all_reduce(cells, [exchange])
    catalogue = {
        "items": 1_000_000,
        "table_gb": 0.3,
        "step_ms": 160.0,
        "least_step_ms": 150.0,
        "spread": 0.02,
        "shares": shares,
        "peak_rss_mb": 1510.0,
    }
    batch = {"batch": 512, "step_ms": 16.0, "us_per_example": 31.2, "spread": 0.01}
    text = shown(
        {
            "cells": list(cells.values()),
            "curves": {
                "vocabulary": [catalogue, {"items": 10_000_000, "skipped": "needs 11 GiB"}],
                "batch": [{**batch, "us_per_example_without_softmax": 27.0}],
                "exchange": [exchange],
            },
            "checkpoint": {
                "state_mb": 190,
                "save_s": {"median": 0.05},
                "writer": {"cpu_s": 0.3},
                "lost_share": {"spare_cpu": 0.001, "no_spare_cpu": 0.006, "measured": 0.004},
            },
        }
    )
    for told in (
        "12.5%",
        "needs 11 GiB",
        "94.02",
        "20.0",
        "31.2",
        "90.4%",
        "104.3%",
        "104.7%",
        "0.10%",
    ):
        assert told in text, told


def test_the_table_of_exact_evaluation_does_without_faiss() -> None:
    engine = {"queries_per_s": 1638, "cpu_us_per_query": 1198, "wrong_places": 0}
    with_faiss = {
        "threads": 2,
        "engines": {"float32": engine, "faiss_flat": engine},
        "times_faiss": {"float32": {"wall": 1.25, "cpu": 1.3}},
    }
    without = {"threads": 1, "engines": {"float32": engine}, "times_faiss": {}}
    console = Console(width=120, record=True)
    console.print(topk_summary({"speed": [with_faiss, without]}))
    text = console.export_text()
    assert text.count("1.25 x") == 1
    assert text.count("1,638") == 3
