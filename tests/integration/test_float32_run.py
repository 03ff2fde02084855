"""Fifty float32 steps on one worker and on two: the same losses, the same recommendations.

Real: the bundled Debian graph, gloo processes, everything that a step may hold. Small: the model.

The learning rate is a calm one: at `configs/debian.yaml`'s own, training amplifies any rounding, also
that of one worker whose rows are summed in another order (docs/log.md has the figures).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed import FileStore  # pyright: ignore[reportPrivateImportUsage]

from twotower.core.config import ExperimentConfig
from twotower.core.loading import load_config, with_overrides
from twotower.data.pipeline import prepare
from twotower.data.prepared import Prepared
from twotower.runtime.cluster import connect
from twotower.runtime.recorder import Recorder, Watch
from twotower.runtime.session import Place, run_session
from twotower.training.collectives import DistributedGroup
from twotower.training.loop import Line

ROOT = Path(__file__).parents[2]
STEPS = 50
CHANGES: dict[str, Any] = {
    "train.num_epochs": 2,
    "train.batch_size": 1600,
    "train.log_every": 1,
    "train.threads": 1,
    "train.learning_rate": 0.001,
    "model.embed_dim": 16,
    "model.hidden": [64],
    "model.out_dim": 32,
    "ssl.weight": 0.3,
    "loss.mixed_negatives": 256,
    "loss.logq": "streaming",
    "loss.spread_out": "softmax",
}
"""Accidental hits are masked always; the last step of an epoch is padded."""


def work(rank: int, size: int, config: str, prepared: str, folder: str) -> None:
    torch.set_num_threads(1)
    store = FileStore(f"{folder}/meet", size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    lines: list[Line] = []
    place = Place(torch.device("cpu"), DistributedGroup(torch.device("cpu")))
    outcome = run_session(
        ExperimentConfig.model_validate_json(config),
        Prepared.open(prepared),
        Recorder(None, Watch(on_line=lines.append), keep=1),
        place,
        parts=("test",),
    )
    if rank == 0:
        found = outcome.evaluations["test"]
        losses = [line["loss"] for line in lines if line["kind"] == "train"]
        np.savez(f"{folder}/found.npz", losses=losses, recall=found.per_query["recall@50"])
    dist.destroy_process_group()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("optimizer", ["adamw", "adagrad"])
def test_two_workers_train_what_one_does(
    optimizer: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    prepared = tmp_path_factory.getbasetemp() / "float32"  # both cases read it
    changes = CHANGES | {"storage.prepared": str(prepared), "train.optimizer": optimizer}
    config = with_overrides(load_config(ROOT / "configs/debian.yaml").config, changes)
    with connect(config.cluster):
        location = prepare(config).path
    got: list[dict[str, Any]] = []
    for size in (1, 2):
        folder = tmp_path / f"{size}"
        folder.mkdir()
        arguments = (size, config.model_dump_json(), location, str(folder))
        mp.spawn(work, arguments, nprocs=size)  # pyright: ignore[reportPrivateImportUsage]
        got.append(dict(np.load(folder / "found.npz")))
    one, two = got
    assert len(one["losses"]) == len(two["losses"]) >= STEPS
    assert np.allclose(two["losses"], one["losses"], rtol=1e-4, atol=0)
    counted = ~np.isnan(one["recall"])
    assert counted.sum() > 3000
    changed = (one["recall"] != two["recall"])[counted].mean()
    assert changed <= 0.001, "queries whose hits differ"
    assert one["losses"][-5:].mean() < 0.95 * one["losses"][:5].mean(), "something was learnt"
