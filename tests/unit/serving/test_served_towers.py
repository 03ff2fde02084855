"""The NumPy towers against the torch modules that they stand for."""

from typing import Any

import numpy as np
import pytest
import torch

from twotower.core.types import Ragged
from twotower.models.embeddings.bags import Bags
from twotower.models.encoders import AttentionHistory, Histories, MeanHistory
from twotower.models.towers import Tower as TorchTower
from twotower.serving.sides import HistorySpec
from twotower.serving.tables import ServedTable
from twotower.serving.towers import Tower, bag_means

WIDTH = 6
TABLE = ServedTable(
    "full",
    20,
    WIDTH,
    {},
    {"rows": np.random.default_rng(0).normal(size=(20, WIDTH)).astype(np.float32)},
)


def arrays(module: torch.nn.Module, prefix: str) -> dict[str, Any]:
    return {f"{prefix}.{name}": t.detach().numpy() for name, t in module.state_dict().items()}


@pytest.mark.parametrize("widths", [(5, 3), (5, 7, 3), (5, 7, 4, 3)])
def test_a_tower_equals_torch(widths: tuple[int, ...]) -> None:
    tower = TorchTower(widths, seed=1, name="t")
    x = np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    served = Tower.read(arrays(tower.mlp.layers, "t"), "t", len(widths) - 1)
    with torch.no_grad():
        expected = tower([torch.from_numpy(x)]).numpy()
    assert np.abs(served(x) - expected).max() < 1e-6


def test_means_of_bags_equal_loops() -> None:
    bags = Ragged.from_lists([[3], [1, 1, 5], [0, 19]])
    rows = TABLE.tensors["rows"]
    expected = [rows[bag].mean(axis=0) for bag in ([3], [1, 1, 5], [0, 19])]
    assert np.abs(bag_means(TABLE, bags) - expected).max() < 1e-6
    assert bag_means(TABLE, Ragged.from_lists([[7], [2]])).tobytes() == rows[[7, 2]].tobytes()


@pytest.mark.parametrize("encoder", ["mean", "attention"])
@pytest.mark.parametrize("lengths", [[2, 0, 3, 1], [0, 0], [1], [0, 4]])
def test_histories_equal_torch(encoder: Any, lengths: list[int]) -> None:
    rng = np.random.default_rng(2)
    bags = Ragged.from_lists(
        [rng.integers(0, 20, rng.integers(1, 4)).tolist() for _ in range(sum(lengths))]
    )
    counts = np.array(lengths, dtype=np.int64)
    row = np.repeat(np.arange(len(lengths)), lengths)
    histories = Histories(torch.tensor(counts), torch.tensor(row), max(1, *lengths, 1))
    module = AttentionHistory(WIDTH, 5, seed=3) if encoder == "attention" else MeanHistory()
    single = Bags(
        torch.tensor(bags.values, dtype=torch.int32),
        torch.tensor(np.repeat(1 / bags.lengths(), bags.lengths()), dtype=torch.float32),
        torch.tensor(bags.row_ids(), dtype=torch.int32),
        torch.tensor(bags.lengths(), dtype=torch.int32),
    )
    with torch.no_grad():
        weight = torch.from_numpy(TABLE.tensors["rows"])
        expected = module(module.regroup(single, histories).sum(weight), histories).numpy()
    spec = HistorySpec("past", "t", 5, encoder)
    found = spec.encode(bags, counts, {"t": TABLE}, arrays(module, "history"))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 2e-6
