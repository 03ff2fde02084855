import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from page_reader import assert_self_contained, read
from twotower.report.collect import collect
from twotower.report.content import Report
from twotower.report.page import render, write_report
from twotower.report.summary import write_summary

Files = Callable[[], dict[str, Path]]
EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'


def test_the_page_is_whole_and_self_contained(demo_report: Report) -> None:
    page = render(demo_report)
    assert_self_contained(page)
    assert len(page.encode()) < 2_000_000


def test_every_section_is_there_and_linked(demo_report: Report) -> None:
    reader = read(render(demo_report))
    ids = {attributes["id"] for tag, attributes in reader.tags if tag == "section"}
    linked = {(a.get("href") or "")[1:] for tag, a in reader.tags if tag == "a"}
    assert ids == linked
    text = " ".join(reader.text)
    assert demo_report.headline.sentence in text
    assert "The baseline was not searched." in text
    assert "twotower train configs/debian.yaml --set ssl.weight=0.3" in text
    assert not re.search(r"\b(None|nan|undefined|Undefined)\b", text)


def test_the_policy_allows_just_our_script(demo_report: Report) -> None:
    page = render(demo_report)
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = next(a["content"] for t, a in read(page).tags if a.get("http-equiv"))
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_names_from_files_are_never_markup(own_files: Files) -> None:
    files = own_files()
    run, search, prepared = files["cfm"], files["search"], files["prepared"]

    def poison(path: Path, change: Callable[[dict], None]) -> None:
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    def evaluation(document: dict) -> None:
        document["summary"][f"{EVIL}@50"] = document["summary"]["recall@50"]
        document["certificate"]["protocol"][EVIL] = EVIL
        document["certificate"]["subject"][EVIL] = {EVIL: EVIL}

    def record(document: dict) -> None:
        document["stages"][0]["name"] = EVIL
        document["exit_reason"] = document["command"] = document["versions"][EVIL] = EVIL
        document["provenance"] = {"ssl.weight": EVIL}

    def trials(document: dict) -> None:
        document["metric"] = document["winner"] = document["trials"][0]["state"] = EVIL
        document["trials"][0]["params"][EVIL] = EVIL
        document["trials"][1]["error"] = EVIL
        document["importances"][EVIL] = 0.1

    poison(run / "evaluation/test.json", evaluation)
    poison(run / "record.json", record)
    poison(search / "search.json", trials)
    poison(prepared / "mi.json", lambda d: d["features"].__setitem__(0, EVIL))
    poison(prepared / "profile.json", lambda d: d["counts"].update({EVIL: 1}))
    report = collect({EVIL: run}, title=EVIL, search=search, notes=[EVIL])
    page = render(report)
    reader = read(page)
    assert page.count("<script") == 1
    assert "<img" not in page
    assert not [a for _, a in reader.tags if "onerror" in a]


def test_a_run_with_nothing_but_a_directory_still_has_a_page(tmp_path: Path) -> None:
    reader = read(render(collect({"bare": tmp_path})))
    text = " ".join(reader.text)
    assert "Not on this page" in text
    assert "metrics.jsonl" in text
    assert "This report has no search" in text


def test_one_run_without_prepared_data_or_paired_rows(own_files: Files) -> None:
    files = own_files()
    run = files["baseline"]
    (run / "evaluation/test.parquet").unlink()
    (files["prepared"] / "profile.json").unlink()
    (files["prepared"] / "mi.json").unlink()
    report = collect({"baseline": run})
    text = " ".join(read(render(report)).text)
    assert "profile.json" in text
    assert "Lead over" not in text


def test_all_equal_and_all_zero_metrics_still_draw(own_files: Files) -> None:
    run = own_files()["cfm"]
    zero = {"value": 0.0, "low": 0.0, "high": 0.0, "n": 5}
    document = {"summary": {"recall@50": zero, "tail_recall@50": zero}, "certificate": {}}
    (run / "evaluation/test.json").write_text(json.dumps(document))
    columns = {"query": np.arange(5), "recall@50": np.zeros(5)}
    pq.write_table(pa.table(columns), run / "evaluation/test.parquet")
    report = collect({"a": run, "b": run})
    assert report.headline.verdict == "tied"
    text = " ".join(read(render(report)).text)
    assert "No evaluation here has a certificate" in text


def test_text_that_is_no_unicode_still_gives_a_valid_file(own_files: Files, tmp_path: Path) -> None:
    run = own_files()["cfm"]
    report = collect({"cfm": run}, title="half a pair \ud800", notes=["\x00 \x1b[31m"])
    written = write_report(report, tmp_path / "out" / "report.html")
    read(Path(written).read_text(encoding="utf-8"))


def test_summary_has_the_methods_with_their_intervals(demo_report: Report, tmp_path: Path) -> None:
    document = write_summary(demo_report, tmp_path / "demo" / "summary.json")
    assert json.loads((tmp_path / "demo/summary.json").read_text()) == document
    assert set(document["methods"]) >= {"popularity", "content", "baseline", "cfm", "cfm_tuned"}
    for cells in document["methods"].values():
        for key in ("recall@10", "recall@50", "map@10", "map@50", "tail_recall@50"):
            assert cells[key]["low"] <= cells[key]["value"] <= cells[key]["high"]
    assert "baseline was not searched" in document["note"]
    assert document["headline"] == demo_report.headline.sentence
