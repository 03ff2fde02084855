from typing import Any

import pytest
import torch

from slow_training import SlowModel, slow_losses
from tiny_catalogue import NUM_ITEMS, take, tiny_batch, tiny_experiment, tiny_inputs, tiny_state
from twotower.core.errors import RunError
from twotower.core.types import Batch
from twotower.models.embeddings.bags import RowGradients
from twotower.objectives import masking as masking_module
from twotower.training.state import TrainState
from twotower.training.step import train_step

torch.set_num_threads(1)

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {
        "ssl__weight": 0.7,
        "loss__logq": "counted",
        "loss__mixed_negatives": 5,
        "loss__spread_out": "softmax",
    },
    "rfm_in_batch": {
        "ssl__weight": 1,
        "ssl__masking": "rfm",
        "ssl__items": "in_batch",
        "ssl__dropout_rate": 0.4,
    },
    "rfm_of_repeats": {
        "ssl__weight": 1,
        "ssl__masking": "rfm",
        "ssl__items": "in_batch",
        "ssl__dropout_rate": 0,
        "loss__mixed_negatives": 5,
    },
    "cfm_of_repeats": {"ssl__weight": 0.7, "ssl__items": "in_batch", "ssl__dropout_rate": 0},
    "independent": {"ssl__weight": 1, "ssl__masking": "rfm_independent", "ssl__batch_size": 9},
    "dropout_only": {"ssl__weight": 1, "ssl__masking": "none", "ssl__dropout_rate": 0.5},
    "some_features": {
        "ssl__weight": 1,
        "ssl__mask_features": ["brand", "words", "price"],
        "ssl__mask_rate": "paper",
    },
    "hidden_features": {"ssl__weight": 1, "ssl__hidden_features": ["id", "price"]},
    "hidden_features_and_random_masks": {
        "ssl__weight": 1,
        "ssl__masking": "rfm",
        "ssl__hidden_features": ["id"],
        "ssl__batch_size": 9,
    },
    "hidden_features_and_dropout_only": {
        "ssl__weight": 1,
        "ssl__masking": "none",
        "ssl__dropout_rate": 0.5,
        "ssl__hidden_features": ["brand"],
    },
    "feature_dropout": {
        "loss__feature_dropout": 0.4,
        "loss__mixed_negatives": 4,
        "loss__spread_out": "squared",
    },
    "history": {"history": True, "ssl__weight": 0.3},
    "attention": {"history": True, "model__history": "attention"},
    "attention_with_dropout": {
        "history": True,
        "model__history": "attention",
        "model__history_blocks": 3,
        "model__history_heads": 2,
        "model__history_dropout": 0.4,
        "model__scorer": "gmf",
        "model__towers": "identity",
        "loss__temperature": 1.0,
    },
    "one_layer": {"model__hidden": [], "ssl__weight": 0.3},
    "gmf": {
        "model__scorer": "gmf",
        "loss__temperature": 1.0,
        "loss__logq": "counted",
        "loss__mixed_negatives": 5,
    },
    "gmf_of_embeddings": {"history": True, "model__scorer": "gmf", "model__towers": "identity"},
    "neumf": {
        "model__scorer": "neumf",
        "model__scorer_hidden": [5, 4, 3],
        "model__hidden": [],
        "loss__temperature": 0.5,
        "loss__logq": "counted",
        "loss__mixed_negatives": 5,
    },
    "neumf_one_layer": {
        "model__scorer": "neumf",
        "model__scorer_hidden": [3],
        "loss__feature_dropout": 0.4,
    },
}


def capture(state: TrainState) -> dict[str, torch.Tensor]:
    """Make the optimizer keep the global gradients it is about to apply."""
    kept: dict[str, torch.Tensor] = {}
    apply = state.optimizer.apply

    def keep(rows: RowGradients, rate: float) -> None:
        kept["dense"] = state.optimizer.dense_gradient.clone()
        kept["table"] = torch.zeros_like(state.model.store.weight).index_add(
            0, rows.rows, rows.values
        )
        kept["rows"] = rows.rows
        apply(rows, rate)

    state.optimizer.apply = keep
    return kept


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("real", [16, 11])
def test_losses_and_gradients_equal_the_slow_step(case: str, real: int) -> None:
    config = tiny_experiment(**CASES[case])
    state = tiny_state(config)
    slow = SlowModel.of(state, tiny_inputs())
    kept = capture(state)
    batch = tiny_batch(3, real=real, history="history" in CASES[case])
    losses = train_step(state, batch)
    wanted = slow_losses(config, slow, batch)
    assert losses.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(losses[name], value.detach(), rtol=1e-11, atol=1e-12)
    torch.autograd.backward(wanted["loss"])
    dense = torch.cat([p.grad.flatten() for p in slow.dense.values() if p.grad is not None])
    torch.testing.assert_close(kept["dense"], dense, rtol=1e-9, atol=1e-13)
    assert slow.table.grad is not None
    torch.testing.assert_close(kept["table"], slow.table.grad, rtol=1e-9, atol=1e-13)
    touched = state.model.store.touched[: state.model.store.nowhere]
    assert torch.equal(touched, _any_gradient(slow.table.grad, kept["rows"])[: len(touched)])


@pytest.mark.parametrize("items", ["uniform", "in_batch"])
def test_rfm_in_runs_of_equal_masks_is_the_same_step(
    items: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masking_module, "_ROWS_A_RUN", 0)
    config = tiny_experiment(
        ssl__weight=0.7, ssl__masking="rfm", ssl__items=items, ssl__dropout_rate=0.4
    )
    state = tiny_state(config)
    slow = SlowModel.of(state, tiny_inputs())
    kept = capture(state)
    batch = tiny_batch(3, real=11)
    losses = train_step(state, batch, detail=True)
    wanted = slow_losses(config, slow, batch)
    torch.testing.assert_close(losses["ssl"], wanted["ssl"].detach(), rtol=1e-11, atol=1e-12)
    torch.autograd.backward(wanted["loss"])
    assert slow.table.grad is not None
    torch.testing.assert_close(kept["table"], slow.table.grad, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("masking", ["rfm", "cfm"])
def test_views_that_repeat_the_main_pass_are_the_same_step(
    masking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables of codes too, whose statistics count what each row stands for."""
    config = tiny_experiment(
        ssl__weight=0.7,
        ssl__masking=masking,
        ssl__items="in_batch",
        ssl__dropout_rate=0,
        model__embeddings__item={
            "id": {"kind": "dpq_vq", "num_subspaces": 2, "num_centroids": 3, "warmup_steps": 1},
            "tags": {"kind": "dpq_sx", "num_subspaces": 4, "num_centroids": 3},
        },
    )
    repeated, full = tiny_state(config), tiny_state(config)
    ours = [train_step(repeated, tiny_batch(step, real=13), detail=True) for step in range(3)]
    monkeypatch.setattr(masking_module.ViewMasks, "are_complements", False)
    theirs = [train_step(full, tiny_batch(step, real=13), detail=True) for step in range(3)]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name in mine:
            torch.testing.assert_close(mine[name], other[name], rtol=1e-9, atol=1e-12)
    # Only masked entries point at the row after the last table.
    for state in (repeated, full):
        state.model.store.touched[state.model.store.nowhere] = False
    for part, tensors in full.state_tensors().items():
        mine = repeated.state_tensors()[part]
        for name, value in tensors.items():
            torch.testing.assert_close(mine[name], value, rtol=1e-8, atol=1e-11)


def _any_gradient(grad: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Rows that a gradient reached; one that is zero by chance counts too."""
    reached = grad.abs().sum(1) > 0
    assert set(reached.nonzero().flatten().tolist()) <= set(rows.tolist())
    out = torch.zeros_like(reached)
    out[rows.long()] = True
    return out


def steps(state: TrainState, batches: list[Batch]) -> None:
    for batch in batches:
        train_step(state, batch)


EVERYTHING = CASES["everything"] | {"loss__logq": "streaming", "train__clip_norm": 0.5}


@pytest.mark.parametrize("optimizer", ["adagrad", "adagrad_rowwise", "adamw"])
def test_padding_changes_nothing(optimizer: str) -> None:
    config = tiny_experiment(**EVERYTHING, train__optimizer=optimizer)
    padded, bare = tiny_state(config), tiny_state(config)
    for step in range(3):
        batch = tiny_batch(step, real=11)
        one, other = train_step(padded, batch), train_step(bare, take(batch, slice(0, 11)))
        assert all(torch.equal(one[name], other[name]) for name in one)
    for part in ("model", "optimizer"):
        ours, theirs = padded.state_tensors()[part], bare.state_tensors()[part]
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("optimizer", ["adagrad", "adagrad_rowwise", "adamw"])
def test_a_loaded_state_goes_on_bitwise(optimizer: str) -> None:
    config = tiny_experiment(**EVERYTHING, train__optimizer=optimizer, train__schedule="cosine")
    batches = [tiny_batch(step) for step in range(6)]
    unbroken, first = tiny_state(config), tiny_state(config)
    steps(unbroken, batches)
    steps(first, batches[:3])
    saved = {
        part: {n: t.clone() for n, t in tensors.items()}
        for part, tensors in first.state_tensors().items()
    }
    resumed = tiny_state(config)
    resumed.load_state_tensors(saved)
    steps(resumed, batches[3:])
    assert resumed.step == unbroken.step == 6
    for part, tensors in unbroken.state_tensors().items():
        assert tensors.keys() == resumed.state_tensors()[part].keys()
        for name, value in tensors.items():
            assert torch.equal(value, resumed.state_tensors()[part][name]), name


def test_a_state_of_another_model_is_refused_by_tensor_name() -> None:
    saved = tiny_state(tiny_experiment()).state_tensors()
    with pytest.raises(RunError, match=r"store\.weight.*shape"):
        tiny_state(tiny_experiment(model__embed_dim=8)).load_state_tensors(saved)
    with pytest.raises(RunError, match=r"table\.count.*missing|exp_avg.*missing"):
        tiny_state(tiny_experiment(train__optimizer="adamw")).load_state_tensors(saved)
    del saved["model"]["store.touched"]
    with pytest.raises(RunError, match=r"store\.touched.*missing"):
        tiny_state(tiny_experiment()).load_state_tensors(saved)


def test_training_lowers_the_loss_and_reports_identical_views_on_demand() -> None:
    state = tiny_state(tiny_experiment(ssl__weight=0.3), dtype=torch.float32)
    losses = []
    for step in range(25):
        batch = tiny_batch(0)
        losses.append(
            train_step(
                state,
                Batch(
                    batch.query, batch.item, batch.weight, batch.position, 0, step, batch.context
                ),
            )
        )
    assert losses[-1]["main"] < losses[0]["main"] * 0.7
    assert "identical_views" not in losses[0]
    detail = train_step(state, tiny_batch(25), detail=True)
    assert 0 <= detail["identical_views"].item() <= 1


@pytest.mark.parametrize("changes", [{"ssl__weight": 0.3}, {"model__scorer": "neumf"}])
def test_bf16_trains_near_float32(changes: dict[str, Any]) -> None:
    runs = [
        tiny_state(tiny_experiment(**changes, train__precision=p), dtype=torch.float32)
        for p in ("float32", "bf16")
    ]
    full, half = (train_step(state, tiny_batch(0)) for state in runs)
    assert half["loss"].item() == pytest.approx(full["loss"].item(), rel=0.02)
    assert half["loss"].item() != full["loss"].item()
    first, second = (state.optimizer.state_tensors()["table.sum"].sum() for state in runs)
    torch.testing.assert_close(first, second, rtol=0.1, atol=0)


def test_ids_that_both_views_hide_are_trained_by_pairs_alone() -> None:
    """Rows of the id's table that a step touches are those of its batch, and the default row."""
    config = tiny_experiment(ssl__weight=1, ssl__hidden_features=["id"])
    state = tiny_state(config)
    batch = tiny_batch(0)
    train_step(state, batch)
    start = state.model.store.offsets["item.id"]
    touched = state.model.store.touched[start : start + NUM_ITEMS + 2].nonzero().flatten().tolist()
    assert touched == sorted({0, *(batch.item + 2).tolist()})
