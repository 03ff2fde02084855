"""One global batch gives one gradient, however many workers share it: real gloo processes, float64."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed import FileStore  # pyright: ignore[reportPrivateImportUsage]

from tiny_catalogue import take, tiny_batch, tiny_experiment, tiny_state
from twotower.models.embeddings.bags import RowGradients
from twotower.objectives.group import SINGLE
from twotower.training.collectives import DistributedGroup
from twotower.training.state import TrainState
from twotower.training.step import train_step

STEPS = 3
CASES: dict[str, dict[str, Any]] = {
    "everything": {
        "ssl__weight": 0.7,
        "ssl__masking": "rfm",
        "ssl__batch_size": 13,
        "loss__logq": "streaming",
        "loss__mixed_negatives": 5,
        "loss__spread_out": "softmax",
        "train__clip_norm": 1.0,
    },
    "in_batch": {
        "history": True,
        "model__history": "attention",
        "ssl__weight": 1,
        "ssl__items": "in_batch",
        "ssl__masking": "cfm",
        "loss__logq": "counted",
        "loss__spread_out": "squared",
        "train__optimizer": "adamw",
    },
    "repeats": {
        "ssl__weight": 1,
        "ssl__items": "in_batch",
        "ssl__masking": "rfm",
        "ssl__dropout_rate": 0,
        "loss__mixed_negatives": 5,
        "model__embeddings__item": {
            "tags": {"kind": "dpq_sx", "num_subspaces": 4, "num_centroids": 3}
        },
    },
    "gmf": {
        "history": True,
        "model__history": "attention",
        "model__history_blocks": 2,
        "model__history_heads": 2,
        "model__history_dropout": 0.3,
        "model__towers": "identity",
        "model__scorer": "gmf",
        "loss__temperature": 1.0,
        "loss__logq": "counted",
    },
    "neumf": {
        "model__scorer": "neumf",
        "model__scorer_hidden": [5, 3],
        "loss__temperature": 1.0,
        "loss__mixed_negatives": 5,
        "train__optimizer": "adamw",
        # A hidden unit that is on for all items has a gradient of 0 but for rounding, which Adam
        # makes steps of.
        "train__learning_rate": 1e-3,
        "train__clip_norm": 1.0,
    },
    "feature_dropout": {"loss__feature_dropout": 0.3, "loss__mixed_negatives": 3},
    "hidden_id": {"ssl__weight": 0.7, "ssl__hidden_features": ["id"], "ssl__batch_size": 13},
    "codes": {
        "history": True,
        "ssl__weight": 0.7,
        "ssl__batch_size": 13,
        "loss__mixed_negatives": 5,
        "train__clip_norm": 1.0,
        "model__embeddings__item": {
            "id": {
                "kind": "mgqe",
                "num_subspaces": 2,
                "commitment": 0.1,
                "revive_every": 2,
                "tiers": [
                    {"share": 0.2, "num_centroids": 5},
                    {"share": 0.8, "num_centroids": 3, "num_subspaces": 1},
                ],
            },
            "brand": {"kind": "scalar", "bits": 4},
            "tags": {"kind": "dpq_sx", "num_subspaces": 4, "num_centroids": 3},
            "words": {"kind": "low_rank", "rank": 2},
        },
        "model__embeddings__query": {"id": {"kind": "hashed", "share": 0.3}},
        "model__embeddings__context": {
            "country": {"kind": "dpq_vq", "num_subspaces": 1, "num_centroids": 2, "warmup_steps": 1}
        },
    },
}


def run(case: str, rank: int, size: int, group: Any) -> dict[str, torch.Tensor]:
    """Global gradients, losses and final weights of a few steps; row r of the batch is rank r % size's."""
    torch.set_num_threads(1)
    state = tiny_state(tiny_experiment(**CASES[case]))
    out: dict[str, torch.Tensor] = {}
    _keep_gradients(state, out)
    for step in range(STEPS):
        # The last batch has 2 real rows: with 4 workers, two of them hold padding only.
        batch = tiny_batch(
            step, real=2 if step == STEPS - 1 else 14, history="history" in CASES[case]
        )
        mine = take(batch, np.arange(16) % size == rank)
        for name, value in train_step(state, mine, group, detail=True).items():
            out[f"{step}.{name}"] = value
    for tensors in state.state_tensors().values():
        out |= {name: value.clone() for name, value in tensors.items()}
    return out


def _keep_gradients(state: TrainState, out: dict[str, torch.Tensor]) -> None:
    apply = state.optimizer.apply

    def keep(rows: RowGradients, rate: float) -> None:
        out[f"{state.step}.dense_gradient"] = state.optimizer.dense_gradient.clone()
        table = torch.zeros_like(state.model.store.weight)
        out[f"{state.step}.table_gradient"] = table.index_add(0, rows.rows, rows.values)
        apply(rows, rate)

    state.optimizer.apply = keep


def work(rank: int, size: int, folder: str) -> None:
    store = FileStore(f"{folder}/meet", size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    group = DistributedGroup(torch.device("cpu"))
    torch.save({case: run(case, rank, size, group) for case in CASES}, f"{folder}/rank-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_size() -> dict[int, list[dict[str, dict[str, torch.Tensor]]]]:
    """What every rank of groups of 1, 2 and 4 workers got."""
    got: dict[int, list[dict[str, dict[str, torch.Tensor]]]] = {}
    for size in (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(work, (size, folder), nprocs=size)  # pyright: ignore[reportPrivateImportUsage]
            got[size] = [torch.load(Path(folder) / f"rank-{r}.pt") for r in range(size)]
    return got


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_gradients_and_losses_are_those_of_one_worker(case: str, size: int, of_size: Any) -> None:
    one = of_size[1][0][case]
    for rank in range(size):
        many = of_size[size][rank][case]
        assert many.keys() == one.keys()
        for name, value in one.items():
            if "gradient" in name:
                assert (many[name] - value).abs().max() <= 1e-10 * value.abs().max(), name
            elif value.is_floating_point():
                torch.testing.assert_close(many[name], value, rtol=1e-7, atol=1e-9, msg=name)
            else:
                assert torch.equal(many[name], value), name


@pytest.mark.parametrize("case", CASES)
def test_all_ranks_hold_the_same_bits(case: str, of_size: Any) -> None:
    first, *others = (rank[case] for rank in of_size[4])
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


def test_two_groups_of_one_worker_agree_with_no_group_at_all(of_size: Any) -> None:
    alone = run("everything", 0, 1, SINGLE)
    assert all(
        torch.equal(alone[name], value) for name, value in of_size[1][0]["everything"].items()
    )
