"""The tuned PyTorch peer does the same mathematics as the plain one."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from twotower.bench.peer_runs import SCRIPTS
from twotower.bench.workload import Sizes, write_workload

SIZES = Sizes(rows=300, items=60, queries=40, categories=5, developers=9, tags=12, tokens=30)
RATE = 0.05


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, Any]]:
    """The scripts' modules by name, imported as the peers' Python does: from their own folder."""
    names = ("common", "torch_parts", "torch_tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield {name: importlib.import_module(name) for name in names}
        for name in names:
            del sys.modules[name]


@pytest.fixture(scope="module")
def data(scripts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    home: Path = tmp_path_factory.mktemp("w1")
    write_workload(home, SIZES)
    return scripts["common"].read(home)


@pytest.mark.parametrize("rows", [7, 512, 1100])
def test_the_blocked_softmax_has_the_loss_and_gradient_of_the_plain_one(
    scripts: dict[str, Any], rows: int
) -> None:
    torch.manual_seed(rows)
    x, y = (F.normalize(torch.randn(rows, 128), dim=1).requires_grad_() for _ in range(2))
    plain = scripts["torch_parts"].in_batch_softmax(x, y, 0.07)
    expected = torch.autograd.grad(plain * 0.3, (x, y))
    blocked = scripts["torch_tuned"].BlockedSoftmax.apply(x, y, 0.07, torch.float32)
    found = torch.autograd.grad(blocked * 0.3, (x, y))
    assert torch.allclose(blocked, plain, rtol=1e-5)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-7)


def test_a_side_gives_each_rows_bags_with_ids_of_one_table(
    scripts: dict[str, Any], data: Any
) -> None:
    side = scripts["torch_tuned"].Side(data.item, 100)
    assert side.end == 100 + 60 + 5 + 9 + 12 + 30
    rows = np.array([5, 0, 59, 5])
    ids, lengths = side.take(rows)
    expected_ids, expected_lengths = [], []
    for row in rows:
        base = 100
        for column in data.item.values():
            values = column.values[column.offsets[row] : column.offsets[row + 1]]
            expected_ids += [base + value for value in values]
            expected_lengths.append(len(values))
            base += column.distinct
    assert ids.tolist() == expected_ids
    assert lengths.tolist() == expected_lengths


def test_the_table_looks_up_means_and_updates_touched_rows_by_rowwise_adagrad(
    scripts: dict[str, Any],
) -> None:
    """Against dense autograd and Adagrad written out, over two steps with ids that repeat."""
    torch.manual_seed(1)
    table = scripts["torch_tuned"].Table(20)
    weight, squares = table.weight.clone().requires_grad_(), torch.zeros(20)
    for ids, lengths in (([3, 3, 7, 1, 3], [2, 2, 1]), ([7, 19, 7], [1, 2])):
        ids_N, lengths_B = (torch.tensor(x, dtype=torch.int32) for x in (ids, lengths))
        pooled = table.lookup(ids_N, lengths_B)
        target = torch.randn(len(lengths), 64)
        (pooled * target).sum().backward()
        table.update(ids_N, lengths_B, pooled.grad)

        bags = torch.split(torch.tensor(ids), lengths)
        means = torch.stack([weight[bag].mean(0) for bag in bags])
        assert torch.allclose(pooled, means, atol=1e-6)
        (grad,) = torch.autograd.grad((means * target).sum(), weight)
        squares += grad.square().mean(1)
        step = RATE * grad / (squares.sqrt() + 1e-8)[:, None]
        weight = (weight - step).detach().requires_grad_()
        assert torch.allclose(table.weight, weight, atol=1e-6)
        assert torch.allclose(table.squares, squares, atol=1e-6)


def test_views_mask_two_features_of_five_and_the_other_three(scripts: dict[str, Any]) -> None:
    one, other = scripts["torch_parts"].view_masks(200, 5)
    assert torch.equal(one + other, torch.ones(200, 320))
    by_feature = other.view(200, 5, 64)
    assert torch.equal(by_feature, by_feature[:, :, :1].expand(-1, -1, 64))
    assert set(by_feature[:, :, 0].sum(1).tolist()) == {2.0}
    assert len(by_feature[:, :, 0].unique(dim=0)) == 10
