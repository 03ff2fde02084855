"""The Debian files in the package: totals, size, and nobody's name."""

import re
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from twotower.core.errors import DataError
from twotower.datasets import debian
from twotower.datasets.debian import INTERACTION_SCHEMA, debian_files
from twotower.datasets.debian_items import ITEM_SCHEMA, MIN_HOST_SOURCES

MAX_BUNDLED_BYTES = 4_000_000


@pytest.fixture(scope="module")
def bundled_items() -> pl.DataFrame:
    return pl.read_parquet(debian_files().items)


@pytest.fixture(scope="module")
def bundled_log() -> pl.DataFrame:
    return pl.read_parquet(debian_files().interactions / "*.parquet")


def test_bundled_totals_are_those_of_the_readme(
    bundled_log: pl.DataFrame, bundled_items: pl.DataFrame
):
    assert bundled_items.height == bundled_items["item_id"].n_unique() == 63_666
    assert bundled_log.height == 300_519
    assert bundled_log["query_id"].n_unique() == 57_055
    assert bundled_log["item_id"].n_unique() == 42_338
    by_relation = dict(bundled_log["relation"].value_counts().iter_rows())
    assert by_relation == {"depends": 248_336, "recommends": 28_929, "suggests": 23_254}
    weak = bundled_log.filter(pl.col("relation") != "depends")
    assert weak.select("query_id", "item_id").n_unique() == 52_152
    readme = (debian_files().items.parent / "README.md").read_text(encoding="utf-8")
    assert all(f"{n:,}" in readme for n in (63_666, 300_519, 57_055, 42_338, 248_336, 52_152))


def test_bundled_files_have_the_schema_and_fit_the_budget():
    files = debian_files()
    shards = sorted(files.interactions.iterdir())
    assert [shard.name for shard in shards] == [f"part-0{n}.parquet" for n in range(4)]
    assert sum(file.stat().st_size for file in [*shards, files.items]) <= MAX_BUNDLED_BYTES
    for file, schema in [
        *((shard, INTERACTION_SCHEMA) for shard in shards),
        (files.items, ITEM_SCHEMA),
    ]:
        assert pq.read_schema(file).names == schema.names
        assert pq.read_table(file).cast(schema).num_rows > 0


def test_bundled_edges_stay_in_the_catalogue(
    bundled_log: pl.DataFrame, bundled_items: pl.DataFrame
):
    names = bundled_items["item_id"].implode()
    assert bundled_log["query_id"].is_in(names).all()
    assert bundled_log["item_id"].is_in(names).all()
    assert not (bundled_log["query_id"] == bundled_log["item_id"]).any()
    assert not bundled_log.select("query_id", "item_id", "relation").is_duplicated().any()
    assert not any(bundled_log.null_count().row(0))
    assert bundled_log["position"].min() == 0


def test_bundled_items_hold_no_address_and_no_name_of_a_person(bundled_items: pl.DataFrame):
    assert all(re.fullmatch(r"m\d{4}", m) for m in bundled_items["maintainer"].unique())
    for column, dtype in bundled_items.schema.items():
        values = bundled_items[column].explode() if dtype == pl.List else bundled_items[column]
        assert not values.drop_nulls().str.contains("@", literal=True).any(), column
    words = bundled_items["summary_words"].explode().drop_nulls()
    # Given names that stand in synopses of this release, with the surnames of authors.
    assert not words.is_in(["daniel", "greg", "john", "simon", "steve", "torsten"]).any()
    hosts = bundled_items.filter(pl.col("homepage_host").is_not_null())
    users = hosts.group_by("homepage_host").agg(pl.col("source").n_unique())
    assert (users["source"] >= MIN_HOST_SOURCES).all()


def test_bundled_summary_words_are_no_sentences(bundled_items: pl.DataFrame):
    words = bundled_items["summary_words"]
    assert (words == words.list.unique().list.sort()).all()
    assert not words.explode().drop_nulls().str.contains(r"[\sA-Z]").any()


def test_missing_bundled_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(debian, "__file__", str(tmp_path / "debian.py"))
    with pytest.raises(DataError, match="missing"):
        debian_files()
