"""The loop without Ray: resume, cadence, early stop, numbers that are not finite."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiny_run import tiny_run
from twotower.core.errors import ConfigError, DivergedError, StoppedError
from twotower.core.storage import Store
from twotower.runtime.recorder import Watch
from twotower.runtime.reference import train_reference

TIMES = ("data_wait_s", "step_s", "rows_per_s")


def files_of(run: Path) -> dict[str, Any]:
    """What a run left, times aside."""
    found: dict[str, Any] = {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in ("events.jsonl", "metrics.jsonl", ".writer")
    }
    found["metrics"] = [
        {key: value for key, value in line.items() if key not in TIMES} for line in lines_of(run)
    ]
    return found


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def after(calls: int) -> Callable[[], bool]:
    """A stop that is heard at the given look, counted from 1."""
    looks = iter(range(1, 10**9))
    return lambda: next(looks) == calls


def steps_of(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").iterdir())


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_a_stopped_run_goes_on_to_the_same_bytes(tmp_path: Path, looks: int) -> None:
    config, prepared = tiny_run(tmp_path)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_reference(config, prepared, store=Store(whole))
    with pytest.raises(StoppedError, match=r"step (10|13|20);"):
        train_reference(
            config, prepared, store=Store(broken), watch=Watch(should_stop=after(looks))
        )
    train_reference(config, prepared, store=Store(broken))
    assert files_of(broken) == files_of(whole)


@pytest.mark.parametrize("step", [4, 8, 16, 24])
def test_a_run_that_died_goes_on_to_the_same_bytes(tmp_path: Path, step: int) -> None:
    config, prepared = tiny_run(tmp_path)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_reference(config, prepared, store=Store(whole))

    def die(line: dict[str, Any]) -> None:
        if line["step"] == step:
            raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        train_reference(config, prepared, store=Store(broken), watch=Watch(on_line=die))
    assert lines_of(broken)[-1]["step"] == step, "written after the last checkpoint: cut back"
    train_reference(config, prepared, store=Store(broken))
    assert files_of(broken) == files_of(whole)


def test_a_finished_run_is_only_evaluated_again(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path)
    train_reference(config, prepared, store=Store(tmp_path / "run"))
    before = files_of(tmp_path / "run")
    seen: list[dict[str, Any]] = []
    outcome = train_reference(
        config, prepared, store=Store(tmp_path / "run"), watch=Watch(on_line=seen.append)
    )
    assert not seen
    assert outcome.last_step == 26
    assert files_of(tmp_path / "run") == before


def test_lines_and_checkpoints_come_at_their_steps(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path)
    outcome = train_reference(config, prepared, store=Store(tmp_path / "run"))
    lines = lines_of(tmp_path / "run")
    assert [line["step"] for line in lines if line["kind"] == "train"] == [4, 8, 12, 16, 20, 24]
    validations = [line for line in lines if line["kind"] == "validation"]
    assert [line["step"] for line in validations] == [13, 26]
    assert outcome.best is not None
    assert outcome.best.value == max(line["recall@5"] for line in validations)
    # The newest two, and the best that step 25 knew: it is still needed if step 26 is damaged.
    assert steps_of(tmp_path / "run") == [13, 25, 26]


def test_the_model_that_is_evaluated_is_the_best_one(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path, train__num_epochs=3)
    outcome = train_reference(config, prepared, store=Store(tmp_path / "run"))
    assert outcome.best is not None
    assert outcome.state.step == outcome.best.step
    found = outcome.evaluations["validation"].summary["recall@5"]["value"]
    assert found == outcome.best.value
    assert outcome.evaluations["test"].certificate.subject["checkpoint"] == outcome.best.step


def test_patience_ends_a_run_that_no_longer_gets_better(tmp_path: Path) -> None:
    config, prepared = tiny_run(
        tmp_path, train__num_epochs=50, train__patience=2, train__learning_rate=1e-6
    )
    seen: list[dict[str, Any]] = []
    outcome = train_reference(config, prepared, watch=Watch(on_line=seen.append), final=False)
    values = [line["recall@5"] for line in seen if line["kind"] == "validation"]
    assert outcome.best is not None
    assert len(values) < 50
    assert len(values) == outcome.best.epoch + 2
    assert max(values) == outcome.best.value


def test_validations_follow_their_cadence_and_the_last_epoch_has_one(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path, train__num_epochs=5, train__validate_every=2)
    seen: list[dict[str, Any]] = []
    train_reference(config, prepared, watch=Watch(on_line=seen.append), final=False)
    assert [line["epoch"] for line in seen if line["kind"] == "validation"] == [2, 4, 5]


def test_a_loss_that_is_not_finite_names_its_step_and_is_never_saved(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path, train__learning_rate=1e38, ssl__weight=0)
    with pytest.raises(DivergedError, match=r"step \d+: the loss is not finite; lower train\."):
        train_reference(config, prepared, store=Store(tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_line_holds_means_since_the_last_line(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path)
    every, some = [], []
    train_reference(
        config.model_copy(update={"train": config.train.model_copy(update={"log_every": 1})}),
        prepared,
        watch=Watch(on_line=every.append),
        final=False,
    )
    train_reference(config, prepared, watch=Watch(on_line=some.append), final=False)
    losses = {line["step"]: line["loss"] for line in every if line["kind"] == "train"}
    for line in some:
        if line["kind"] == "train":
            step = line["step"]
            mean = sum(losses[s] for s in range(step - 3, step + 1)) / 4
            assert line["loss"] == pytest.approx(mean, rel=1e-9)


CODES = {"kind": "dpq_vq", "num_subspaces": 2, "num_centroids": 4}


def test_a_run_with_codebooks_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """Stopped before and after k-means and a revival."""
    tables = {"item_id": CODES | {"kind": "dpq_sx", "revive_every": 3}}
    tables["words"] = CODES | {"warmup_steps": 12, "revive_every": 5}
    config, prepared = tiny_run(tmp_path, model__embeddings__item=tables)
    whole = tmp_path / "whole"
    train_reference(config, prepared, store=Store(whole))
    for looks in (1, 2):
        broken = tmp_path / f"broken-{looks}"
        with pytest.raises(StoppedError):
            train_reference(
                config, prepared, store=Store(broken), watch=Watch(should_stop=after(looks))
            )
        train_reference(config, prepared, store=Store(broken))
        assert files_of(broken) == files_of(whole)


def test_a_model_whose_tables_warm_up_is_never_the_best(tmp_path: Path) -> None:
    """Its tables are still read in full: what is served is another model."""
    config, prepared = tiny_run(
        tmp_path,
        train__num_epochs=3,
        model__embeddings__item={"words": CODES | {"warmup_steps": 20}},
    )
    outcome = train_reference(config, prepared, store=Store(tmp_path / "run"))
    validations = [line for line in lines_of(tmp_path / "run") if line["kind"] == "validation"]
    assert [line["step"] for line in validations] == [13, 26, 39]
    assert outcome.best is not None
    assert outcome.best.step in (26, 39)
    assert outcome.best.value == max(line["recall@5"] for line in validations[1:])


@pytest.mark.parametrize(
    ("side", "feature"),
    [("item", "words"), ("query", "home"), ("context", "device"), ("query", "past")],
)
def test_a_run_shorter_than_its_warm_up_is_refused(side: str, feature: str, tmp_path: Path) -> None:
    """Whatever reads the table: a history's own too."""
    tables = {feature: CODES | {"warmup_steps": 26}}
    config, prepared = tiny_run(
        tmp_path, model__shared_tables=False, **{f"model__embeddings__{side}": tables}
    )
    told = rf"model\.embeddings: {side}\.{feature} warms up for 26 steps, the run has 26"
    with pytest.raises(ConfigError, match=told):
        train_reference(config, prepared)
