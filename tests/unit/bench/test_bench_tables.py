"""What compressed tables cost: real steps and real lookups, and the file they are written to."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from small_w1 import QUICK, SIZES, small_w1
from twotower.bench import table_steps
from twotower.bench.table_kinds import FULL, LARGE, changes, first_frequent, kinds, served
from twotower.bench.table_lookups import measure_lookups
from twotower.bench.table_memory import measure_memory, state_bytes
from twotower.bench.table_steps import Trainer, time_pairs
from twotower.bench.table_summary import summary
from twotower.bench.tables import FILE, Plan, bench, reasons_not_to_quote
from twotower.bench.w1 import Cell, base_config, cell_config
from twotower.bench.workload import Sizes
from twotower.core.config import ExperimentConfig
from twotower.core.storage import Store
from twotower.data.prepared import Prepared
from twotower.serving.tables import formula_bytes

CODES = {"dpq_vq", "dpq_sx", "mgqe"}


def config_of(kind: str, base: ExperimentConfig, batch: int = 64) -> ExperimentConfig:
    return cell_config(base, Cell(batch, ssl=False), changes={**QUICK, **changes(kind, 8)})


@pytest.fixture(scope="module")
def w1(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExperimentConfig, Prepared]:
    base, prepared = small_w1(tmp_path_factory.mktemp("w1"))
    return base, Prepared.open(prepared)


@pytest.fixture(scope="module")
def full(w1: tuple[ExperimentConfig, Prepared]) -> Trainer:
    return Trainer(config_of(FULL, w1[0]), w1[1])


def test_the_large_tables_are_those_of_5000_values_or_more() -> None:
    large = {
        side: tuple(name for name, values, _ in features if values >= 5000)
        for side, features in Sizes().features().items()
    }
    assert large == LARGE


def test_every_kind_of_the_schema_is_measured(tmp_path: Path) -> None:
    base = base_config(tmp_path)
    found = set[str]()
    for name in kinds(64):
        config = cell_config(base, Cell(64, ssl=False), changes=changes(name, 64))
        large = {f"{side}.{f}": 5000 for side, names in LARGE.items() for f in names}
        tables = config.embeddings({**large, "item.small": 100})
        assert tables.keys() == large.keys()
        found |= {kind.kind for kind in tables.values()}
    assert found == {"hashed", "low_rank", "scalar", *CODES}
    assert changes(FULL, 64) == {}


@pytest.mark.parametrize("kind", kinds(8))
def test_real_steps_of_a_kind_are_timed_beside_full_ones(
    kind: str, w1: tuple[ExperimentConfig, Prepared], full: Trainer
) -> None:
    base, prepared = w1
    own = Trainer(config_of(kind, base), prepared)
    before = own.state.model.store.weight.clone()
    steps = own.state.step
    found = time_pairs(full, own, seconds=0.02, repeats=2)
    assert own.state.step >= steps + 2
    assert not own.state.model.store.weight.equal(before), "it trained"
    assert found["step_ms"] > 0
    assert found["full_step_ms"] > 0
    assert len(found["ratios"]) == 2
    assert min(found["ratios"]) <= found["ratio"] <= max(found["ratios"])
    assert found["cpu_ratio"] > 0
    assert ("revival_ms" in found) == (kind in CODES)
    if kind in CODES:
        assert found["ratio_with_revivals"] >= found["ratio"]


def test_windows_hold_no_look_for_unused_centroids(
    w1: tuple[ExperimentConfig, Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    real = table_steps.CodebookTable._revive

    def revive(self: Any, *arguments: Any) -> None:
        looks.append(arguments[-1])
        real(self, *arguments)

    monkeypatch.setattr(table_steps.CodebookTable, "_revive", revive)
    own = Trainer(config_of("mgqe", w1[0]), w1[1])
    own.window(seconds=60.0)  # ends by its number of steps
    assert own.state.step > 150
    assert looks == []
    own.revival_ms()
    assert looks == [200] * 6, "one look a table"


def test_memory_is_that_of_state_and_steps(w1: tuple[ExperimentConfig, Prepared]) -> None:
    base, prepared = w1
    found = {kind: measure_memory(config_of(kind, base), prepared) for kind in (FULL, "scalar_4")}
    trainer = Trainer(config_of(FULL, base), prepared)
    store, model = trainer.state.model.store, trainer.state.model
    dense = sum(weight.numel() for weight in model.parameters())
    # tables and Adagrad's sums, one byte a row (touched), dense weights twice and their steps
    exact = 2 * 4 * store.weight.numel() + len(store.weight) + 2 * 4 * dense
    assert state_bytes(trainer.state) == pytest.approx(exact, rel=0.01)
    assert found[FULL]["share_of_full"] == 1
    assert found["scalar_4"]["share_of_full"] < 0.4
    assert found["scalar_4"]["table_mb"] < found[FULL]["table_mb"]
    assert all(one["peak_rss_mb"] > 50 for one in found.values())


def test_served_tables_have_the_bytes_of_the_formula() -> None:
    tables = list(served(300, 8))
    assert [one.name for one in tables] == [
        FULL, "hashed", "low_rank", "scalar_8", "scalar_4", "dpq", "mgqe",
    ]  # fmt: skip
    for one in tables:
        kind = one.table.kind
        assert one.table.payload_bytes() == formula_bytes(kind, one.settings, 300, 8)
        assert np.isfinite(one.table.rows(np.arange(300))).all()


def test_frequent_values_come_first() -> None:
    assert first_frequent(np.array([0, 5, 7, 9]), 10).tolist() == [2, 7, 9, 9]


def test_lookups_are_timed_beside_a_gather() -> None:
    found = measure_lookups(500, 16, (1, 32), seconds=0.001, repeats=2)
    lines = {(line["kind"], line["draw"], line["batch"]): line for line in found["lookups"]}
    assert len(lines) == len(found["lookups"]) == 7 * 2 * 2
    for line in lines.values():
        assert line["ratio"] > 0
        assert line["ids_per_s"] > 0
        assert line["us_per_call"] == pytest.approx(
            line["batch"] / line["ids_per_s"] * 1e6, rel=0.1, abs=0.01
        )
    assert found["sizes"][FULL] == {"bytes": 500 * 16 * 4, "share_of_full": 1, "settings": {}}
    assert found["sizes"]["scalar_8"]["bytes"] == 500 * 16 + 16 * 4


def test_a_small_run_writes_the_file_and_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_w1(tmp_path / "data")
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd() / "platform"))
    plan = Plan(
        folder=tmp_path / "data",
        seconds=0.02,
        repeats=2,
        threads=1,
        batches=(64,),
        kinds=("mgqe",),
        values=400,
        width=16,
        lookup_batches=(1, 16),
        sizes=SIZES,
        changes=QUICK,
    )
    told: list[str] = []
    found = bench(plan, tmp_path, told.append)
    assert Store(tmp_path).read_json(FILE) == found
    assert told == ["workload", "batch 64, full", "batch 64, mgqe", "lookups"]
    full, own = found["training"]
    assert (full["kind"], own["kind"]) == (FULL, "mgqe")
    assert "ratio" not in full
    assert own["ratio"] > 0
    assert {"commit", "command", "versions", "cpu"} <= found["environment"].keys()
    assert found["serving"]["values"] == 400
    assert found["quotable"] is False
    assert "2 repeats: at least 3 are needed" in found["not_quotable_because"]
    console = Console(width=140, record=True)
    for table in summary(found):
        console.print(table)
    text = console.export_text()
    for shown in ("mgqe", "dpq", "Zipf ids, 16 a call", "uniform ids, 1 a call", "times full"):
        assert shown in text


def test_a_whole_quiet_run_can_be_quoted(tmp_path: Path) -> None:
    plan = Plan(folder=tmp_path)
    training = [{"kind": "mgqe", "batch": 1024, "others_share": 0.01}, {"kind": FULL, "batch": 1}]
    assert reasons_not_to_quote(plan, training, {"others_share": 0.0}) == []
    told = reasons_not_to_quote(plan, [{**training[0], "others_share": 0.4}], {"others_share": 0.3})
    assert told == [
        "batch 1024, mgqe: others used 40% of the machine",
        "lookups: others used 30% of the machine",
    ]
