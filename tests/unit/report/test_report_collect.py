import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from twotower.core.errors import DataError, InputError
from twotower.report.collect import collect, read_search
from twotower.report.content import Report

Files = Callable[[], dict[str, Path]]


def test_a_whole_demo_is_read_and_nothing_is_missing(demo_report: Report) -> None:
    assert demo_report.missing == ()
    names = [method.name for method in demo_report.methods]
    assert names == ["popularity", "content", "item_knn", "baseline", "cfm", "cfm_tuned"]
    assert [method.colour for method in demo_report.methods] == [0, 0, 0, 1, 2, 3]
    assert len(demo_report.differences) == 5
    assert demo_report.search is not None
    assert len(demo_report.search.trials) == 16
    assert demo_report.dataset is not None
    assert [run.validation[-1]["epoch"] for run in demo_report.runs] == [12.0] * 3


def test_an_empty_directory_names_everything_that_is_missing(tmp_path: Path) -> None:
    report = collect({"a": tmp_path})
    told = "\n".join(report.missing)
    for name in ("config.yaml", "record.json", "metrics.jsonl", "best.json", "test.json"):
        assert name in told
    assert report.methods == ()
    assert report.headline.verdict == "none"
    assert report.title == "a"


def test_no_run_is_refused() -> None:
    with pytest.raises(InputError, match="at least one run"):
        collect({})


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("record.json", "[]", "expected an object"),
        ("record.json", '{"stages": [{"name": "train"}]}', "'train' has no `seconds`"),
        ("record.json", "{", "not JSON"),
        ("metrics.jsonl", '{"kind": "train"}\nnonsense\n', "line 2"),
        ("evaluation/test.json", '{"summary": 3}', "summary"),
        ("evaluation/test.parquet", "PAR1 no", "can't be read"),
    ],
)
def test_a_broken_file_is_named(own_files: Files, name: str, text: str, told: str) -> None:
    run = own_files()["cfm"]
    (run / name).write_text(text)
    with pytest.raises(DataError, match=told) as caught:
        collect({"cfm": run})
    assert name in str(caught.value)


def test_a_metrics_line_cut_by_a_crash_is_left_out(own_files: Files) -> None:
    run = own_files()["cfm"]
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": "validation", "epo')
    assert len(collect({"cfm": run}).runs[0].validation) == 12


def test_after_a_restart_the_later_reading_of_an_epoch_counts(own_files: Files) -> None:
    run = own_files()["cfm"]
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps({"kind": "validation", "epoch": 3, "recall@50": 0.5}) + "\n")
    points = collect({"cfm": run}).runs[0].validation
    assert [point["epoch"] for point in points] == list(range(1, 13))
    assert points[2]["recall@50"] == 0.5


def test_baselines_come_from_the_first_run_that_has_them(demo_files: dict[str, Path]) -> None:
    places = {"cfm": demo_files["cfm"], "baseline": demo_files["baseline"]}
    names = [method.name for method in collect(places).methods]
    assert names == ["popularity", "content", "item_knn", "cfm", "baseline"]
    assert [m.name for m in collect({"cfm": demo_files["cfm"]}).methods] == ["cfm"]


def test_validation_shows_no_baselines_and_names_what_is_missing(
    demo_files: dict[str, Path],
) -> None:
    report = collect({"baseline": demo_files["baseline"]}, part="validation")
    assert report.methods == ()
    assert any("validation.json" in piece for piece in report.missing)


def test_metrics_without_a_value_or_an_interval(demo_report: Report, own_files: Files) -> None:
    bare = demo_report.methods[-1].evaluation.summary["coverage@10"]
    assert (bare.low, bare.high, bare.n) == (None, None, None)
    run = own_files()["cfm"]
    document = json.loads((run / "evaluation/test.json").read_text())
    document["summary"]["unseen_recall@50"] = {"value": None, "low": None, "high": None, "n": 0}
    (run / "evaluation/test.json").write_text(json.dumps(document))
    assert "unseen_recall@50" not in collect({"cfm": run}).methods[0].evaluation.summary


def test_commands_come_from_the_records(demo_files: dict[str, Path]) -> None:
    runs = {"a": demo_files["baseline"], "b": demo_files["cfm"]}
    assert collect(runs).commands == (
        "twotower train configs/debian.yaml --set ssl.weight=0.0",
        "twotower train configs/debian.yaml --set ssl.weight=0.3",
    )


def test_no_search_is_named(tmp_path: Path) -> None:
    missing: list[str] = []
    assert read_search(tmp_path, missing) is None
    assert "search.json" in missing[0]


def test_values_that_are_not_finite_are_no_values(own_files: Files) -> None:
    files = own_files()
    document = json.loads((files["search"] / "search.json").read_text())
    document["trials"][0]["value"] = math.nan
    (files["search"] / "search.json").write_text(json.dumps(document))
    search = read_search(files["search"], [])
    assert search is not None
    assert search.trials[0].value is None
