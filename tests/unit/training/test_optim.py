import math
from typing import Any

import pytest
import torch

from tiny_catalogue import tiny_batch, tiny_experiment, tiny_state
from twotower.models.embeddings.bags import RowGradients
from twotower.training.optim import AdagradRows, AdagradRowwise, AdamRows, learning_rate
from twotower.training.step import train_step

torch.set_num_threads(1)


def gradients(step: int, rows: int = 9) -> tuple[torch.Tensor, RowGradients]:
    """A gradient that is dense with zero rows, and the same by row."""
    g = torch.Generator().manual_seed(step)
    touched = torch.randperm(rows, generator=g)[:4].sort().values
    values = torch.randn(4, 3, generator=g, dtype=torch.float64)
    dense = torch.zeros(rows, 3, dtype=torch.float64).index_copy(0, touched, values)
    return dense, RowGradients(touched.int(), values)


def test_adagrad_on_rows_equals_torch_adagrad_on_the_dense_gradient() -> None:
    weight = torch.randn(9, 3, dtype=torch.float64)
    dense = torch.nn.Parameter(weight.clone())
    reference, rule = torch.optim.Adagrad([dense], lr=0.3), AdagradRows(weight)
    for step in range(20):
        dense.grad, by_row = gradients(step)
        reference.step()
        rule.update_(weight, by_row, 0.3)
    torch.testing.assert_close(weight, dense.detach(), rtol=1e-14, atol=1e-15)


def test_rowwise_adagrad_keeps_the_mean_square_of_a_row() -> None:
    weight = torch.randn(9, 3, dtype=torch.float64)
    slow, seen = weight.clone(), torch.zeros(9, dtype=torch.float64)
    rule = AdagradRowwise(weight)
    for step in range(20):
        dense, by_row = gradients(step)
        for row in by_row.rows.tolist():
            seen[row] += dense[row].square().mean()
            slow[row] -= 0.3 * dense[row] / (seen[row].sqrt() + 1e-10)
        rule.update_(weight, by_row, 0.3)
    torch.testing.assert_close(weight, slow, rtol=1e-13, atol=1e-15)


def test_lazy_adam_moves_each_row_as_adam_moves_a_weight_of_its_own() -> None:
    weight = torch.randn(9, 3, dtype=torch.float64)
    own = [torch.nn.Parameter(row.clone()) for row in weight]
    reference = [torch.optim.AdamW([p], lr=0.05, weight_decay=0.0) for p in own]
    rule = AdamRows(weight)
    for step in range(20):
        dense, by_row = gradients(step)
        for row in by_row.rows.tolist():
            own[row].grad = dense[row]
            reference[row].step()
        rule.update_(weight, by_row, 0.05)
    torch.testing.assert_close(
        weight, torch.stack([p.detach() for p in own]), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("rule", [AdagradRows, AdagradRowwise, AdamRows])
def test_rows_without_a_gradient_and_rows_of_zero_gradient_stay(rule: type[AdagradRows]) -> None:
    weight = torch.randn(5, 3)
    before = weight.clone()
    rule(weight).update_(weight, RowGradients(torch.tensor([1, 3]), torch.zeros(2, 3)), 0.1)
    assert torch.equal(weight, before)


def test_schedules_warm_up_and_end_at_zero() -> None:
    def rates(schedule: str) -> list[float]:
        train = tiny_experiment(
            train__schedule=schedule, train__warmup_steps=2, train__learning_rate=1.0
        ).train
        return [learning_rate(train, step, 6) for step in range(7)]

    assert rates("constant") == [0.5, 1, 1, 1, 1, 1, 1]
    assert rates("linear") == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25, 0])
    cosine = [(1 + math.cos(math.pi * i / 4)) / 2 for i in range(5)]
    assert rates("cosine") == pytest.approx([0.5, 1, *cosine])


def test_clipping_scales_dense_and_table_gradients_by_their_common_norm() -> None:
    norms = {}
    for clip in (1e9, 0.25):
        state = tiny_state(tiny_experiment(train__clip_norm=clip, ssl__weight=1))
        kept = {}

        def keep(rows: RowGradients, rate: float, state: Any = state, kept: Any = kept) -> None:
            kept["norm"] = torch.cat([state.optimizer.dense_gradient, rows.values.flatten()]).norm()

        state.optimizer.apply = keep
        norms[clip] = (train_step(state, tiny_batch(0))["grad_norm"].item(), kept["norm"].item())
    free, clipped = norms[1e9], norms[0.25]
    assert free[0] == pytest.approx(free[1])
    assert clipped[0] == pytest.approx(free[0])
    assert clipped[1] == pytest.approx(0.25, rel=1e-4)
    assert free[0] > 0.25


TOWERS = {f"{side}_tower.mlp.layers.{n}.weight" for side in ("item", "query") for n in (0, 1)}
BLOCK = {f"{layer}.weight" for layer in ("query", "key", "value", "inner", "outer")}
LOW_RANK = {"item": {"tags": {"kind": "low_rank", "rank": 2}}}
MATRICES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "cosine": ({}, TOWERS),
    "low rank": ({"model__embeddings": LOW_RANK}, TOWERS),
    "neumf": (
        {"model__scorer": "neumf", "model__scorer_hidden": [5, 4]},
        TOWERS | {"scorer.first.weight", "scorer.pairs.layers.0.weight"},
    ),
    "attention": (
        {"history": True, "model__history": "attention", "model__history_blocks": 2},
        TOWERS | {f"history.{n}" for n in BLOCK} | {f"history.earlier.0.{n}" for n in BLOCK},
    ),
}


@pytest.mark.parametrize("case", MATRICES)
def test_decay_acts_on_the_matrices_of_towers_history_and_scorer_only(case: str) -> None:
    """Not on positions and tables, though they have two dimensions."""
    changes, matrices = MATRICES[case]
    common = {"train__optimizer": "adamw", "train__learning_rate": 0.1, **changes}
    plain = tiny_state(tiny_experiment(**common))
    decayed = tiny_state(tiny_experiment(**common, train__weight_decay=0.5))
    before = {n: t.clone() for n, t in plain.state_tensors()["model"].items()}
    assert matrices <= before.keys()
    for state in (plain, decayed):
        train_step(state, tiny_batch(0, history="history" in changes))
    ours, theirs = plain.state_tensors()["model"], decayed.state_tensors()["model"]
    for name, value in ours.items():
        if name in matrices:
            torch.testing.assert_close(theirs[name], value - 0.1 * 0.5 * before[name])
        else:
            assert torch.equal(theirs[name], value), name


@pytest.mark.parametrize("optimizer", ["adagrad", "adamw"])
def test_a_model_without_dense_weights_trains_its_tables(optimizer: str) -> None:
    """Cosines of the embeddings themselves; no message is sent for weights there are none of."""
    config = tiny_experiment(
        history=True, model__towers="identity", train__optimizer=optimizer, train__clip_norm=1.0
    )
    state = tiny_state(config)
    assert not list(state.model.parameters())
    losses = [train_step(state, tiny_batch(0, history=True))["loss"].item() for _ in range(8)]
    assert losses[-1] < losses[0]
    state.optimizer.prepare_state()
    assert not [n for n in state.state_tensors()["optimizer"] if n.startswith("dense.")]
