"""Checkpoints written beside training: a copy is taken, one is in flight, nothing is lost."""

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from tiny_catalogue import tiny_experiment, tiny_state
from tiny_run import tiny_run
from twotower.core import files
from twotower.core.errors import DivergedError, RunError, StoppedError
from twotower.core.files import Disk
from twotower.core.storage import Store
from twotower.runtime.checkpoint import CheckpointStore
from twotower.runtime.checkpoint_writer import CheckpointWriter, Written
from twotower.runtime.json_lines import JsonLines
from twotower.runtime.recorder import EVENTS, Recorder, Watch
from twotower.runtime.reference import train_reference
from twotower.runtime.session import Place, run_session
from twotower.runtime.snapshot import _TYPES, Snapshot, TensorFile
from twotower.training.progress import Progress


class SlowDisk(Disk):
    """The real disk, whose syncs wait until they may go on."""

    def __init__(self) -> None:
        self.may_sync = threading.Event()
        self.asked = threading.Event()

    def sync(self, descriptor: int) -> None:
        self.asked.set()
        assert self.may_sync.wait(60)
        super().sync(descriptor)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    disk = SlowDisk()
    monkeypatch.setattr(files, "DISK", disk)
    yield disk
    disk.may_sync.set()


def writer_of(folder: Path, costs: list[Written] | None = None) -> CheckpointWriter:
    def after(cost: Written, _: Mapping[str, Any]) -> None:
        if costs is not None:
            costs.append(cost)

    return CheckpointWriter(
        CheckpointStore(Store(folder), keep=2), before=lambda: None, after=after
    )


def test_what_is_written_is_the_state_as_it_was_when_it_was_saved(
    tmp_path: Path, slow_disk: SlowDisk
) -> None:
    writer, weight = writer_of(tmp_path), torch.zeros(5)
    writer.save(1, {"model": {"weight": weight}}, {"best": None})
    weight += 1  # training goes on
    assert slow_disk.asked.wait(60)
    assert CheckpointStore(Store(tmp_path), 2).newest()[0] is None, "still being written"
    slow_disk.may_sync.set()
    writer.close()
    assert CheckpointStore(Store(tmp_path), 2).load(1).tensors["model"]["weight"].sum() == 0


def test_a_second_save_waits_for_the_first_and_says_how_long(
    tmp_path: Path, slow_disk: SlowDisk
) -> None:
    costs: list[Written] = []
    writer, weight = writer_of(tmp_path, costs), torch.zeros(5)
    writer.save(1, {"model": {"weight": weight}}, {"best": None})
    threading.Timer(0.3, slow_disk.may_sync.set).start()
    began = time.monotonic()
    writer.save(2, {"model": {"weight": weight + 1}}, {"best": None})
    assert time.monotonic() - began > 0.2
    writer.close()
    assert [cost.step for cost in costs] == [1, 2]
    assert costs[0].waited_s < 0.1
    assert 0.2 < costs[1].waited_s < 5
    store = CheckpointStore(Store(tmp_path), 2)
    assert [store.load(step).tensors["model"]["weight"][0] for step in (1, 2)] == [0, 1]


@pytest.mark.parametrize("at", ["save", "wait", "close"])
def test_an_error_of_the_writer_comes_out_once_at_the_next_call(tmp_path: Path, at: str) -> None:
    (tmp_path / "step-00000001").write_bytes(b"in the way")
    writer = writer_of(tmp_path)
    state = {"model": {"weight": torch.zeros(5)}}
    writer.save(1, state, {"best": None})
    with pytest.raises(RunError, match=r"step-00000001.*can't be written"):
        writer.save(2, state, {"best": None}) if at == "save" else getattr(writer, at)()
    if at != "close":
        writer.save(3, state, {"best": None})
        writer.close()
        assert CheckpointStore(Store(tmp_path), 2).steps() == [3]


def test_memory_is_taken_once(tmp_path: Path) -> None:
    snapshot, state = Snapshot(), {"model": {"weight": torch.zeros(500)}}
    places = set()
    for step in range(3):
        state["model"]["weight"] += step
        taken = snapshot.take(state, {})["model.safetensors"]
        places.add(torch.frombuffer(taken, dtype=torch.uint8).data_ptr())
    assert len(places) == 1
    snapshot.take({"model": {"weight": torch.zeros(501)}}, {})  # another layout is fine too


SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
NAMED = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8),
    st.tuples(st.sampled_from(list(_TYPES)), SHAPES),
    max_size=8,
)


@given(NAMED)
def test_files_are_byte_for_byte_those_of_safetensors(
    layout: dict[str, tuple[torch.dtype, tuple[int, ...]]],
) -> None:
    named = {
        name: (torch.arange(int(torch.Size(shape).numel())) % 2).reshape(shape).to(dtype)
        for name, (dtype, shape) in layout.items()
    }
    assert bytes(TensorFile(named).fill(named)) == safetensors.torch.save(named)


def test_a_tensor_that_is_no_block_of_memory_is_saved_as_it_reads() -> None:
    turned = torch.arange(6.0).reshape(2, 3).T
    found = safetensors.torch.load(bytes(TensorFile({"w": turned}).fill({"w": turned})))
    assert torch.equal(found["w"], turned)


def test_a_stopped_run_ends_when_its_checkpoint_stands(tmp_path: Path, slow_disk: SlowDisk) -> None:
    """Without the `with` that waits at the end: the loop itself must wait."""
    config, prepared = tiny_run(tmp_path)
    recorder = Recorder(Store(tmp_path / "run"), Watch(should_stop=lambda: True), keep=2)
    slow_disk.may_sync.set()
    with pytest.raises(StoppedError, match="after step 10"):
        run_session(config, prepared, recorder, Place(torch.device("cpu")))
    assert CheckpointStore(Store(tmp_path / "run" / "checkpoints"), 2).steps()[-1] == 10


def test_a_run_that_fails_still_commits_what_it_saved(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path)

    def die(line: dict[str, Any]) -> None:
        if line["step"] == 12:
            raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        train_reference(config, prepared, store=Store(tmp_path / "run"), watch=Watch(on_line=die))
    assert CheckpointStore(Store(tmp_path / "run" / "checkpoints"), 2).steps() == [5, 10]


def test_a_failed_write_is_noted_on_the_error_that_ended_the_run(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path)

    def die(line: dict[str, Any]) -> None:
        if line["step"] == 4:
            (tmp_path / "run" / "checkpoints").mkdir()
            (tmp_path / "run" / "checkpoints" / "step-00000005").write_bytes(b"in the way")
        if line["step"] == 8:
            raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError) as caught:
        train_reference(config, prepared, store=Store(tmp_path / "run"), watch=Watch(on_line=die))
    assert any("step-00000005" in note for note in caught.value.__notes__)


def test_events_say_what_each_checkpoint_cost(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path)
    train_reference(config, prepared, store=Store(tmp_path / "run"))
    lines = [e for e in events_of(tmp_path / "run") if e["event"] == "checkpoint"]
    assert [line["step"] for line in lines] == [5, 10, 13, 15, 20, 25, 26]
    assert {"waited_s", "copied_s", "written_s", "cpu_s", "megabytes"} <= lines[0].keys()


@pytest.mark.parametrize("how", ["deleted", "damaged", "unfinished"])
def test_what_a_resumed_run_skipped_and_why_is_in_its_events(tmp_path: Path, how: str) -> None:
    config, prepared = tiny_run(tmp_path)
    run = tmp_path / "run"

    def die(line: dict[str, Any]) -> None:
        if line["step"] == 12:
            raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        train_reference(config, prepared, store=Store(run), watch=Watch(on_line=die))
    newest = run / "checkpoints" / "step-00000010"
    if how == "deleted":
        Store(run).delete("checkpoints/step-00000010")
    else:
        (newest / ("manifest.json" if how == "unfinished" else "state.json")).unlink()
    (run / "checkpoints" / ".tmp-left").write_bytes(b"x")
    train_reference(config, prepared, store=Store(run))
    told = [event["message"] for event in events_of(run) if event["event"] == "skipped"]
    assert told[0] == "checkpoints/.tmp-left: left by a process that died; deleted"
    assert "step-00000010" in told[1]
    reasons = {"deleted": "is gone", "damaged": "no such file", "unfinished": "never committed"}
    assert reasons[how] in told[1]
    assert len(told) == 2
    starts = [event["step"] for event in events_of(run) if event["event"] == "start"]
    assert starts == [0, 5]


def test_a_weight_that_is_not_finite_is_not_saved_but_a_sum_that_overflows_is(
    tmp_path: Path,
) -> None:
    state = tiny_state(tiny_experiment(), dtype=torch.float32)
    recorder = Recorder(Store(tmp_path), Watch(), keep=2)
    state.model.store.weight.fill_(3e38)
    recorder.save(state, Progress())
    state.model.store.weight[3, 1] = float("nan")
    with pytest.raises(DivergedError, match=r"store\.weight is not finite"):
        recorder.save(state, Progress())
    recorder.close()


def events_of(run: Path) -> list[dict[str, Any]]:
    return JsonLines(Store(run), EVENTS).lines()
