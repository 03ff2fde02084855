"""CSV and JSON lines: types that hold for the whole file, and what is null in them."""

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prepare_serial import make_config, make_log, open_prepared, prepare_serially
from twotower.core.errors import DataError
from twotower.data.raw_tables import open_table
from twotower.data.schema import Need, Role, check_shards
from twotower.data.shards import Format, list_shards
from twotower.data.sources import Inspected, inspect, read_column

BLOCK = 1 << 20
PAD = "x" * 80
MANY = BLOCK // len(PAD) + 2000
"""Rows with `PAD` that fill more than a block of the readers."""


def look(path: Path, kind: Format, **roles: Role) -> list[Inspected]:
    """Inspect a file or folder whose columns are read so."""
    texts = {name for name, role in roles.items() if role in ("id", "category")}
    numbers = {name for name, role in roles.items() if role == "number"}
    listed = list_shards(
        str(path),
        kind,
        frozenset(texts),
        numbers=frozenset(numbers),
        others=frozenset(roles.keys() - texts - numbers),
    )
    return [inspect(shard) for shard in listed]


def problems(shards: Sequence[Inspected], **roles: Role) -> list[str]:
    return check_shards(shards, [Need(name, role, f"k.{name}") for name, role in roles.items()])


def read(shards: Sequence[Inspected], column: str) -> list[Any]:
    assert not [shard.error for shard in shards if shard.error]
    return read_column(shards, column).to_pylist()


def lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# -- what comes after the first block ------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "early", "late", "values"),
    [
        ("number", "7", "3.5", (7.0, 3.5)),
        ("number", "", "3.5", (None, 3.5)),
        ("number", "", "true", (None, True)),
        ("any", "7", "3.5", (7.0, 3.5)),
        ("any", "7", "seven", ("7", "seven")),
        ("any", "", "7", (None, 7)),
        ("any", "true", "x", ("true", "x")),
        ("time", "", "2024-01-02", (None, date(2024, 1, 2))),
        (
            "time",
            "2024-01-02",
            "2024-01-02 10:00",
            (datetime(2024, 1, 2), datetime(2024, 1, 2, 10)),
        ),
        ("category", "7", "x", ("7", "x")),
        ("category", "2024-01-02", "soon", ("2024-01-02", "soon")),
    ],
)
def test_a_late_value_widens_a_csv_column(
    tmp_path: Path, role: Role, early: str, late: str, values: tuple[Any, Any]
) -> None:
    path = tmp_path / "a.csv"
    rows = [f"i{n},{early},{PAD}\n" for n in range(MANY)]
    path.write_text("item_id,v,unused\n" + "".join(rows) + f"z,{late},3\n")
    shards = look(path, "csv", item_id="id", v=role)
    assert problems(shards, item_id="id", v=role) == []
    assert shards[0].rows == MANY + 1
    found = read(shards, "v")
    assert (found[0], found[-1]) == values
    assert found[:-1] == [values[0]] * MANY
    assert read(shards, "item_id")[-1] == "z"


@pytest.mark.parametrize(
    ("role", "early", "late", "values"),
    [
        ("number", 7, 3.5, (7.0, 3.5)),
        ("number", None, 3, (None, 3.0)),
        ("any", 7, 2.5, (7.0, 2.5)),
        ("any", None, "x", (None, "x")),
        ("bag", [], ["a"], ([], ["a"])),
        ("bag", None, [1, None], (None, [1, None])),
        ("category", None, True, (None, True)),
        ("category", "2024-01-02", "soon", ("2024-01-02", "soon")),
        ("id", "2024-01-02", "soon", ("2024-01-02", "soon")),
        ("time", "2024-01-02", "2024-01-02T00:00:00.5", (datetime(2024, 1, 2), None)),
    ],
)
def test_a_late_value_widens_a_json_column(
    tmp_path: Path, role: Role, early: Any, late: Any, values: tuple[Any, Any]
) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"item_id": f"i{n}", "v": early, "unused": PAD} for n in range(MANY)]
    path.write_text(lines([*rows, {"item_id": "z", "v": late, "unused": 3, "more": {"a": 1}}]))
    shards = look(path, "jsonl", item_id="id", v=role)
    assert problems(shards, item_id="id", v=role) == []
    assert shards[0].rows == MANY + 1
    found = read(shards, "v")
    assert found[:-1] == [values[0]] * MANY
    assert role == "time" or found[-1] == values[1]


def test_a_json_key_may_come_late(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows: list[dict[str, Any]] = [{"item_id": PAD + str(n)} for n in range(MANY)]
    path.write_text(lines([*rows, {"item_id": "z", "colour": "red"}]))
    roles: dict[str, Role] = {"item_id": "id", "colour": "category", "size": "number"}
    shards = look(path, "jsonl", **roles)
    assert problems(shards, **roles) == [
        f"{path}: no column 'size' (k.size); it has item_id, colour"
    ]
    assert read(shards, "colour") == [None] * MANY + ["red"]


def test_line_breaks_in_quotes_and_empty_lines_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    text = '"' + "line of words\n" * 8 + '"'
    rows = [f"i{n},{text}\n\n" for n in range(15_000)]
    path.write_text("item_id,words\n" + "".join(rows))
    shards = look(path, "csv", item_id="id", words="category")
    assert shards[0].groups == (15_000,)
    assert read(shards, "item_id") == [f"i{n}" for n in range(15_000)]
    assert set(read(shards, "words")) == {"line of words\n" * 8}


# -- types ---------------------------------------------------------------------------------------

CELLS = st.sampled_from(
    [
        *("", "0", "7", "-3", "007", "1e3", "3.5", ".5", "+4", " 8 ", "NA", "nan", "true", "False"),
        *("2024-01-02", "2024-01-02 10:00:00", "2024-01-02T10:00:00.25", "2024-01-02T10:00:00Z"),
        *("9223372036854775808", "a,b", 'a "b"', "ä\nö", "x"),
    ]
)


def arrow_type(cells: Sequence[str], text: str) -> pa.DataType:
    """The type that Arrow's reader of whole files infers."""
    options = pacsv.ConvertOptions(strings_can_be_null=True, null_values=[""])
    parsing = pacsv.ParseOptions(newlines_in_values=True)
    table = pacsv.read_csv(io.BytesIO(text.encode()), None, parsing, options)
    return table.schema.field("v").type


@given(st.lists(CELLS, min_size=1, max_size=6))
@example(["1", "true"])
@example(["2024-01-02", "2024-01-02T10:00:00Z"])
def test_types_of_a_csv_are_those_of_arrow(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([("k", "v"), *[("r", cell) for cell in cells]])
    path.write_text(stream.getvalue(), newline="")
    shards = look(path, "csv", k="id", v="any")
    assert shards[0].schema.field("v").type == arrow_type(cells, stream.getvalue())
    assert len(read(shards, "v")) == len(cells)
    as_text = read(look(path, "csv", v="category"), "v")
    assert as_text == [cell or None for cell in cells]
    as_number = look(path, "csv", v="number")
    kind = as_number[0].schema.field("v").type
    if kind == pa.float64():
        wanted = [float(cell) if cell else None for cell in cells]
        assert str(read(as_number, "v")) == str(wanted)  # NaN is no NaN's equal
    else:
        assert kind in (pa.null(), pa.bool_(), pa.string())


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1700000000", 1_700_000_000),
        ("2024-01-02", date(2024, 1, 2)),
        ("2024-01-02 03:04:05", datetime(2024, 1, 2, 3, 4, 5)),
        ("2024-01-02T03:04:05Z", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2024-01-02T05:04:05+02:00", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ],
)
def test_times_of_text_files(tmp_path: Path, cell: str, value: Any) -> None:
    (tmp_path / "a.csv").write_text(f"id,t\nx,{cell}\ny,\n")
    shards = look(tmp_path / "a.csv", "csv", id="id", t="time")
    assert problems(shards, t="time") == []
    assert read(shards, "t") == [value, None]
    written = json.loads(cell) if cell.isdigit() else cell
    (tmp_path / "a.jsonl").write_text(lines([{"id": "x", "t": written}, {"id": "y"}]))
    shards = look(tmp_path / "a.jsonl", "jsonl", id="id", t="time")
    assert problems(shards, t="time") == []
    # A date of JSON lines has always been an instant, in seconds.
    instant = datetime(2024, 1, 2) if type(value) is date else value
    assert read(shards, "t") == [instant, None]


JSON_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-9, 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from(["", "a", "NA", "7", "2024-01-02", "ä\n"]),
    st.lists(st.sampled_from(["a", None, "b"]), max_size=2),
    st.lists(st.integers(0, 3), max_size=2),
)


def json_kinds(values: Sequence[Any]) -> set[str]:
    """Kinds of the values but null, numbers and lists of numbers alike whatever they are."""
    kinds: set[str] = set()
    for value in values:
        if isinstance(value, list):
            kinds |= {f"list of {kind}" for kind in json_kinds(value)} or {"list"}
        elif value is not None:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            kinds.add("number" if number else type(value).__name__)
    if any(kind.startswith("list of") for kind in kinds):
        kinds.discard("list")
    return kinds


@given(st.lists(JSON_VALUES, min_size=1, max_size=4))
@example([[None, None]])
@example([[], [None, None], [7]])
def test_json_is_read_as_it_is_written(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_text(lines([{"k": "r", "v": value, "other": [value, {}]} for value in values]))
    shards = look(path, "jsonl", k="id", v="category")
    if len(json_kinds(values)) > 1:
        assert "column 'v' holds objects or values of several kinds" in shards[0].error
        return
    assert read(shards, "v") == values
    assert read(look(path, "jsonl", v="any"), "k" if "v" not in shards[0].schema.names else "v")


def test_truths_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,v\nx,true\ny,FALSE\nz,\n")
    shards = look(tmp_path / "a.csv", "csv", v="number")
    assert problems(shards, v="number") == []
    assert read(shards, "v") == [True, False, None]


# -- null ----------------------------------------------------------------------------------------

NULLS = 'item_id,country,price\n1,NA,1\nNA,DE,\nnull,US,2.5\nnan,"NA",3\nN/A,"",\nNULL,,4\n'


def test_only_an_empty_cell_is_null_to_prepare_and_to_init(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(NULLS)
    shards = look(path, "csv", item_id="id", country="category", price="number")
    wanted = {
        "item_id": ["1", "NA", "null", "nan", "N/A", "NULL"],
        "country": ["NA", "DE", "US", "NA", None, None],
        "price": [1.0, None, 2.5, 3.0, None, 4.0],
    }
    assert {name: read(shards, name) for name in wanted} == wanted
    assert open_table(str(path)).frame.collect().to_dict(as_series=False) == wanted


def test_init_guesses_types_from_all_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = "".join(f"{n},{n},{n},,{n % 2}\n" for n in range(10_500))
    late = "007,3.5,NA,4,9223372036854775808\n"
    path.write_text("padded,price,mixed,sparse,large\n" + rows + late)
    table = open_table(str(path))
    kinds = {name: str(kind) for name, kind in table.schema.items()}
    assert kinds == {
        "padded": "String",
        "price": "Float64",
        "mixed": "String",
        "sparse": "Int64",
        "large": "Int128",
    }
    last = table.frame.collect().row(-1)
    assert last == ("007", 3.5, "NA", 4, 2**63)
    path = tmp_path / "a.jsonl"
    path.write_text(lines([{"p": 1}] * 10_500 + [{"p": 2.5, "late": ["a"]}]))
    assert open_table(str(path)).frame.collect().row(-1) == (2.5, ["a"])


# -- refusals ------------------------------------------------------------------------------------


def test_text_in_a_column_of_numbers_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = "".join(f"{PAD}{n},{n}\n" for n in range(MANY))
    path.write_text("item_id,price\n" + rows + "y,NA\nz,?\n")
    shards = look(path, "csv", item_id="id", price="number")
    assert problems(shards, price="number") == [
        f"{path}: column 'price' is text, such as 'NA' (k.price); `dense` takes numbers; text is "
        "`categorical`"
    ]
    path = tmp_path / "a.jsonl"
    path.write_text(lines([{"item_id": "x", "price": "NA"}, {"item_id": "y"}]))
    shards = look(path, "jsonl", item_id="id", price="number")
    assert f"{path}: column 'price' is text, such as 'NA'" in problems(shards, price="number")[0]


@pytest.mark.parametrize("late", ["NA", True, {"a": 1}, [1]])
@pytest.mark.parametrize("number", [3, MANY])
def test_a_json_column_of_several_kinds_is_refused_with_the_line(
    tmp_path: Path, late: Any, number: int
) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"price": n, "item_id": PAD} for n in range(number)]
    path.write_text(lines([*rows, {"price": late, "item_id": "z"}, {"price": 2.5}]))
    shards = look(path, "jsonl", item_id="id", price="number")
    line = lines([{"price": late, "item_id": "z"}]).strip()
    assert problems(shards, item_id="id", price="number") == [
        f"{path}: column 'price' holds objects or values of several kinds, first in {line}"
    ]


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        ("csv", b"item_id,v\n\xff\xfe,1\n", "not a readable csv file"),
        ("csv", b"item_id,v\n1\n", "not a readable csv file"),
        ("jsonl", b'{"item_id": "\xff"}\n', "not a readable jsonl file"),
        ("jsonl", b'{"item_id": "a"\n', "not a readable jsonl file"),
        ("jsonl", b'["a"]\n', "not a readable jsonl file"),
    ],
)
def test_damaged_text_is_refused(tmp_path: Path, kind: Format, content: bytes, words: str) -> None:
    (tmp_path / "a").write_bytes(content)
    shards = look(tmp_path / "a", kind, item_id="id")
    assert words in problems(shards, item_id="id")[0]


def test_json_without_line_breaks_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as stream:
        stream.seek(18 << 20)
        stream.write(b"[]")
    shards = look(tmp_path / "a.json", "jsonl", item_id="id")
    assert "a.json: a line is longer than 16,777,216 bytes" in problems(shards, item_id="id")[0]


@pytest.mark.parametrize(("kind", "content"), [("csv", b""), ("jsonl", b""), ("jsonl", b" \n\n")])
def test_files_without_a_row_are_legal(tmp_path: Path, kind: Format, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    shards = look(tmp_path / "a", kind, item_id="id", size="number")
    assert problems(shards, item_id="id", size="number") == []
    assert (shards[0].rows, read(shards, "item_id")) == (0, [])


# -- whole preparations --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_prices_of_shards_are_floats_however_whole(tmp_path: Path, kind: str) -> None:
    make_log(tmp_path)
    features: dict[str, Any] = {
        "item": {"brand": {"kind": "categorical"}, "size": {"kind": "dense"}},
        "query": {"query_id": {"kind": "categorical"}},
    }
    wanted = open_prepared(make_config(tmp_path, features=features)).manifest["files"]
    rows = pq.read_table(tmp_path / "items.parquet", columns=["item_id", "brand", "size"])
    whole: list[dict[str, Any]] = []
    broken: list[dict[str, Any]] = []
    for row in rows.to_pylist():
        is_whole = row["size"] is None or row["size"].is_integer()
        size = None if row["size"] is None else int(row["size"]) if is_whole else row["size"]
        (whole if is_whole else broken).append({**row, "size": size})
    folder = tmp_path / "catalogue"
    folder.mkdir()
    for name, part in (("whole", whole), ("broken", broken)):
        assert part
        with (folder / f"{name}.{kind}").open("w", newline="") as stream:
            if kind == "csv":
                csv.writer(stream).writerows([rows.schema.names, *[one.values() for one in part]])
            else:
                stream.write(lines(part))
    source = {"path": str(folder), "format": kind}
    config = make_config(tmp_path, items=source, features=features)
    found = open_prepared(config).manifest["files"]
    names = ["items.parquet", "vocab/item.brand.parquet"]
    assert {n: found[n]["sha256"] for n in names} == {n: wanted[n]["sha256"] for n in names}


def test_a_condition_reads_whole_and_broken_numbers(tmp_path: Path) -> None:
    paths = make_log(tmp_path)
    folder = tmp_path / "csv"
    folder.mkdir()
    for n, path in enumerate(paths):
        table = pq.read_table(path)
        ratings = table["rating"].cast(pa.float64()) if n else table["rating"]
        table = table.set_column(4, "rating", ratings).append_column("note", table["query_id"])
        if n:
            text = [f"{rating}" for rating in ratings.to_pylist()]
            assert all("." in one for one in text)
            table = table.set_column(4, "rating", pa.array(text))
        pacsv.write_csv(table, folder / f"{n}.csv", pacsv.WriteOptions(quoting_style="needed"))
    source = {"path": str(folder), "format": "csv", "time": "ts"}
    config = make_config(tmp_path, interactions=source, positive="rating >= 7")
    wanted = open_prepared(make_config(tmp_path, positive="rating >= 7")).manifest
    assert open_prepared(config).manifest["dropped"] == wanted["dropped"]
    assert open_prepared(config).manifest["counts"] == wanted["counts"]


def test_text_in_a_dense_csv_column_stops_prepare(tmp_path: Path) -> None:
    make_log(tmp_path)
    items = pq.read_table(tmp_path / "items.parquet").drop_columns(["words"])
    sizes = pa.array(["NA" if v is None else f"{v}" for v in items["size"].to_pylist()])
    pacsv.write_csv(items.set_column(2, "size", sizes), tmp_path / "items.csv")
    features = {
        "item": {"size": {"kind": "dense"}},
        "query": {"query_id": {"kind": "categorical"}},
    }
    source = {"path": str(tmp_path / "items.csv"), "format": "csv"}
    with pytest.raises(
        DataError, match=r"items\.csv: column 'size' is text, such as 'NA' \(data\."
    ):
        prepare_serially(make_config(tmp_path, items=source, features=features))
