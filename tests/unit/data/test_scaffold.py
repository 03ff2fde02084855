import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from prepare_serial import open_prepared
from twotower.cli import app
from twotower.core.config import ExperimentConfig
from twotower.core.errors import ConfigError, DataError
from twotower.core.loading import build_config, load_config, parse_yaml
from twotower.data import positive
from twotower.data.raw_columns import guess_kind
from twotower.data.raw_links import sibling_shares
from twotower.data.raw_profile import DataProfile, profile
from twotower.data.raw_roles import Roles, guess_roles
from twotower.data.raw_tables import open_table
from twotower.data.raw_warnings import warnings
from twotower.data.scaffold import guess_config, guess_name, guess_sizes
from twotower.datasets.debian import debian_files

SHARED = Path(__file__).parents[4] / "shared" / "data"

Columns = Mapping[str, Sequence[Any]]


def write(path: Path, columns: Columns) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(dict(columns), strict=False).write_parquet(path)
    return str(path)


def movies(folder: Path, **more: Sequence[Any]) -> tuple[str, str]:
    """200 ratings by 20 users of the first 40 of 50 movies; users and movies are small numbers."""
    rows = range(200)
    log = {
        "userId": [n % 20 for n in rows],
        "movieId": [(n * 7 + n // 20) % 40 for n in rows],
        "rating": [1 + n % 5 for n in rows],
        "timestamp": [1_500_000_000 + n for n in rows],
    }
    catalogue = {
        "movieId": list(range(50)),
        "title": [f"Movie {n}" for n in range(50)],
        "genres": [["a", "b"][: n % 3] for n in range(50)],
        "studio": [f"s{n % 4}" for n in range(50)],
        "budget": [float(n) for n in range(50)],
        **more,
    }
    return write(folder / "ml" / "ratings.parquet", log), write(
        folder / "ml" / "movies.parquet", catalogue
    )


def graph(folder: Path, links: Sequence[tuple[str | None, str | None]], **more: Any) -> DataProfile:
    """Profile a log of links between the pages a..h."""
    log = {"source": [link[0] for link in links], "target": [link[1] for link in links]}
    catalogue = {"page": list("abcdefgh"), "topic": list("xxyyxxyy"), **more}
    return profile(
        write(folder / "wiki" / "links.parquet", log), write(folder / "pages.parquet", catalogue)
    )


def roles_of(folder: Path, log: Columns, catalogue: Columns) -> Roles:
    return guess_roles(
        open_table(write(folder / "l.parquet", log)),
        open_table(write(folder / "c.parquet", catalogue)),
        None,
    )


def init(*arguments: str) -> None:
    CliRunner().invoke(app, ["init", *arguments], catch_exceptions=False)


def uncommented(text: str, start: str) -> ExperimentConfig:
    """The config of a text in which the comment that starts so is a line of its own."""
    assert text.count(f"# {start}") == 1
    return build_config(parse_yaml(text.replace(f"# {start}", start), "guess"), "guess")


def config_of(found: DataProfile) -> ExperimentConfig:
    return build_config(parse_yaml(guess_config(found), "guess"), "guess")


# -- columns ------------------------------------------------------------------------------------


def test_columns_are_found_by_name_and_by_overlap_with_the_catalogue(tmp_path: Path) -> None:
    roles = profile(*movies(tmp_path)).roles
    assert (roles.query, roles.item, roles.item_id) == ("userId", "movieId", "movieId")
    assert (roles.time, roles.rating) == ("timestamp", "rating")
    # Users 0..19 are movies 0..19 by number only: their name says that they are people.
    assert roles.query_overlap == 1
    assert not roles.queries_are_items


def test_unnamed_columns_are_found_by_values_alone(tmp_path: Path) -> None:
    log = {"a": ["u1", "u2", "u1"], "b": ["p1", "p2", "p9"]}
    catalogue = {"k": ["p1", "p2", "p3"], "c": ["x", "x", "y"]}
    found = profile(write(tmp_path / "l.parquet", log), write(tmp_path / "c.parquet", catalogue))
    assert (found.roles.query, found.roles.item, found.roles.item_id) == ("a", "b", "k")
    assert found.roles.item_overlap == pytest.approx(2 / 3)


def test_queries_of_the_catalogue_are_items(tmp_path: Path) -> None:
    found = graph(tmp_path, [("a", "b"), ("b", "c"), ("d", "a")])
    assert found.roles.queries_are_items
    assert (found.roles.query, found.roles.item) == ("source", "target")


def test_a_query_table_is_joined_by_its_own_id(tmp_path: Path) -> None:
    log, catalogue = movies(tmp_path)
    users = write(
        tmp_path / "users.parquet",
        {"uid": list(range(5)), "age": [1, 2, 1, 2, 1], "joined": [date(2020, 1, 1)] * 5},
    )
    found = profile(log, catalogue, users)
    assert (found.roles.query, found.roles.query_id) == ("userId", "uid")
    assert found.counts.queries_without_features == 15
    config = config_of(found)
    assert config.data.queries is not None
    assert config.data.queries != "items"
    assert config.data.queries.id == "uid"
    assert set(config.data.features.query) == {"uid", "age", "history"}


@pytest.mark.parametrize(
    ("query", "ids", "item", "measure"),
    [
        ("borrower", [f"b{n % 17}" for n in range(300)], "isbn_no", "rating"),
        ("buyer", [1000 + n % 90 for n in range(300)], "sku", "quantity"),
        ("user_id", [n % 90 for n in range(300)], "movie_id", "user_rating"),
        ("reader", [n % 90 for n in range(300)], "title", "book_score"),
        ("order_count_id", [1000 + n % 90 for n in range(300)], "to", "from_date"),
    ],
)
@pytest.mark.parametrize("measure_first", [False, True])
def test_ratings_and_amounts_are_neither_queries_nor_items(
    tmp_path: Path, query: str, ids: list[Any], item: str, measure: str, measure_first: bool
) -> None:
    # Some items are unknown, and every rating is the number of an item.
    columns = {query: ids, item: [n % 130 for n in range(300)], measure: [1, 2, 3, 4, 5] * 60}
    names = [measure, query, item] if measure_first else [query, item, measure]
    roles = roles_of(tmp_path, {n: columns[n] for n in names}, {"key": list(range(1, 121))})
    assert (roles.query, roles.item) == (query, item)
    assert not roles.queries_are_items


def test_a_measure_is_the_query_where_nothing_else_is_left(tmp_path: Path) -> None:
    log = {"rating": [1, 2, 3, 4, 5] * 4, "item": list(range(20))}
    roles = roles_of(tmp_path, log, {"item": list(range(200))})
    assert (roles.query, roles.rating) == ("rating", "rating")
    assert not roles.queries_are_items


def test_an_id_of_rates_is_no_rating(tmp_path: Path) -> None:
    log = {"rate_id": list(range(900, 920)), "user": [1, 2] * 10, "item": [1, 2] * 10}
    roles = roles_of(tmp_path, {**log, "stars": [1, 5] * 10}, {"item": list(range(20))})
    assert roles.rating == "stars"


def test_few_small_numbers_are_no_items_whatever_their_name(tmp_path: Path) -> None:
    log = {
        "branch": [f"b{n % 9}" for n in range(300)],
        "shelf": [1 + n % 5 for n in range(300)],
        "a": list(range(300)),
    }
    catalogue = {"k": list(range(300))}
    assert roles_of(tmp_path, log, catalogue).query == "branch"
    shelves = {name: log[name] for name in ("shelf", "a")}
    found = profile(
        write(tmp_path / "l.parquet", shelves), write(tmp_path / "c.parquet", catalogue)
    )
    assert (found.roles.query, found.roles.query_overlap) == ("shelf", 1)
    assert config_of(found).data.queries is None
    assert "# 100% of the query ids are in the catalogue, it seems by" in guess_config(found)


def test_few_words_that_are_items_are_items(tmp_path: Path) -> None:
    log = {"a": [f"p{n % 5}" for n in range(300)], "b": [f"p{n}" for n in range(300)]}
    assert roles_of(tmp_path, log, {"k": [f"p{n}" for n in range(300)]}).queries_are_items


def test_queries_of_a_long_sorted_log_are_counted_beyond_the_sample(tmp_path: Path) -> None:
    first = np.repeat(np.arange(50), 4000)  # all that the sample shows
    source = np.concatenate([first, np.repeat(np.arange(50, 1000), 50)])
    log = {"source": source.tolist(), "target": (np.arange(len(source)) % 1000).tolist()}
    assert roles_of(tmp_path, log, {"page": list(range(1000))}).queries_are_items


def test_queries_of_the_bundled_graph_are_items() -> None:
    files = debian_files()
    log, items = open_table(str(files.interactions)), open_table(str(files.items))
    roles = guess_roles(log, items, None)
    assert (roles.query, roles.item) == ("query_id", "item_id")
    assert roles.queries_are_items


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_dates_are_times(tmp_path: Path, suffix: str) -> None:
    log, catalogue = movies(tmp_path)
    days = [date(2024, 1, 1) + timedelta(days=n % 60) for n in range(200)]
    rows = pl.read_parquet(log).drop("timestamp").with_columns(bought=pl.Series(days))
    dated = tmp_path / f"dated.{suffix}"
    rows.write_csv(dated) if suffix == "csv" else rows.write_parquet(dated)
    config = config_of(profile(str(dated), catalogue))
    assert (config.data.interactions.time, config.data.split.kind) == ("bought", "time")


def test_instants_go_before_dates(tmp_path: Path) -> None:
    log, catalogue = movies(tmp_path)
    rows = pl.read_parquet(log)
    rows.insert_column(0, pl.Series("born", [date(1990, 1, 1)] * 200)).write_parquet(log)
    assert profile(log, catalogue).roles.time == "timestamp"


@pytest.mark.parametrize("pattern", ["%d/%m/%Y", "%Y/%m/%d", "%d/%m/%Y %H:%M"])
def test_times_that_prepare_reads_as_text_are_no_times(tmp_path: Path, pattern: str) -> None:
    log, catalogue = movies(tmp_path)
    at = [(datetime(2024, 1, 1) + timedelta(days=n)).strftime(pattern) for n in range(200)]
    rows = pl.read_parquet(log).drop("timestamp").with_columns(at=pl.Series(at))
    rows.write_csv(tmp_path / "dated.csv")
    config = config_of(profile(str(tmp_path / "dated.csv"), catalogue))
    assert (config.data.interactions.time, config.data.split.kind) == (None, "random")


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("brand", ["a", "b", None, "a"] * 10, "categorical"),
        ("sold", [True, False] * 10, "categorical"),
        ("year", [1990 + n % 9 for n in range(40)], "categorical"),
        ("price", [n * 17 for n in range(3000)], "dense"),
        ("debt", [-(2**53) + n for n in range(3000)], "dense"),
        ("hash", [2**61 + n for n in range(3000)], None),
        ("key", [-(2**61) - n % 1500 for n in range(3000)], "categorical"),
        ("weight", [0.5, 1.5] * 10, "dense"),
        ("words", [["a"], ["b", "c"]] * 10, "multi"),
        ("codes", [[1], [2, 3]] * 10, "multi"),
        ("vector", [[0.1, 0.2]] * 10 + [[0.3]], None),
        ("title", [f"t{n}" for n in range(40)], None),
        ("text", [f"a few words of number {n // 2}" for n in range(40)], None),
        ("basket_id", list(range(40)), None),
        ("shop_id", [n % 2000 for n in range(9000)], "categorical"),
        ("day", ["2020-01-01", "2020-01-02"] * 10, None),
        ("released", [date(2020, 1, 1 + n % 3) for n in range(9)], None),
        ("created", [n % 7 for n in range(40)], None),
        ("constant", ["x"] * 10, None),
        ("nothing", [None] * 10, None),
        ("nested", [{"a": n} for n in range(10)], None),
    ],
)
def test_kinds_are_guessed(name: str, values: list[Any], kind: str | None) -> None:
    series = pl.Series(name, values)
    filled = series.drop_nulls()
    flat = series.explode() if isinstance(series.dtype, pl.List) else series
    guessed, reason = guess_kind(filled, flat.drop_nulls().n_unique(), len(filled))
    assert guessed == kind
    assert reason


# -- profile ------------------------------------------------------------------------------------

PAGES = st.sampled_from([*"abcdefgh", "lost", None])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(PAGES, PAGES), min_size=1, max_size=60))
def test_counts_agree_with_a_loop_over_rows(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str | None, str | None]]
) -> None:
    links = [*drawn, *[(a, b) for a in "abcdefgh" for b in "ab"]]
    found = graph(tmp_path_factory.mktemp("graph"), links)
    counts = found.counts
    known = set("abcdefgh")
    usable = [(q, i) for q, i in links if q in known and i in known]
    pairs = set(usable)
    assert found.roles.queries_are_items == (found.roles.query_overlap >= 0.9)
    if not found.roles.queries_are_items:
        return
    assert (counts.rows, counts.usable_rows, counts.pairs) == (len(links), len(usable), len(pairs))
    assert counts.repeated_rows == len(usable) - len(pairs)
    assert counts.null_queries == sum(q is None for q, _ in links)
    assert counts.null_items == sum(i is None for _, i in links)
    assert counts.missing_item_rows == sum(i == "lost" for _, i in links)
    assert counts.missing_items == ("lost" in {i for _, i in links})
    assert counts.missing_query_rows == sum(q == "lost" for q, _ in links)
    assert counts.self_links == sum(q == i for q, i in pairs)
    assert counts.reverse_pairs == sum(q != i and (i, q) in pairs for q, i in pairs)
    queries = [q for q, _ in pairs]
    assert counts.queries == len(set(queries))
    assert counts.items == len({i for _, i in pairs})
    assert counts.one_row_queries == sum(queries.count(q) == 1 for q in set(queries))


@settings(max_examples=50, deadline=None)
@given(
    st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=40),
    st.lists(st.integers(0, 3), min_size=8, max_size=8),
)
def test_sibling_share_agrees_with_a_loop_over_pairs(
    pairs: set[tuple[int, int]], groups: list[int]
) -> None:
    query, item = np.array(sorted(pairs), dtype=np.int64).T
    share, expected = sibling_shares(query, item, np.array(groups))
    active = {q for q, _ in pairs}
    leaks, chances = 0, 0.0
    for q, i in pairs:
        siblings = {o for o in active if o != q and groups[o] == groups[q] and groups[q] > 0}
        leaks += any((o, i) in pairs for o in siblings)
        others = sum((o, i) in pairs for o in active if o != q)
        chance = others / max(len(active) - 1, 1)
        chances += 1 - (1 - chance) ** len(siblings)
    assert share == pytest.approx(leaks / len(pairs))
    assert expected == pytest.approx(chances / len(pairs))


def test_a_profile_is_plain_json(tmp_path: Path) -> None:
    found = profile(*movies(tmp_path))
    stored = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert stored["counts"]["pairs"] == found.counts.pairs
    assert stored["rating"] == {"column": "rating", "low": 1.0, "high": 5.0}
    columns = {column["name"]: column for column in stored["catalogue"]["columns"]}
    assert columns["genres"]["missing"] == 17  # an empty list is missing
    assert columns["genres"]["distinct"] == 2
    assert columns["studio"]["kind"] == "categorical"
    assert columns["title"]["kind"] is None


def test_popularity_is_measured_on_distinct_pairs(tmp_path: Path) -> None:
    links = [(q, "a") for q in "bcdefgh"] * 3 + [("a", "b"), ("a", "c")]
    degrees = graph(tmp_path, links).degrees
    assert (degrees.largest, degrees.median, degrees.mean) == (7, 1, 3)
    assert degrees.top_1pct_share == pytest.approx(7 / 9)
    assert degrees.exponent is None


def test_shards_of_a_folder_or_glob_are_one_log(tmp_path: Path) -> None:
    log, catalogue = movies(tmp_path)
    rows = pl.read_parquet(log)
    folder = tmp_path / "shards"
    folder.mkdir()
    rows[:120].write_parquet(folder / "part-0.parquet")
    rows[120:].write_parquet(folder / "part-1.parquet")
    (folder / "_SUCCESS").write_text("")
    whole = profile(log, catalogue)
    assert profile(str(folder), catalogue).counts == whole.counts
    assert profile(str(folder / "part-*.parquet"), catalogue).counts == whole.counts


def test_text_formats_are_named_in_the_config(tmp_path: Path) -> None:
    ids = [f"{n:03}" for n in range(1, 21)]
    log = pl.DataFrame({"user": ["u1", "u2"] * 20, "item": ids * 2, "n": [1.5] * 40})
    log.write_csv(tmp_path / "log.csv")
    pl.DataFrame({"item": ids, "c": ["x", "y"] * 10}).write_ndjson(tmp_path / "items.jsonl")
    found = profile(str(tmp_path / "log.csv"), str(tmp_path / "items.jsonl"))
    assert found.counts.missing_item_rows == 0  # 007 stays 007
    config = config_of(found)
    assert (config.data.interactions.format, config.data.items.format) == ("csv", "jsonl")


# -- config -------------------------------------------------------------------------------------


def test_config_of_ratings(tmp_path: Path) -> None:
    found = profile(*movies(tmp_path))
    config, text = config_of(found), guess_config(found)
    assert config.name == "ml"
    assert config.data.split.kind == "time"
    assert config.data.queries is None
    item = {name: feature.kind for name, feature in config.data.features.item.items()}
    assert item == {
        "movieId": "categorical",
        "genres": "multi",
        "studio": "categorical",
        "budget": "dense",
    }
    assert "left out: title (nearly unique" in text
    assert {n: f.kind for n, f in config.data.features.query.items()} == {
        "userId": "categorical",
        "history": "history",
    }
    assert config.data.features.query["history"].share == "movieId"
    assert '# positive: "rating >= 4"' in text
    assert config.data.positive is None
    assert (config.model.tower_init, config.loss.logq) == ("independent", "counted")


def test_config_of_a_graph_shares_vocabularies(tmp_path: Path) -> None:
    links = [(a, b) for a in "abcd" for b in "efgh"]
    config = config_of(graph(tmp_path, links, size=[0.5, 1.0] * 4))
    assert config.data.queries == "items"
    assert config.data.split.kind == "random"
    query = config.data.features.query
    assert {n: f.share for n, f in query.items()} == {
        "page": "page",
        "topic": "topic",
        "size": None,
    }
    assert query["size"].kind == "dense"
    assert (config.model.tower_init, config.loss.logq) == ("aligned", "counted")


@pytest.mark.parametrize("values", [["x", "y"], [1.5, 2.5], [1, 2], [["x"], ["y"]]])
def test_a_column_that_is_filled_after_the_sample_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[Any]
) -> None:
    files = movies(tmp_path, late=[None] * 40 + values * 5)
    assert config_of(profile(*files)).data.features.item["late"]
    monkeypatch.setattr("twotower.data.raw_columns.SAMPLE_ROWS", 40)
    assert "left out: late (empty in the rows looked at)" in guess_config(profile(*files))


def test_dropped_rows_raise_the_allowed_share(tmp_path: Path) -> None:
    links = [(a, b) for a in "abcdefgh" for b in "abcdefgh"] + [(None, "a"), ("b", "lost")]
    config = config_of(graph(tmp_path, links))
    assert 2 / 66 < config.data.max_dropped_share < 0.04


@settings(max_examples=20, deadline=None)
@example(name="\0")
@example(name="a.b")
@example(name="no")
@example(name="*")
@example(name="^.*$")
@example(name="\N{GRINNING FACE}\x7f\u2028")
@example(name="x: {y} # z")
@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12))
def test_any_column_name_gives_a_config_that_loads(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    if name in ("movieId", "title", "genres", "studio", "budget"):
        return
    folder = tmp_path_factory.mktemp("names")
    log, catalogue = movies(folder, **{name: ["x", "y"] * 25})
    config = config_of(profile(log, catalogue))
    kept = [f.column or n for n, f in config.data.features.item.items()]
    assert (name in kept) or guess_kind(pl.Series(name, ["x", "y"]), 2, 50)[0] is None


@pytest.mark.parametrize("name", ["242", "null", "No", "1e3", "a.b", "user.ids", "x: {y} # z", "*"])
def test_any_name_of_an_id_gives_a_config_that_loads(tmp_path: Path, name: str) -> None:
    log, catalogue = movies(tmp_path)
    rows, items = pl.read_parquet(log), pl.read_parquet(catalogue)
    items.rename({"movieId": name}).write_parquet(catalogue)
    rows.rename({"movieId": name}).write_parquet(log)
    item = config_of(profile(log, catalogue)).data
    assert (item.items.id, item.interactions.item) == (name, name)
    assert item.features.query["history"].share in item.features.item
    items.write_parquet(catalogue)
    # By number alone these users would be movies, and the name no longer says that they aren't.
    rows.with_columns(pl.format("u{}", "userId").alias("userId")).rename(
        {"userId": name}
    ).write_parquet(log)
    query = config_of(profile(log, catalogue)).data
    assert query.interactions.query == name
    assert name in {f.column or feature for feature, f in query.features.query.items()}


def test_init_writes_what_loads_and_nothing_where_it_refuses(tmp_path: Path) -> None:
    log, catalogue = movies(tmp_path)
    mine = tmp_path / "mine.yaml"
    with pytest.raises(ConfigError, match="name: "):
        init(log, catalogue, "-o", str(mine), "--name", "My Exp")
    assert not mine.exists()
    init(log, catalogue, "-o", str(mine))
    written = mine.read_text()
    assert load_config(mine).config.name == "mine"
    with pytest.raises(ConfigError):
        init(log, catalogue, "-o", str(mine), "--name", "My Exp", "--force")
    assert mine.read_text() == written


@pytest.mark.parametrize("name", ["rating", "user-rating", "movie.score", 'the "stars"', "a/rate"])
def test_the_suggested_condition_reads_the_column(tmp_path: Path, name: str) -> None:
    log, catalogue = movies(tmp_path)
    rows = pl.read_parquet(log).rename({"rating": name})
    rows.write_parquet(log)
    config = uncommented(guess_config(profile(log, catalogue)), "positive: ")
    assert config.data.positive is not None
    assert positive.columns_of(config.data.positive) == (name,)
    batch = rows.to_arrow().combine_chunks().to_batches()[0]
    assert positive.evaluate(config.data.positive, batch, [name]).sum() == 80
    assert (name == "rating") == ('"' not in config.data.positive)


def test_the_condition_for_one_direction_quotes_words_of_sql(tmp_path: Path) -> None:
    both = [(a, b) for a in "abcd" for b in "abcd" if a != b]
    log = {"from": [a for a, _ in both], "to": [b for _, b in both]}
    pages = write(tmp_path / "c.parquet", {"page": list("abcd")})
    found = profile(write(tmp_path / "l.parquet", log), pages)
    assert """data.positive: "from" < to and""" in the_one_with("stand in both directions", found)
    assert positive.columns_of('"from" < to') == ("from", "to")


def test_the_comment_on_queries_says_all_that_has_to_change(tmp_path: Path) -> None:
    text = guess_config(graph(tmp_path, [("a", "b"), ("b", "c"), ("d", "a")]))
    comment = " ".join(re.findall(r"^ *# (.*)$", text.split("queries: items")[0], re.MULTILINE))
    assert "change this to null, name other query features and take model.tower_init out" in comment
    document = parse_yaml(text, "guess")
    document["data"]["queries"] = None
    document["data"]["features"]["query"] = {"source": {"kind": "categorical"}}
    del document["model"]["tower_init"]
    assert build_config(document, "guess").model.tower_init == "independent"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("logs/MyShop/interactions.parquet", "myshop"),
        ("data/big shop.parquet", "big_shop"),
        ("x/movies/part-*.parquet", "movies"),
        ("x/a..b/log.csv", "a.b"),
    ],
)
def test_names_come_from_the_path(path: str, name: str) -> None:
    assert guess_name(f"/{path}") == name


@pytest.mark.parametrize("pairs", [1, 100, 5_000, 52_000, 10**6, 10**8])
def test_sizes_fit_the_lanes_and_the_log(pairs: int) -> None:
    batch_size, num_epochs = guess_sizes(pairs)
    assert batch_size % 64 == 0
    assert 128 <= batch_size <= 8192
    assert 3 <= num_epochs <= 20


def test_the_demo_graph_gets_the_batch_size_of_its_config() -> None:
    assert guess_sizes(52_000)[0] == 1024


# -- warnings -----------------------------------------------------------------------------------


def the_one_with(words: str, found: DataProfile) -> str:
    said = [warning for warning in warnings(found) if words in warning]
    assert len(said) == 1, warnings(found)
    return said[0]


def test_bad_rows_are_counted_with_their_mend(tmp_path: Path) -> None:
    links = [(a, b) for a in "abcdefgh" for b in "abcdefgh"]
    bad = [(None, "a"), ("b", None), ("b", "lost"), ("b", "gone"), ("b", "lost")]
    found = graph(tmp_path, links + bad)
    assert "1 of 69 (1.4%) rows have no source" in the_one_with("no source", found)
    assert "1 of 69" in the_one_with("no target", found)
    missing = the_one_with("target values that the catalogue lacks", found)
    assert "3 of 69 (4.3%) rows" in missing
    assert "(2 ids)" in missing
    assert "data.max_dropped_share" in missing


@pytest.mark.parametrize("bad", [[], [("lost", "gone"), (None, "p01"), ("p02", None)]])
def test_unknown_queries_are_told_and_kept_where_queries_are_items(
    tmp_path: Path, bad: list[tuple[str | None, str | None]]
) -> None:
    names = [f"p{n:02}" for n in range(20)]
    links = [(a, b) for a in names for b in names if a < b] + [("lost", "p00"), *bad]
    log = {"source": [link[0] for link in links], "target": [link[1] for link in links]}
    found = profile(
        write(tmp_path / "l.parquet", log), write(tmp_path / "c.parquet", {"page": names})
    )
    assert found.roles.queries_are_items
    lost = sum(query == "lost" for query, _ in links)
    told = the_one_with("source values that the catalogue lacks", found)
    assert f"{lost} of {len(links)} (" in told
    assert "prepare keeps them" in told
    # What prepare then does is what was told: a share of less would refuse the log.
    config = config_of(found)
    share = len(bad) / len(links)
    assert share <= config.data.max_dropped_share <= max(share + 0.002, 0.001)
    storage = {"prepared": str(tmp_path / "prepared")}
    document = config.model_dump(mode="json") | {"storage": storage}
    manifest = open_prepared(build_config(document, "guess")).manifest
    assert sum(manifest["dropped"].values()) == len(bad)
    assert manifest["counts"]["queries"] == len({q for q, i in links[: len(links) - len(bad)]})


def test_directions_are_told_with_their_mend(tmp_path: Path) -> None:
    both = [(a, b) for a in "abcdefgh" for b in "abcdefgh" if a != b]
    some = [*[("a", b) for b in "bcdefgh"], ("b", "a"), ("c", "c")]
    found = graph(tmp_path / "both", both)
    assert "data.undirected: true" in the_one_with("56 of 56 (100.0%) pairs stand in both", found)
    leak = the_one_with("pairs stand in both directions", graph(tmp_path / "some", some))
    assert "2 of 9 (22.2%)" in leak
    assert "18%" in leak
    assert "by_group, column: page" in leak
    assert "1 of 9" in the_one_with("link a thing to itself", graph(tmp_path / "self", some))


def test_an_undirected_log_is_suspected(tmp_path: Path) -> None:
    names = [f"p{n:03}" for n in range(60)]
    rows = [(a, b) for a in names for b in names if a < b]
    log = {"source": [r[0] for r in rows], "target": [r[1] for r in rows]}
    found = profile(
        write(tmp_path / "l.parquet", log), write(tmp_path / "c.parquet", {"page": names})
    )
    assert "set data.undirected: true" in the_one_with("None of the 1,770 pairs", found)
    assert "# undirected: true" in guess_config(found)
    assert "ssl.weight" in the_one_with("None of the 1 columns of the catalogue", found)


def test_planted_siblings_are_found_and_topics_are_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"p{n:03}" for n in range(400)]
    picks = rng.integers(0, 400, size=(200, 3))  # each pair of siblings links the same 3
    rows = [(n, int(i)) for n in range(400) for i in picks[n // 2]]
    catalogue = {
        "page": names,
        "source": [f"s{n // 2}" for n in range(400)],
        "noise": [f"n{k % 150}" for k in rng.permutation(400)],
        "topic": [f"t{n % 5}" for n in range(400)],
    }
    log = {"source": [names[q] for q, _ in rows], "target": [names[i] for _, i in rows]}
    found = profile(write(tmp_path / "l.parquet", log), write(tmp_path / "c.parquet", catalogue))
    assert [leak.column for leak in found.siblings] == ["source", "noise"]
    assert found.siblings[0].share == 1
    assert abs(found.siblings[1].excess) < 0.02
    warning = the_one_with("sibling", found)
    assert "100% of the pairs" in warning
    assert "by_group, column: source" in warning
    assert "# column: source" in guess_config(found)


def test_repeats_cold_queries_and_popularity_are_told(tmp_path: Path) -> None:
    log = {
        "user": [f"u{n}" for n in range(100)] * 2,
        "item": ["p0"] * 95 + ["p1"] * 5 + ["p0"] * 100,
    }
    catalogue = {
        "item": [f"p{n}" for n in range(20)],
        "size": ["x", "y", None, None] * 5,
        "kind": ["x", "y"] * 10,
    }
    found = profile(write(tmp_path / "l.parquet", log), write(tmp_path / "c.parquet", catalogue))
    assert "95 of 200 (47.5%) rows repeat" in the_one_with("rows repeat", found)
    assert "95 of 100 (95.0%) queries have a single pair" in the_one_with("single pair", found)
    assert "18 of 20 (90.0%) catalogue items are in no pair" in the_one_with("no pair", found)
    assert "95% of the pairs" in the_one_with("most popular", found)
    assert "10 of 20 (50.0%)" in the_one_with("no size", found)


def test_a_clean_log_has_no_warnings(tmp_path: Path) -> None:
    log = {
        "user": [f"u{n % 30}" for n in range(300)],
        "item": [f"p{(n % 30 + n // 30) % 20}" for n in range(300)],
        "at": [datetime(2020, 1, 1) + timedelta(hours=n) for n in range(300)],
    }
    catalogue = {"item": [f"p{n}" for n in range(20)], "kind": ["x", "y"] * 10}
    found = profile(write(tmp_path / "l.parquet", log), write(tmp_path / "c.parquet", catalogue))
    assert warnings(found) == []
    assert config_of(found).data.interactions.time == "at"


# -- bad input ----------------------------------------------------------------------------------


def test_unreadable_tables_are_named(tmp_path: Path) -> None:
    log, catalogue = movies(tmp_path)
    text = tmp_path / "log.parquet"
    text.write_text("not parquet at all")
    with pytest.raises(DataError, match=r"log\.parquet: not a Parquet file"):
        profile(str(text), catalogue)
    whole = Path(log).read_bytes()
    text.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"log\.parquet: can't be read"):
        profile(str(text), catalogue)
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        profile(log, str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no files in it that end with"):
        profile(str(tmp_path / "empty"), catalogue)
    Path(log).with_suffix(".csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"several formats \(csv, parquet\)"):
        profile(str(Path(log).parent), catalogue)


def test_an_empty_log_is_refused(tmp_path: Path) -> None:
    log, catalogue = movies(tmp_path)
    pl.read_parquet(log).clear().write_parquet(log)
    with pytest.raises(DataError, match=r"ratings\.parquet: holds no rows"):
        profile(log, catalogue)


def test_a_log_without_ids_of_the_catalogue_is_refused(tmp_path: Path) -> None:
    log, catalogue = movies(tmp_path)
    other = write(tmp_path / "o.parquet", {"user": ["u"], "thing": ["z"], "x": [1.5]})
    with pytest.raises(
        DataError, match=r"no column of it holds the ids of .*looked at user, thing"
    ):
        profile(other, catalogue)
    only = write(tmp_path / "p.parquet", {"movieId": [1, 2], "x": [1.5, 2.5]})
    with pytest.raises(DataError, match="no column for the query beside 'movieId'"):
        profile(only, catalogue)
    users = write(tmp_path / "u.parquet", {"uid": ["x", "y"]})
    with pytest.raises(DataError, match=r"u\.parquet: none of its columns holds the ids"):
        profile(log, catalogue, users)


def test_a_catalogue_with_repeated_ids_is_refused(tmp_path: Path) -> None:
    log, catalogue = movies(tmp_path)
    rows = pl.read_parquet(catalogue)
    pl.concat([rows, rows[:1]]).write_parquet(catalogue)
    with pytest.raises(
        DataError, match=r"movies\.parquet: no column has a different value in every"
    ):
        profile(log, catalogue)


def test_a_log_without_a_usable_row_is_refused(tmp_path: Path) -> None:
    _, catalogue = movies(tmp_path)
    log = write(
        tmp_path / "l.parquet",
        {"userId": pl.Series([None, None], dtype=pl.String).to_list(), "movieId": [1, 2]},
    )
    frame = pl.read_parquet(log).with_columns(pl.col("userId").cast(pl.String))
    frame.write_parquet(log)
    with pytest.raises(DataError, match="no row has a known 'userId' and 'movieId'"):
        profile(log, catalogue)


# -- real logs ----------------------------------------------------------------------------------


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("log", "catalogue", "queries", "split", "of_queries"),
    [
        ("completejourney/interactions", "completejourney/items", "users", "time", "table"),
        ("movietweetings/interactions", "movietweetings/items", None, "time", None),
        ("wikispeedia/interactions", "wikispeedia/items", None, "random", "items"),
        ("musae-facebook/interactions", "musae-facebook/items", None, "random", "items"),
    ],
)
def test_real_logs_give_the_config_a_person_would_write(
    log: str, catalogue: str, queries: str | None, split: str, of_queries: str | None
) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no logs in {SHARED}")
    table = str(SHARED / "completejourney" / f"{queries}.parquet") if queries else None
    found = profile(str(SHARED / f"{log}.parquet"), str(SHARED / f"{catalogue}.parquet"), table)
    config = config_of(found)
    assert (found.roles.query, found.roles.item) == ("query_id", "item_id")
    assert config.data.split.kind == split
    kind = config.data.queries if isinstance(config.data.queries, str | None) else "table"
    assert kind == of_queries


@pytest.mark.shared_data
def test_figures_of_the_real_logs_are_those_of_their_readme() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no logs in {SHARED}")

    def of(name: str) -> DataProfile:
        return profile(
            str(SHARED / name / "interactions.parquet"), str(SHARED / name / "items.parquet")
        )

    bought, rated, linked, liked = map(
        of, ("completejourney", "movietweetings", "wikispeedia", "musae-facebook")
    )
    assert (bought.counts.missing_items, bought.counts.catalogue_items) == (5, 92_331)
    assert (rated.counts.one_row_queries, rated.counts.queries) == (7_457, 16_554)
    assert linked.counts.self_links == 110
    assert 0.8 * linked.counts.reverse_pairs / linked.counts.pairs == pytest.approx(0.17, abs=0.01)
    assert liked.counts.reverse_pairs == 0
    assert liked.counts.pairs == 171_002
