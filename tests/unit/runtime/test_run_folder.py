"""A run directory: whose it is, what may change, what its record says."""

from pathlib import Path

import polars as pl
import pytest

from prepare_serial import make_config, make_log, open_prepared
from tiny_run import tiny_run
from twotower.core.errors import ConfigError, DataError
from twotower.core.loading import with_overrides
from twotower.core.records import command
from twotower.data.prepared import Prepared
from twotower.runtime.run_folder import RunFolder, read_config


def test_a_run_is_begun_ended_and_begun_again(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path)
    folder = RunFolder(config)
    assert not folder.is_done
    assert not folder.store.exists(), "looking writes nothing"
    folder.begin(prepared, {"ssl.weight": "--set"})
    folder.add_stage("train", 2.0, 100.0)
    folder.end("stopped", "asked to")
    again = RunFolder(config)
    assert again.record["status"] == "stopped"
    assert again.record["command"] == command()
    again.check_prepared(prepared)
    again.begin(prepared, None)
    assert again.record["status"] == "running"
    again.add_stage("train", 3.0, 90.0)
    again.end("done", "done", step=5)
    done = RunFolder(config)
    assert done.is_done
    assert done.record["stages"] == [{"name": "train", "seconds": 5.0, "peak_memory_mb": 100.0}]
    assert [attempt["exit_reason"] for attempt in done.record["attempts"]] == ["asked to", "done"]
    assert done.record["provenance"] == {"ssl.weight": "--set"}
    assert read_config(done.store) == config


def test_what_does_not_change_the_result_may_change(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path)
    RunFolder(config).begin(prepared, None)
    other = with_overrides(config, {"train.num_workers": 2, "train.threads": 2})
    assert RunFolder(other).name == RunFolder(config).name


def test_a_directory_of_another_config_is_refused_with_the_difference(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path)
    folder = RunFolder(config)
    folder.begin(prepared, None)
    text = (folder.store.local_path("config.yaml")).read_text()
    folder.store.write_bytes("config.yaml", text.replace("weight: 0.5", "weight: 0.75").encode())
    with pytest.raises(ConfigError, match=r"ssl\.weight: 0\.75 -> 0\.5"):
        RunFolder(config)


def test_other_data_is_refused(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path)
    folder = RunFolder(config)
    folder.begin(prepared, None)
    manifest = {**prepared.manifest, "fingerprint": "f" * 64}
    with pytest.raises(DataError, match=r"began with other data .*fingerprint"):
        folder.check_prepared(Prepared(prepared.store, manifest))


CHANGES = {
    "edited": r"log/part-1\.parquet has changed\)",
    "added": r"log/part-3\.parquet is new\)",
    "gone": r"log/part-2\.parquet is gone\)",
    "all": r"part-0\.parquet has changed; .*part-1\.parquet has changed; 1 more\)",
}


@pytest.mark.parametrize("change", CHANGES)
def test_shards_that_changed_between_two_attempts_are_named(tmp_path: Path, change: str) -> None:
    shards = make_log(tmp_path)
    config = make_config(tmp_path)
    folder = RunFolder(config)
    folder.begin(open_prepared(config), None)
    if change == "edited":
        pl.read_parquet(shards[1]).reverse().write_parquet(shards[1])
    elif change == "added":
        pl.read_parquet(shards[0]).write_parquet(tmp_path / "log" / "part-3.parquet")
    elif change == "gone":
        shards[2].unlink()
    else:
        make_log(tmp_path, seed=1)
    again = RunFolder(config)
    with pytest.raises(DataError, match=r"began with other data \(.*" + CHANGES[change]):
        again.check_prepared(open_prepared(config))


def test_shards_that_were_only_touched_are_the_same_data(tmp_path: Path) -> None:
    shards = make_log(tmp_path)
    config = make_config(tmp_path)
    RunFolder(config).begin(open_prepared(config), None)
    shards[1].touch()
    RunFolder(config).check_prepared(open_prepared(config))
