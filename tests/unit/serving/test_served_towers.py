"""The NumPy towers against the torch modules that they stand for."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from served_arrays import arrays, drawn
from twotower.core.types import Float32, Ragged
from twotower.models.embeddings.bags import Bags
from twotower.models.encoders import AttentionHistory, Histories, MeanHistory
from twotower.models.towers import Tower as TorchTower
from twotower.serving.attention import Attention
from twotower.serving.scorers import Same, Unit
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


@pytest.mark.parametrize("widths", [(5,), (5, 3), (5, 7, 3), (5, 7, 4, 3)])
@pytest.mark.parametrize("last", [Unit(), Same()])
def test_a_tower_equals_torch(widths: tuple[int, ...], last: Unit | Same) -> None:
    tower = TorchTower(widths, seed=1, name="t", unit=isinstance(last, Unit))
    x = drawn(1, 40, 5)
    served = Tower.read(arrays(tower.mlp.layers, "t"), "t", len(widths) - 1, last)
    with torch.no_grad():
        expected = tower([torch.from_numpy(x)]).numpy()
    assert np.abs(served(x) - expected).max() < 1e-6


def test_means_of_bags_equal_loops() -> None:
    bags = Ragged.from_lists([[3], [1, 1, 5], [0, 19]])
    rows = TABLE.tensors["rows"]
    expected = [rows[bag].mean(axis=0) for bag in ([3], [1, 1, 5], [0, 19])]
    assert np.abs(bag_means(TABLE, bags) - expected).max() < 1e-6
    assert bag_means(TABLE, Ragged.from_lists([[7], [2]])).tobytes() == rows[[7, 2]].tobytes()


ENCODERS = {"mean": (1, 1), "attention": (1, 1), "blocks": (2, 1), "heads": (1, 3), "both": (3, 2)}


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("lengths", [[2, 0, 3, 1], [0, 0], [1], [0, 4], [5, 1, 5], []])
def test_histories_equal_torch(kind: str, lengths: list[int]) -> None:
    encoder, (blocks, heads) = "mean" if kind == "mean" else "attention", ENCODERS[kind]
    rng = np.random.default_rng(2)
    bags = Ragged.from_lists(
        [rng.integers(0, 20, rng.integers(1, 4)).tolist() for _ in range(sum(lengths))]
    )
    counts = np.array(lengths, dtype=np.int64)
    row = np.repeat(np.arange(len(lengths)), lengths)
    histories = Histories(torch.tensor(counts), torch.tensor(row), max([1, *lengths]))
    module = MeanHistory() if kind == "mean" else attention(WIDTH, 5, blocks, heads)
    single = Bags(
        torch.tensor(bags.values, dtype=torch.int32),
        torch.tensor(np.repeat(1 / bags.lengths(), bags.lengths()), dtype=torch.float32),
        torch.tensor(bags.row_ids(), dtype=torch.int32),
        torch.tensor(bags.lengths(), dtype=torch.int32),
    )
    with torch.no_grad():
        weight = torch.from_numpy(TABLE.tensors["rows"])
        expected = module(module.regroup(single, histories).sum(weight), histories).numpy()
    spec = HistorySpec("past", "t", 5, encoder, blocks, heads)
    found = spec.encode(bags, counts, {"t": TABLE}, arrays(module, "history"))
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    close(found, expected)


def close(found: Float32, expected: Float32) -> None:
    largest = np.abs(expected).max(initial=1)
    assert np.abs(found - expected).max(initial=0) < 1e-6 * largest


def attention(width: int, longest: int, blocks: int, heads: int) -> AttentionHistory:
    """With dropout, which evaluation has not, and drawn norms, which begin as 1 and 0."""
    module = AttentionHistory(
        width, longest, seed=3, num_blocks=blocks, num_heads=heads, dropout=0.5
    )
    for n, (name, weight) in enumerate(module.named_parameters()):
        if "norm" in name:
            weight.data += 0.3 * torch.from_numpy(drawn(n, width))
    return module


@given(st.integers(0, 10**6), st.sampled_from([(8, 2, 1), (12, 3, 4), (64, 2, 1), (64, 2, 8)]))
@settings(max_examples=25, deadline=None)
def test_blocks_equal_torch_for_histories_of_any_length(
    seed: int, shape: tuple[int, int, int]
) -> None:
    """More rows than are attended at once; far from both ends of the positions, too."""
    (width, blocks, heads), rng = shape, np.random.default_rng(seed)
    lengths = rng.integers(0, 13, rng.integers(1, 400)) * rng.integers(0, 5, 1)
    items = rng.normal(size=(lengths.sum(), width)).astype(np.float32)
    module = attention(width, 50, blocks, heads)
    row = torch.tensor(np.repeat(np.arange(len(lengths)), lengths))
    histories = Histories(torch.tensor(lengths), row, max(1, int(lengths.max())))
    with torch.no_grad():
        expected = module(torch.from_numpy(items), histories).numpy()
    served = Attention.of(arrays(module, "history"), blocks, heads)
    close(served(items, lengths), expected)


def test_heads_that_do_not_divide_the_width_and_blocks_that_are_not_there_are_refused() -> None:
    tensors = arrays(attention(6, 5, 2, 2), "history")
    items, lengths = drawn(0, 3, 6), np.array([3])
    with pytest.raises(ValueError, match="reshape"):
        Attention.of(tensors, 2, 4)(items, lengths)
    with pytest.raises(KeyError, match=r"earlier\.1"):
        Attention.of(tensors, 3, 2)
