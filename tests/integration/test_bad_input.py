"""Bad input is one clear line with exit code 2, before work starts, and leaves nothing half-written."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from twotower import cli
from twotower.core.config import Cluster
from twotower.core.lease import Lease
from twotower.core.loading import load_config
from twotower.core.records import run_name
from twotower.core.storage import Store
from twotower.datasets.synthetic import write_synthetic
from twotower.runtime.cluster import connect

CONFIG = """
name: small
data:
  interactions: {path: log, time: ts}
  items: {path: items.parquet}
  features:
    item: {id: {kind: categorical, column: item_id}, category: {kind: categorical}, tags: {kind: multi}}
    query: {query: {kind: categorical, column: query_id}}
train: {num_epochs: 1, batch_size: 64}
"""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with connect(Cluster(num_cpus=2, object_store_mb=128)):
        yield


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_synthetic(
        tmp_path / "made", rows=2000, queries=100, items=80, shards=2, seed=0, clusters=4
    )
    (tmp_path / "made" / "interactions").rename(tmp_path / "log")
    (tmp_path / "made" / "items.parquet").rename(tmp_path / "items.parquet")
    (tmp_path / "small.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Run a command that must be refused; its message."""
    monkeypatch.setattr("sys.argv", ["twotower", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    _, found, message = capsys.readouterr().err.partition("twotower: ")
    assert found
    assert ended.value.code == 2, message
    assert "Traceback" not in message
    return message


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "log").glob("*.parquet"))


def cut(folder: Path) -> None:
    path = shards(folder)[1]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_parquet(folder: Path) -> None:
    cut(folder)
    shards(folder)[0].write_bytes(b"hello")


def drift(folder: Path) -> None:
    path = shards(folder)[1]
    frame = pl.read_parquet(path).with_columns(pl.col("ts").cast(pl.String))
    frame.write_parquet(path)


def nulls(folder: Path) -> None:
    path = shards(folder)[0]
    frame = pl.read_parquet(path)
    keep = pl.int_range(pl.len()) % 20 != 0
    frame.with_columns(pl.when(keep).then(pl.col("item_id"))).write_parquet(path)


def unknown_items(folder: Path) -> None:
    path = shards(folder)[0]
    pl.read_parquet(path).with_columns(pl.lit("nowhere").alias("item_id")).write_parquet(path)


def twice(folder: Path) -> None:
    table = pq.read_table(folder / "items.parquet")
    pq.write_table(pa.concat_tables([table, table.slice(0, 3)]), folder / "items.parquet")


DATA = {
    "truncated shard": (cut, [], ["part-00001.parquet"]),
    "all bad shards at once": (no_parquet, [], ["part-00000.parquet", "part-00001.parquet"]),
    "drifted type": (drift, [], ["part-00001.parquet", "ts"]),
    "null ids": (nulls, [], ["null_item", "part-00000.parquet", "max_dropped_share"]),
    "unknown items": (unknown_items, [], ["max_dropped_share"]),
    "duplicate ids": (twice, [], ["data.items", "i0"]),
    "missing query column": (
        None,
        ["data.interactions.query=querry_id"],
        ["querry_id", "query_id"],
    ),
    "missing feature column": (
        None,
        ["data.features.item.category.column=categroy"],
        ["categroy", "category"],
    ),
    "wrong kind for the column": (None, ["data.features.item.tags.kind=categorical"], ["tags"]),
    "missing file": (None, ["data.items.path=itmes.parquet"], ["itmes.parquet"]),
    "column of the condition": (None, ["data.positive=stars > 3"], ["stars"]),
    "nothing is positive": (None, ["data.positive=ts < 0"], ["positive"]),
}


@pytest.mark.parametrize("case", DATA)
def test_bad_data_is_refused_by_name(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, overrides, words = DATA[case]
    if spoil is not None:
        spoil(folder)
    arguments = ["prepare", "small.yaml"]
    for override in overrides:
        arguments += ["--set", override]
    message = refused(arguments, monkeypatch, capsys)
    assert all(word in message for word in words), message
    assert not list(folder.glob("prepared/*/manifest.json"))
    assert not (folder / "runs").exists()


BAD_RUN = {
    "unknown key": ("ssl.wieght=1", "ssl.wieght"),
    "wrong type": ("train.num_epochs=many", "train.num_epochs"),
    "temperature": ("loss.temperature=0", "loss.temperature"),
    "mask rate": ("ssl.mask_rate=1", "ssl.mask_rate"),
    "run name": ("name=../../up", "name"),
    "batch": ("train.batch_size=100", "data.lanes"),
    "workers": ("train.num_workers=8", "8 workers"),
}


@pytest.mark.parametrize("case", BAD_RUN)
def test_a_bad_run_is_refused_before_it_starts(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    override, word = BAD_RUN[case]
    message = refused(["train", "small.yaml", "--set", override], monkeypatch, capsys)
    assert word in message
    assert not (folder / "runs").exists()
    assert not (folder / "prepared").exists()


def test_a_run_directory_in_use_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = run_name(load_config("small.yaml").config)
    with Lease(Store(folder / "runs").child(name)):
        message = refused(["train", "small.yaml"], monkeypatch, capsys)
    assert "in use" in message
    assert name in message


def spaces() -> dict[str, tuple[str, str]]:
    return {
        "unknown path": ("ssl.wieght: {low: 0.1, high: 1}", "ssl.wieght"),
        "out of range": ("ssl.temperature: {low: 0, high: 1}", "ssl.temperature"),
        "upside down": ("ssl.weight: {low: 2, high: 1}", "ssl.weight"),
        "empty": ("{}", "space"),
    }


@pytest.mark.parametrize("case", spaces())
def test_a_bad_space_is_refused_before_a_trial(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, word = spaces()[case]
    (folder / "space.yaml").write_text(text)
    message = refused(["tune", "small.yaml", "--space", "space.yaml"], monkeypatch, capsys)
    assert word in message
    assert not (folder / "runs").exists()
