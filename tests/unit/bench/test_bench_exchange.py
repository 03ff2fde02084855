"""Bytes that workers exchange, against a count by hand; steps over catalogues of any size."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist

from small_w1 import QUICK, SIZES
from twotower.bench.exchange import measure_exchange
from twotower.bench.in_memory import InMemory, Share
from twotower.bench.scaling import time_catalogue
from twotower.bench.traffic import counted_traffic, wire_bytes
from twotower.bench.w1 import Cell, base_config, cell_config
from twotower.bench.workload import write_workload
from twotower.training.collectives import DistributedGroup
from twotower.training.state import TrainState


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[DistributedGroup]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield DistributedGroup(torch.device("cpu"))
    dist.destroy_process_group()


def test_every_collective_of_the_group_is_counted(alone: DistributedGroup) -> None:
    with counted_traffic() as traffic:
        alone.exchange(1.0, 2.0)
        rows = alone.gather(torch.ones(5, 3, requires_grad=True), [5])
        torch.autograd.backward(rows.sum())
        alone.sum_(torch.ones(7))
    assert traffic.by_collective == {
        "all_gather_single": 2 * 8 + 15 * 4,
        "all_reduce": (15 + 7) * 4,
    }
    here = "test_every_collective_of_the_group_is_counted"
    assert traffic.by_caller == {here: 2 * 8 + 15 * 4 + 7 * 4, "backward": 15 * 4}


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_bytes_on_the_wire_are_those_of_a_ring(workers: int) -> None:
    size = 840
    chunk = size / workers
    reduce_scatter = all_gather = (workers - 1) * chunk  # a chunk goes on at every turn
    assert wire_bytes({"all_reduce": size}, workers) == pytest.approx(reduce_scatter + all_gather)
    assert wire_bytes({"all_gather_single": size}, workers) == (workers - 1) * size


def test_ranks_read_the_parts_of_one_global_batch(tmp_path: Path) -> None:
    write_workload(tmp_path, SIZES)
    data = InMemory(tmp_path)
    whole = data.batch(3, Share(128))
    parts = [data.batch(3, Share(128, rank, 3)) for rank in range(3)]
    for field in ("query", "item", "position"):
        assert (np.concatenate([getattr(p, field) for p in parts]) == getattr(whole, field)).all()
    log = pq.read_table(tmp_path / "w1/log").to_pydict()
    pairs = set(zip(log["query_id"], log["item_id"], log["country"], strict=True))
    country = whole.context["country"] - 2
    assert (
        set(zip(whole.query.tolist(), whole.item.tolist(), country.tolist(), strict=True)) <= pairs
    )
    other = [data.batch(3, Share(128, rank, 3), distinct=True).item for rank in range(3)]
    assert len(np.unique(np.concatenate(other))) == 128


def test_two_workers_exchange_touched_rows_and_not_tables(tmp_path: Path) -> None:
    write_workload(tmp_path, SIZES)
    config = cell_config(base_config(tmp_path), Cell(128, ssl=False), changes=QUICK)
    found = measure_exchange(config, tmp_path, workers=2, cpus=2, steps=2)
    data = InMemory(tmp_path)
    model = TrainState.build(config, data.inputs, total_steps=1).model
    dense = sum(p.numel() for p in model.parameters()) * 4
    # Two losses ride on the message that sums the dense gradients.
    assert found["by_caller"]["sum_"] == dense + 2 * 4
    assert found["dense_wire_bytes"] == dense + model.store.weight.numel() * 4
    # A worker's 64 rows touch at most that many ids, of 8 floats and an int32 each.
    most = 64 * (1 + 1 + 5 + 1 + 1 + 1 + 5 + 8) * (8 * 4 + 4)
    assert 0 < found["by_caller"]["exchange_rows"] < most
    assert found["bytes"] == sum(found["by_caller"].values())
    assert found["collective_ms"] <= found["step_ms"]


def test_a_catalogue_is_timed(tmp_path: Path) -> None:
    write_workload(tmp_path, SIZES)
    config = cell_config(base_config(tmp_path), Cell(64, ssl=False), changes=QUICK)
    found = time_catalogue(config, items=500, windows=2)
    assert (found["items"], found["step_ms"] > 0) == (500, True)
    assert sum(found["shares"].values()) == pytest.approx(1, abs=2e-3)
