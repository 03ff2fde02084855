"""What prepare refuses, what it takes, and that it leaves nothing half-written."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from prepare_serial import SerialTasks, make_config, make_log, open_prepared, prepare_serially
from twotower.core.config import ExperimentConfig
from twotower.core.errors import ConfigError, DataError, InputError
from twotower.core.lease import Lease
from twotower.core.storage import Store
from twotower.data import course
from twotower.data.locate import find_prepared
from twotower.data.prepared import Prepared


def rewrite(path: Path, **columns: Any) -> None:
    """Replace or remove (None) columns of a Parquet file."""
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.drop_columns([name]) if name in table.column_names else table
        table = table if values is None else table.append_column(name, values)
    pq.write_table(table, path)


def refusal(config: ExperimentConfig, kind: type[InputError] = DataError) -> str:
    """Message of the error, after checking that nothing is left."""
    with pytest.raises(kind) as caught:
        prepare_serially(config)
    folder = Path(config.storage.prepared)
    assert not folder.exists() or not list(folder.iterdir())
    return str(caught.value)


def test_missing_source_names_the_key(tmp_path: Path) -> None:
    make_log(tmp_path)
    config = make_config(tmp_path, items={"path": str(tmp_path / "nowhere")})
    assert "data.items.path" in refusal(config)
    assert "nowhere" in refusal(config)


def test_folder_without_shards_is_refused(tmp_path: Path) -> None:
    make_log(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "_SUCCESS").touch()
    (empty / ".part-0.parquet.crc").touch()
    config = make_config(tmp_path, interactions={"path": str(empty)})
    assert "no parquet shard" in refusal(config)


def test_all_bad_shards_are_named_at_once(tmp_path: Path) -> None:
    cut, missing, drifted = make_log(tmp_path)
    cut.write_bytes(cut.read_bytes()[:-100])
    rewrite(missing, ts=None, tss=pa.array([1] * 300))
    rewrite(drifted, item_id=pa.array(range(300)))
    (tmp_path / "log" / "text.parquet").write_text("no parquet at all")
    good = tmp_path / "log" / "a-good.parquet"
    pq.write_table(pq.read_table(missing).rename_columns({"tss": "ts"}), good)
    message = refusal(make_config(tmp_path))
    assert f"{cut}: not a readable parquet file" in message
    assert f"{missing}: no column 'ts' (data.interactions.time); did you mean 'tss'?" in message
    assert f"{drifted}: column 'item_id' is integer, but text in {good}" in message
    assert "text.parquet" in message


def test_torn_page_is_refused_by_file(tmp_path: Path) -> None:
    path = make_log(tmp_path)[1]
    table = pq.read_table(path)
    pq.write_table(table, path, write_page_checksum=True, compression="none")
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 0xFF
    path.write_bytes(data)
    message = refusal(make_config(tmp_path))
    assert "part-1.parquet: damaged" in message


def test_extension_types_are_refused(tmp_path: Path) -> None:
    path = make_log(tmp_path)[0]
    storage = pa.array([b"0" * 16] * 300, pa.binary(16))
    rewrite(path, extra=pa.ExtensionArray.from_storage(pa.uuid(), storage))
    assert f"{path}: a column has an Arrow extension type" in refusal(make_config(tmp_path))


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        ({"words": {"kind": "categorical"}}, "data.features.item.words"),
        ({"brand": {"kind": "multi"}}, "data.features.item.brand"),
        ({"brand": {"kind": "dense"}}, "data.features.item.brand"),
        ({"size": {"kind": "categorical"}}, "data.features.item.size"),
        ({"colour": {"kind": "categorical"}}, "no column 'colour'"),
    ],
)
def test_wrong_kind_of_feature_names_the_key(
    feature: dict[str, Any], words: str, tmp_path: Path
) -> None:
    make_log(tmp_path)
    query = {"query_id": {"kind": "categorical"}}
    config = make_config(tmp_path, features={"item": feature, "query": query})
    message = refusal(config)
    assert words in message
    assert "items.parquet" in message


def test_too_few_pairs_everywhere_names_the_key(tmp_path: Path) -> None:
    make_log(tmp_path)
    config = make_config(tmp_path, min_query_pairs=1000)
    assert "data.min_query_pairs: no query has 1000" in refusal(config)


def test_query_feature_without_a_table_is_refused(tmp_path: Path) -> None:
    make_log(tmp_path)
    features = {
        "item": {"item_id": {"kind": "categorical"}},
        "query": {"age": {"kind": "categorical"}},
    }
    message = refusal(make_config(tmp_path, features=features), ConfigError)
    assert "data.features.query.age" in message
    assert "data.queries" in message


def test_catalogue_with_double_or_null_ids_is_refused(tmp_path: Path) -> None:
    make_log(tmp_path)
    path = tmp_path / "items.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(3, 2)]), path)
    message = refusal(make_config(tmp_path))
    assert "data.items: 2 ids stand more than once" in message
    assert repr(table["item_id"][3].as_py()) in message
    ids = pc.call_function("if_else", [pa.array([True] * 59 + [False]), table["item_id"], None])
    pq.write_table(table.set_column(0, "item_id", ids), path)
    assert "data.items: 1 rows have a null id" in refusal(make_config(tmp_path))


def test_too_many_bad_rows_are_refused_with_counts(tmp_path: Path) -> None:
    make_log(tmp_path, bad=True)
    message = refusal(make_config(tmp_path, max_dropped_share=0.001))
    assert "data.max_dropped_share" in message
    assert "24 of 900 rows" in message
    for reason in ("null_query 8", "null_item 8", "null_time 7", "unknown_item 1"):
        assert reason in message
    assert "part-0.parquet: row 0: null query" in message


def test_on_bad_row_error_names_the_first(tmp_path: Path) -> None:
    make_log(tmp_path, bad=True)
    message = refusal(make_config(tmp_path, on_bad_row="error"))
    assert "part-0.parquet: row 0: null query" in message


def test_no_usable_row_is_refused(tmp_path: Path) -> None:
    make_log(tmp_path)
    message = refusal(make_config(tmp_path, positive="rating > 10"))
    assert "none of 900 rows can be used (not_positive 900)" in message


def test_empty_part_is_refused(tmp_path: Path) -> None:
    make_log(tmp_path)
    split = {"kind": "time", "instants": [1200, 5000]}
    assert "no pair falls in the test part" in refusal(make_config(tmp_path, split=split))


@pytest.mark.parametrize(
    ("condition", "words"),
    [("rating >=", "data.positive"), ("rating + 1", "true or false"), ("rating >= 'x'", "rating")],
)
def test_bad_condition_is_refused(condition: str, words: str, tmp_path: Path) -> None:
    make_log(tmp_path)
    message = refusal(make_config(tmp_path, positive=condition), ConfigError)
    assert "data.positive" in message
    assert words in message


def test_condition_on_a_missing_column_is_refused(tmp_path: Path) -> None:
    make_log(tmp_path)
    message = refusal(make_config(tmp_path, positive="ratings >= 3"))
    assert "no column 'ratings' (data.positive); did you mean 'rating'?" in message


def test_empty_shards_and_foreign_files_are_legal(tmp_path: Path) -> None:
    paths = make_log(tmp_path)
    empty = pq.read_table(paths[0]).slice(0, 0)
    pq.write_table(empty, tmp_path / "log" / "part-9.parquet")
    (tmp_path / "log" / "_SUCCESS").touch()
    (tmp_path / "log" / "README.md").write_text("about the log")
    prepared = open_prepared(make_config(tmp_path))
    assert prepared.profile()["empty_shards"] == {"interactions": 1, "items": 0}
    assert prepared.manifest["counts"]["log_rows"] == 900


def test_text_formats_give_the_same_pairs(tmp_path: Path) -> None:
    paths = make_log(tmp_path, bad=True)
    wanted = sizes(open_prepared(make_config(tmp_path)))
    for n, path in enumerate(paths):
        table = pq.read_table(path)
        for folder in ("csv", "jsonl"):
            (tmp_path / folder).mkdir(exist_ok=True)
        pacsv.write_csv(table, tmp_path / "csv" / f"{n}.csv")
        lines = [pa_to_json(row) for row in table.to_pylist()]
        (tmp_path / "jsonl" / f"{n}.jsonl").write_text("\n".join(lines) + "\n")
    for kind in ("csv", "jsonl"):
        source = {"path": str(tmp_path / kind), "format": kind, "time": "ts"}
        prepared = open_prepared(make_config(tmp_path, interactions=source))
        assert sizes(prepared) == wanted


def pa_to_json(row: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in row.items() if value is not None})


def sizes(prepared: Prepared) -> dict[str, Any]:
    """What depends on the rows but not on the shards' digests."""
    names = ("counts", "dropped", "digests", "tables")
    return {name: prepared.manifest[name] for name in names}


def test_integer_ids_are_text(tmp_path: Path) -> None:
    paths = make_log(tmp_path)
    wanted = sizes(open_prepared(make_config(tmp_path)))
    number = {f"item-{n}": n for n in range(60)}
    for path in [*paths, tmp_path / "items.parquet"]:
        old = pq.read_table(path)["item_id"].to_pylist()
        rewrite(path, item_id=pa.array([number[name] for name in old], pa.int32()))
    prepared = open_prepared(make_config(tmp_path))
    assert set(prepared.item_ids()) == {str(n) for n in range(60)}
    assert sizes(prepared)["tables"] == wanted["tables"]


def test_query_table_may_lack_queries(tmp_path: Path) -> None:
    make_log(tmp_path)
    ids = [f"query-number-{n}" for n in range(30)] + ["never seen"]
    users = pa.table({"user": ids, "age": [str(n % 4) for n in range(31)]})
    pq.write_table(users, tmp_path / "users.parquet")
    features = {
        "item": {"item_id": {"kind": "categorical"}},
        "query": {"age": {"kind": "categorical"}, "user": {"kind": "categorical"}},
    }
    table = {"path": str(tmp_path / "users.parquet"), "id": "user"}
    prepared = open_prepared(make_config(tmp_path, queries=table, features=features))
    age, user = prepared.query_side().features
    known = {name: str(n % 4) for n, name in enumerate(ids)}
    vocabulary = pq.read_table(prepared.store.local_path("vocab/query.age.parquet"))
    number = dict(zip(vocabulary["value"].to_pylist(), vocabulary["id"].to_pylist(), strict=True))
    expected = [number[known[q]] if q in known else 0 for q in prepared.query_ids()]
    assert age.values.values.tolist() == expected  # type: ignore[union-attr]
    assert sorted(user.values.values.tolist()) == list(range(2, 47))  # type: ignore[union-attr]
    assert "never seen" not in set(prepared.query_ids())
    assert prepared.profile()["rows_without_features"]["query"] == 15


def test_second_call_does_nothing(tmp_path: Path) -> None:
    make_log(tmp_path)
    config = make_config(tmp_path)
    assert find_prepared(config) is None
    first = prepare_serially(config)
    assert not first.reused
    tasks = SerialTasks()
    again = course.run(config, tasks)
    assert again.reused
    assert again.path == first.path
    assert again.record == first.record
    assert tasks.stages == []
    found = find_prepared(config)
    assert found is not None
    assert found.path == first.path


def test_touched_or_moved_sources_are_recognised(tmp_path: Path) -> None:
    paths = make_log(tmp_path)
    config = make_config(tmp_path)
    first = prepare_serially(config)
    os.utime(paths[0], (1, 1))
    assert find_prepared(config) is None
    tasks = SerialTasks()
    assert course.run(config, tasks).path == first.path
    assert tasks.stages == ["inspect"]
    assert find_prepared(config) is not None
    (tmp_path / "log").rename(tmp_path / "moved")
    moved = make_config(tmp_path, interactions={"path": str(tmp_path / "moved"), "time": "ts"})
    assert prepare_serially(moved).reused


def test_changed_source_or_config_is_another_dataset(tmp_path: Path) -> None:
    paths = make_log(tmp_path)
    first = prepare_serially(make_config(tmp_path))
    other = prepare_serially(make_config(tmp_path, seed=1))
    pq.write_table(pq.read_table(paths[0]).slice(1), paths[0])
    third = prepare_serially(make_config(tmp_path))
    assert len({first.path, other.path, third.path}) == 3


def test_damaged_dataset_is_made_again(tmp_path: Path) -> None:
    make_log(tmp_path)
    config = make_config(tmp_path)
    first = prepare_serially(config)
    (Path(first.path) / "items.parquet").write_bytes(b"")
    again = prepare_serially(config)
    assert not again.reused
    Prepared.open(again.path, verify=True)


def test_failed_work_leaves_nothing_and_stale_scratch_is_swept(tmp_path: Path) -> None:
    make_log(tmp_path)
    config = make_config(tmp_path)

    class Failing(SerialTasks):
        def run(
            self, stage: str, kernel: Any, units: Any, base: Any = None, plan: Any = None
        ) -> Iterator[Any]:
            if stage == "split":
                raise KeyboardInterrupt
            return super().run(stage, kernel, units, base, plan)

    with pytest.raises(KeyboardInterrupt):
        course.run(config, Failing())
    folder = Path(config.storage.prepared)
    assert list(folder.iterdir()) == []
    stale = folder / ".scratch-killed-00000000"  # what a killed process leaves
    (stale / "out").mkdir(parents=True)
    (stale / ".lease").write_text("{}")
    held = folder / ".scratch-running-00000000"
    with Lease(Store(held)):
        result = prepare_serially(config)
        assert held.exists()
    assert not stale.exists()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [held.name, Path(result.path).name, f"{Path(result.path).name}.record.json"]
    )


def test_data_in_the_making_has_one_writer(tmp_path: Path) -> None:
    make_log(tmp_path)
    config = make_config(tmp_path)
    first = Path(prepare_serially(config).path)
    name = first.name
    (first / "manifest.json").unlink()
    with (
        Lease(Store(config.storage.prepared).child(f".scratch-{name}")),
        pytest.raises(InputError, match="in use"),
    ):
        prepare_serially(config)


def test_bundled_and_glob_paths_are_found(tmp_path: Path) -> None:
    make_log(tmp_path)
    source = {"path": str(tmp_path / "l*" / "part-[01].parquet"), "time": "ts"}
    prepared = open_prepared(make_config(tmp_path, interactions=source))
    assert prepared.manifest["counts"]["log_rows"] == 600
