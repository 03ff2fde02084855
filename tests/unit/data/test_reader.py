import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prepared_fixture import Row, Shape, write_prepared
from twotower.core.errors import ConfigError, DataError
from twotower.core.types import Batch
from twotower.data import order, reader
from twotower.data.prepared import Prepared
from twotower.data.reader import BatchReader

SHAPES = (
    Shape(num_train=203, lanes=4, bucket_rows=60),
    Shape(num_train=130, lanes=8, bucket_rows=21, seed=1),
    Shape(num_train=390, lanes=64, bucket_rows=150, seed=2),
    Shape(num_train=33, lanes=8, bucket_rows=5, seed=3, time=False),  # buckets with empty lanes
    Shape(num_train=1, lanes=4, seed=4),
    Shape(num_train=65, lanes=64, bucket_rows=64, seed=5),  # all lanes but one are short
)
WORLDS = st.sampled_from([1, 2, 3, 4, 8])


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Prepared, list[Row]]]:
    made: list[tuple[Prepared, list[Row]]] = []
    for shape in SHAPES:
        folder = tmp_path_factory.mktemp("prepared")
        rows = write_prepared(folder, shape)
        made.append((Prepared.open(folder), rows))
    return made


def slow_global_batches(
    prepared: Prepared, rows: list[Row], batch_size: int, epoch: int
) -> list[list[Row | None]]:
    """Every global batch by the words of the design: lane by lane, row by row; None is padding."""
    lanes = prepared.lanes
    streams: list[list[Row]] = [[] for _ in range(lanes)]
    for index in order.bucket_order(prepared.seed, epoch, len(prepared.buckets)):
        bucket = prepared.buckets[index]
        key = order.partition_key(prepared.seed, epoch, int(index))
        inside = range(bucket.first, bucket.first + bucket.rows)
        for lane in range(lanes):
            part = [rows[p] for p in inside if p % lanes == lane]
            own = np.array([lane])
            shuffle = order.partition_orders(key, bucket.first, bucket.rows, lanes, own)
            streams[lane] += [part[j] for j in shuffle]
    each = batch_size // lanes
    steps = -(-max(len(stream) for stream in streams) // each)
    return [
        [
            stream[at] if at < len(stream) else None
            for stream in streams
            for at in range(step * each, (step + 1) * each)
        ]
        for step in range(steps)
    ]


def assert_holds(batch: Batch, wanted: list[Row | None]) -> None:
    for place, position in enumerate(batch.position):
        row = wanted[position]
        values = (batch.query[place], batch.item[place], batch.weight[place])
        context = batch.context["device"][place]
        if row is None:
            assert (*values, context) == (0, 0, 0, 0)
        else:
            assert (*values, context) == (row.query, row.item, row.weight, row.device)


def same(one: Batch, other: Batch) -> bool:
    arrays = ("query", "item", "weight", "position")
    return one.step == other.step and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(range(len(SHAPES))), WORLDS, st.integers(1, 9), st.integers(0, 3))
def test_ranks_together_hold_the_global_batch(
    datasets: list[tuple[Prepared, list[Row]]], which: int, world: int, each: int, epoch: int
) -> None:
    prepared, rows = datasets[which]
    world = min(world, prepared.lanes)
    size = each * prepared.lanes
    wanted = slow_global_batches(prepared, rows, size, epoch)
    readers = [BatchReader(prepared, batch_size=size, rank=r, world=world) for r in range(world)]
    steps = list(zip(*(r.batches(epoch) for r in readers), strict=True))
    assert len(steps) == readers[0].steps_per_epoch == len(wanted)
    for step, (batches, row) in enumerate(zip(steps, wanted, strict=True)):
        places = np.concatenate([batch.position for batch in batches])
        assert sorted(places) == list(range(size))
        for batch in batches:
            assert_holds(batch, row)
            assert (batch.epoch, batch.step) == (epoch, epoch * len(wanted) + step)
            assert batch.query.dtype == batch.item.dtype == batch.position.dtype == np.int64
            assert batch.weight.dtype == np.float32
            assert batch.history is None


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(range(len(SHAPES))), st.integers(1, 9), st.integers(0, 5))
def test_every_row_is_used_once_and_only_the_last_step_is_padded(
    datasets: list[tuple[Prepared, list[Row]]], which: int, each: int, epoch: int
) -> None:
    prepared, rows = datasets[which]
    batches = list(BatchReader(prepared, batch_size=each * prepared.lanes).batches(epoch))
    for batch in batches[:-1]:
        assert (batch.weight > 0).all()
    real = [batch.weight > 0 for batch in batches]
    used = [
        pair
        for batch, mask in zip(batches, real, strict=True)
        for pair in zip(batch.query[mask].tolist(), batch.item[mask].tolist(), strict=True)
    ]
    assert sorted(used) == sorted((row.query, row.item) for row in rows)


def test_epochs_differ_in_order(datasets: list[tuple[Prepared, list[Row]]]) -> None:
    prepared, _ = datasets[0]
    batches = BatchReader(prepared, batch_size=32)
    orders = [np.concatenate([b.item for b in batches.batches(epoch)]) for epoch in (0, 1, 0)]
    assert (orders[0] != orders[1]).mean() > 0.5
    assert (orders[0] == orders[2]).all()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(range(len(SHAPES))), WORLDS, st.integers(1, 5), st.data())
def test_resuming_at_any_step_equals_the_unbroken_suffix(
    datasets: list[tuple[Prepared, list[Row]]],
    which: int,
    world: int,
    each: int,
    data: st.DataObject,
) -> None:
    prepared, _ = datasets[which]
    world = min(world, prepared.lanes)
    rank = data.draw(st.integers(0, world - 1))
    batches = BatchReader(prepared, batch_size=each * prepared.lanes, rank=rank, world=world)
    step = data.draw(st.integers(0, batches.steps_per_epoch))
    whole, suffix = list(batches.batches(1)), list(batches.batches(1, step))
    assert len(suffix) == len(whole) - step
    assert all(same(a, b) for a, b in zip(whole[step:], suffix, strict=True))


def test_skipping_reads_no_earlier_bucket(
    datasets: list[tuple[Prepared, list[Row]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, _ = datasets[0]
    read: list[str] = []
    real = Prepared.read_bucket

    def counting(self: Prepared, bucket: object, lanes: object) -> object:
        read.append(bucket.file)  # pyright: ignore[reportAttributeAccessIssue]
        return real(self, bucket, lanes)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Prepared, "read_bucket", counting)
    batches = BatchReader(prepared, batch_size=4)
    list(batches.batches(0, batches.steps_per_epoch - 2))
    assert len(read) == 1


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([0, 1, 3]), st.integers(1, 8), st.integers(0, 3))
def test_history_is_the_older_positives_without_the_own_item(
    datasets: list[tuple[Prepared, list[Row]]], which: int, max_values: int, epoch: int
) -> None:
    prepared, rows = datasets[which]
    has_time = SHAPES[which].time
    batches = BatchReader(prepared, batch_size=3 * prepared.lanes, history=max_values)
    times = {(row.query, row.item): row.time for row in rows}
    for batch in batches.batches(epoch):
        assert batch.history is not None
        assert batch.history.num_rows == len(batch.query)
        for place, weight in enumerate(batch.weight):
            found = batch.history.row(place).tolist()
            if weight == 0:
                assert found == []
                continue
            query, item = int(batch.query[place]), int(batch.item[place])
            now = times[query, item]
            known = [
                (-row.time, row.item)
                for row in rows
                if row.query == query and row.item != item and (row.time < now or not has_time)
            ]
            assert found == [i for _, i in sorted(known)][:max_values]


def test_data_larger_than_the_cache_gives_the_same_batches(
    datasets: list[tuple[Prepared, list[Row]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, _ = datasets[1]
    kept = BatchReader(prepared, batch_size=16, history=3)
    monkeypatch.setattr(reader, "CACHE_BYTES", 0)
    streamed = BatchReader(prepared, batch_size=16, history=3)
    for epoch in (0, 0, 1):
        pairs = zip(kept.batches(epoch), streamed.batches(epoch), strict=True)
        assert all(same(a, b) for a, b in pairs)


def read_ahead_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("read-ahead")]


def test_closing_the_iterator_ends_the_thread(
    datasets: list[tuple[Prepared, list[Row]]],
) -> None:
    iterator: Iterator[Batch] = BatchReader(datasets[0][0], batch_size=8).batches(0)
    next(iterator)
    assert read_ahead_threads()
    del iterator
    assert not read_ahead_threads()


def test_damage_is_raised_in_the_consumer_and_ends_the_thread(tmp_path: Path) -> None:
    write_prepared(tmp_path, Shape(num_train=600, bucket_rows=300))
    prepared = Prepared.open(tmp_path)
    name = prepared.buckets[int(order.bucket_order(0, 0, 2)[1])].file
    data = bytearray((tmp_path / name).read_bytes())
    data[60] ^= 1  # inside the first data page: the file's size and footer still agree
    (tmp_path / name).write_bytes(bytes(data))
    batches = BatchReader(prepared, batch_size=40).batches(0)
    assert next(batches).step == 0
    with pytest.raises(DataError, match=rf"{name}: damaged"):
        list(batches)
    assert not read_ahead_threads()


def test_a_bucket_whose_row_groups_are_not_the_lanes_is_refused(tmp_path: Path) -> None:
    write_prepared(tmp_path, Shape(num_train=60))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["buckets"][0]["rows"] = 64
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"bucket-00000\.parquet: .*row groups are not the lanes"):
        list(BatchReader(Prepared.open(tmp_path), batch_size=8).batches(0))


def test_bad_requests_are_refused_before_reading(
    datasets: list[tuple[Prepared, list[Row]]], tmp_path: Path
) -> None:
    prepared, _ = datasets[0]
    with pytest.raises(ConfigError, match=r"train\.batch_size"):
        BatchReader(prepared, batch_size=30)
    with pytest.raises(ConfigError, match=r"train\.num_workers"):
        BatchReader(prepared, batch_size=32, rank=0, world=5)
    batches = BatchReader(prepared, batch_size=32)
    with pytest.raises(ValueError, match="an epoch has 7 steps"):
        batches.batches(0, 8)
    assert list(batches.batches(0, 7)) == []
    write_prepared(tmp_path, Shape(history=False))
    with pytest.raises(DataError, match="without a history feature"):
        BatchReader(Prepared.open(tmp_path), batch_size=32, history=3)
