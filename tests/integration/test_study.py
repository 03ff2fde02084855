"""A whole small study: run on Ray, killed and gone on with, reproduced, its page."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from page_reader import Reader
from small_study import TRIALS_ONLY, small_study
from twotower.core.errors import DataError, InputError
from twotower.core.storage import Store
from twotower.report.formats import score
from twotower.study.complete import complete as run_study
from twotower.study.console import print_study
from twotower.study.ledger import FILE, Ledger
from twotower.study.reproduce import reproduce

TIMES = ("seconds", "core_seconds", "trial_core_seconds", "date", "environment", "command")


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("study")
    file = small_study(folder)
    return file, run_study(file, lambda _: None, most=1)  # one slot: all ends meet


def test_a_study_ends_with_tables_claims_and_page(finished: tuple[Path, dict[str, Any]]) -> None:
    file, found = finished
    out = file.parent / "out"
    assert found["complete"]
    assert found["runs_done"] == found["runs_total"] == 20
    tables = json.loads((out / "tables.json").read_text())
    assert [row["method"] for row in tables["rows"]][:2] == ["baseline", "cfm"]
    assert all(len(row["seeds"]) == 2 for row in tables["rows"] if row["kind"] == "tuned")
    claims = json.loads((out / "claims.json").read_text())
    assert [claim["fraction"] for claim in claims] == [1.0, 0.5]
    page = (out / "index.html").read_text()
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert "CFM beats the baseline" in "".join(reader.text)
    assert not list((file.parent / "runs" / "study-tiny").glob("[0-9a-f]*")), "runs clean up"


def test_values_are_means_of_what_the_runs_measured(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    file, found = finished
    ledger = Ledger(Store(file.parent / "out"))
    for row in found["rows"]:
        if row["kind"] != "tuned":
            continue
        lines = [
            line
            for line in ledger.runs()
            if line["kind"] == "seed"
            and (line["dataset"], line["fraction"], line["method"])
            == (row["dataset"], row["fraction"], row["method"])
        ]
        assert len(lines) == 2
        for metric, value in row["metrics"].items():
            measured = [line["test"][metric] for line in lines]
            if None in measured:  # no true item in the slice
                assert value["value"] is None
                continue
            assert value["value"] == pytest.approx(sum(measured) / 2, abs=1e-12), metric


def test_a_study_that_is_done_does_nothing(finished: tuple[Path, dict[str, Any]]) -> None:
    file, found = finished
    before = (file.parent / "out" / FILE).read_bytes()
    heard: list[Any] = []
    again = run_study(file, heard.append)
    assert not heard
    assert (file.parent / "out" / FILE).read_bytes() == before
    assert without_times(again) == without_times(found)


def test_a_study_without_seeds_ends_at_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = small_study(tmp_path, **TRIALS_ONLY, datasets={"small": {"config": "small.yaml"}})
    found = run_study(file, lambda _: None, most=1)
    assert found["complete"]
    assert found["runs_done"] == found["runs_total"] == 4
    lines = _runs(tmp_path)
    assert [line["kind"] for line in lines] == ["trial"] * 4
    assert not any(key in line for line in lines for key in ("test", "ranks", "protocol"))
    assert found["contrasts"] == found["claims"] == []
    for row in found["rows"]:
        own = [line["value"] for line in lines if line["method"] == row["method"]]
        best = max(range(2), key=lambda n: own[n])
        assert row["validation"] == {
            "metric": "recall@10",
            "value": own[best],
            "values": own,
            "done": 2,
            "planned": 2,
        }
        chosen = next(x for x in lines if x["value"] == own[best] and x["method"] == row["method"])
        assert row["settings"] == chosen["params"]
        assert row["metrics"] == {}
    assert [facts["name"] for facts in found["datasets"]] == ["small"]
    reader = Reader()
    reader.feed((tmp_path / "out" / "index.html").read_text())
    assert not reader.open
    shown = next(t for t in reader.tables if t.section == "validation")
    cells = {row[0].text.strip(): row[1].text for row in shown.rows[2:]}
    assert cells == {
        {"baseline": "baseline", "cfm": "CFM"}[row["method"]]: score(row["validation"]["value"])
        for row in found["rows"]
    }
    print_study(found)
    printed = capsys.readouterr().out
    assert "Recall@10, small 100%" in printed
    for row in found["rows"]:
        assert re.search(rf"{row['method']} +{row['validation']['value']:.4f} *\n", printed)


def test_runs_reproduce_bit_for_bit(finished: tuple[Path, dict[str, Any]]) -> None:
    ledger = finished[0].parent / "out" / FILE
    lines = [json.loads(text) for text in ledger.read_text().splitlines()]
    for kind in ("trial", "seed", "reference"):
        line = next(x for x in lines if x.get("kind") == kind)
        assert reproduce(ledger, line["id"]).difference is None


def test_what_differs_first_is_named(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    ledger = finished[0].parent / "out" / FILE
    lines = [json.loads(text) for text in ledger.read_text().splitlines()]
    seed = next(x for x in lines if x.get("kind") == "seed")
    seed["curve"][1][1] += 1e-9
    (tmp_path / FILE).write_text("\n".join(json.dumps(x) for x in lines) + "\n")
    found = reproduce(tmp_path / FILE, seed["id"])
    assert found.difference is not None
    assert found.difference.startswith("validation after epoch 2")
    with pytest.raises(InputError, match="no run begins with"):
        reproduce(tmp_path / FILE, "zzz")


def test_runs_of_other_protocols_are_refused(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    file = finished[0]
    lines = [json.loads(x) for x in (file.parent / "out" / FILE).read_text().splitlines()]
    note = next(x for x in lines if isinstance(x.get("value"), dict) and "ties" in x["value"])
    other = {"note": "f" * 12, "value": {**note["value"], "filter": "none"}}
    seed = next(x for x in lines if x.get("kind") == "seed" and x["method"] == "cfm")
    seed["protocol"] = other["note"]
    changed = small_study(file.parent, folder=str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    texts = [json.dumps(x) for x in [other, *lines]]
    (tmp_path / "out" / FILE).write_text("\n".join(texts) + "\n")
    with pytest.raises(InputError, match=r"protocol\.filter"):
        run_study(changed, lambda _: None, run=False)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"version": 0}, r"protocol\.version: 0 -> 1; delete its line"),
        ({"filter": "none"}, r"protocol\.filter: 'none' -> 'train and validation positives'"),
        ({"ties": None}, r"protocol\.ties: None -> "),
    ],
)
def test_runs_that_all_have_another_protocol_than_todays_are_refused(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    file = finished[0]
    lines = [json.loads(x) for x in (file.parent / "out" / FILE).read_text().splitlines()]
    for line in lines:
        if isinstance(line.get("value"), dict) and "ties" in line["value"]:
            line["value"] |= changes
    changed = small_study(file.parent, folder=str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / FILE).write_text("".join(json.dumps(x) + "\n" for x in lines))
    for run in (False, True):
        with pytest.raises(InputError, match=told):
            run_study(changed, lambda _: None, run=run)


@pytest.mark.parametrize("kind", ["protocol", "environment"])
def test_a_lost_note_is_named_with_the_mend(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, kind: str
) -> None:
    file = finished[0]
    lines = [json.loads(x) for x in (file.parent / "out" / FILE).read_text().splitlines()]
    digits = next(x for x in lines if x.get("kind") == "seed")[kind]
    changed = small_study(file.parent, folder=str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    kept = [json.dumps(x) + "\n" for x in lines if x.get("note") != digits]
    (tmp_path / "out" / FILE).write_text("".join(kept))
    with pytest.raises(DataError, match=f"note {digits} is missing.*or delete the lines that name"):
        run_study(changed, lambda _: None, run=False)
    named = [text for text in kept if digits not in text]  # the mend
    (tmp_path / "out" / FILE).write_text("".join(named))
    found = run_study(changed, lambda _: None, run=False)
    assert found["runs_done"] < found["runs_total"] == 20


def test_a_seed_line_without_ranks_is_named(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    file = finished[0]
    lines = [json.loads(x) for x in (file.parent / "out" / FILE).read_text().splitlines()]
    number, seed = next((n, x) for n, x in enumerate(lines, 1) if x.get("kind") == "seed")
    del seed["ranks"]
    changed = small_study(file.parent, folder=str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / FILE).write_text("".join(json.dumps(x) + "\n" for x in lines))
    with pytest.raises(DataError, match=rf"{FILE}, line {number} has no 'ranks'"):
        run_study(changed, lambda _: None, run=False)


@pytest.mark.parametrize(
    ("commit", "told"),
    [
        ("a" * 40, f"; the line was made at commit {'a' * 40}, this is .*: check that commit out"),
        ("b" * 40 + "+", f"made at commit {'b' * 40} with uncommitted changes, this is "),
        ("its own", None),
        (None, None),
    ],
)
def test_a_difference_names_another_commit(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, commit: str | None, told: str | None
) -> None:
    ledger = finished[0].parent / "out" / FILE
    lines = [json.loads(text) for text in ledger.read_text().splitlines()]
    reference = next(x for x in lines if x.get("kind") == "reference")
    note = next(x for x in lines if x.get("note") == reference["environment"])
    if commit is None:
        del note["value"]["commit"]
    elif commit != "its own":
        note["value"]["commit"] = commit
    same = tmp_path / "same"
    same.mkdir()
    (same / FILE).write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert reproduce(same / FILE, reference["id"]).difference is None
    reference["references"]["popularity"]["test"]["recall@10"] += 1e-9
    (tmp_path / FILE).write_text("".join(json.dumps(x) + "\n" for x in lines))
    difference = reproduce(tmp_path / FILE, reference["id"]).difference
    assert difference is not None
    assert difference.startswith("popularity: recall@10")
    if told is None:
        assert "commit" not in difference
    else:
        assert re.search(told, difference)


@pytest.mark.slow
def test_a_study_killed_three_times_ends_as_the_unbroken_one(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    file = small_study(tmp_path)
    draws = random.Random(7)
    command = [sys.executable, "-m", "twotower.cli", "study", str(file)]
    kills = 0
    while kills < 3:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        before = len(_runs(tmp_path))
        while len(_runs(tmp_path)) < before + 2 and process.poll() is None:
            time.sleep(0.05)
        time.sleep(draws.uniform(0, 1.5))
        assert process.poll() is None, "it ended before it was killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    # By place: names of runs hold the paths of their data, which lies elsewhere here.
    assert _measured(tmp_path) == _measured(finished[0].parent)


def _measured(folder: Path) -> dict[tuple[Any, ...], list[Any]]:
    where = ("dataset", "fraction", "method", "kind", "seed", "trial")
    what = ("status", "value", "best", "curve", "weights", "ranks", "test", "references")
    runs = _runs(folder)
    found = {tuple(r[n] for n in where): [r.get(n) for n in what] for r in runs}
    assert len(found) == len(runs) == 20
    return found


def _runs(folder: Path) -> list[dict[str, Any]]:
    file = folder / "out" / FILE
    return Ledger(Store(file.parent)).runs() if file.exists() else []
