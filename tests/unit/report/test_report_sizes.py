import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from page_reader import read
from twotower.core.errors import DataError
from twotower.report.collect import collect
from twotower.report.content import Report
from twotower.report.page import render
from twotower.report.sizes import table_rows, total_rows
from twotower.report.summary import summarise

Files = Callable[[], dict[str, Path]]


def test_rows_are_bytes_as_served_and_their_share_of_full(demo_report: Report) -> None:
    assert [row[0] for row in total_rows(demo_report.runs)] == ["cfm", "cfm tuned"]
    assert total_rows(demo_report.runs)[0][1:] == ["585 kB", "7.2 %", "412 kB", "997 kB"]
    label, rows = table_rows(demo_report.runs)[0]
    assert label == "cfm"
    assert rows == [
        ["item.package", "dpq", "63\u202f668", "577 kB", "7.1 %"],
        ["item.section", "full", "62", "7.94 kB", "100.0 %"],
    ]


def test_the_config_names_the_kind_more_closely(own_files: Files) -> None:
    run = own_files()["cfm"]
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"] = {"embeddings": {"item": {"package": {"kind": "mgqe"}}}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (_, rows), *_ = table_rows(collect({"cfm": run}).runs)
    assert [row[1] for row in rows] == ["mgqe", "full"]


def test_the_page_has_the_section_where_some_run_has_the_file(demo_report: Report) -> None:
    text = " ".join(read(render(demo_report)).text)
    assert "Size as served" in text
    assert "item.package" in text
    old = replace(demo_report, runs=tuple(replace(r, sizes=None) for r in demo_report.runs))
    reader = read(render(old))
    assert "Size as served" not in " ".join(reader.text)
    assert not [a for _, a in reader.tags if a.get("href") == "#size" or a.get("id") == "size"]


def test_a_run_without_the_file_misses_nothing(own_files: Files) -> None:
    report = collect({"old": own_files()["baseline"]})
    assert report.runs[0].sizes is None
    assert report.missing == ()
    assert summarise(report)["sizes"] == {}


def test_the_summary_has_bytes_by_table(demo_report: Report) -> None:
    found = summarise(demo_report)["sizes"]
    assert set(found) == {"cfm", "cfm_tuned"}
    assert found["cfm"]["table_bytes"] == 585072
    assert found["cfm"]["full_table_bytes"] == 8157440
    assert found["cfm"]["dense_bytes"] == 412000
    table = found["cfm"]["tables"]["item.package"]
    assert table == {
        "kind": "dpq",
        "values": 63668,
        "bytes": 577136,
        "share_of_full": round(577136 / 8149504, 6),
    }


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tables": []}, "expected an object"),
        ({"tables": {"a": 3}}, "expected an object"),
        ({"tables": {"a": {"values": 1, "bytes": "8", "full_bytes": 8}}}, "`bytes`"),
        ({"tables": {"a": {"values": 1, "bytes": 8, "full_bytes": 0}}}, "`full_bytes`"),
        ({"dense_bytes": -1}, "`dense_bytes`"),
    ],
)
def test_a_broken_file_is_named(own_files: Files, change: dict, told: str) -> None:
    run = own_files()["cfm"]
    document = json.loads((run / "sizes.json").read_text()) | change
    (run / "sizes.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=told) as caught:
        collect({"cfm": run})
    assert "sizes.json" in str(caught.value)
