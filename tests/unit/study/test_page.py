"""The page of a study says what its documents say, whatever is in them or missing."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from page_reader import Reader, Table, assert_self_contained, read
from study_files import (
    DATASETS,
    METHODS,
    METRICS,
    PAPER,
    REFERENCES,
    SLICES,
    study_claims,
    study_tables,
)
from twotower.report.formats import gain, integer, p_value, percent, score
from twotower.study.page import render, write_page

DASH = "–"  # noqa: RUF001 an en dash is meant
EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>&\x1b[31m'
TITLES = {name: title for name, (title, _) in METHODS.items()}


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    """Not to be changed."""
    return study_tables()


@pytest.fixture(scope="module")
def claims(tables: dict[str, Any]) -> list[dict[str, Any]]:
    """Not to be changed."""
    return study_claims(tables)


@pytest.fixture(scope="module")
def page(tables: dict[str, Any], claims: list[dict[str, Any]]) -> Reader:
    """The page of all of it, read back."""
    return read(render(tables, claims))


def section(page: Reader, name: str) -> list[Table]:
    return [table for table in page.tables if table.section == name]


def settings(tables: dict[str, Any]) -> list[tuple[str, float]]:
    return [(d["name"], d["fraction"]) for d in tables["datasets"]]


def title(method: str) -> str:
    return TITLES.get(method, method.replace("_", " "))


def lines(table: Table) -> dict[str, list[Any]]:
    """Cells by the text of the row's head."""
    return {row[0].text.strip(): row[1:] for row in table.rows}


def differences(tables: dict[str, Any], against: str = "baseline") -> dict[tuple, dict[str, Any]]:
    return {
        (c["dataset"], c["fraction"], c["method"], c["metric"]): c
        for c in tables["contrasts"]
        if c["against"] == against
    }


def expected_gain(contrast: dict[str, Any]) -> str:
    """Before a corrected gain ≈ where it is none, behind a descriptive one ° where it may be."""
    told = gain(contrast["relative"])
    if contrast["primary"]:
        return told if contrast["significant"] else f"≈ {told}"
    return f"{told}°" if contrast["significant"] else told


def expected_look(contrast: dict[str, Any]) -> str:
    if not contrast["primary"]:
        return "descriptive"
    return "same" if not contrast["significant"] else "ahead" if contrast["mean"] > 0 else "behind"


def signs(row: dict[str, Any]) -> list[str]:
    return [sign for sign, key in (("†", "undertrained"), ("‡", "first_look")) if row[key]]


def test_the_page_is_whole_and_self_contained(
    tables: dict[str, Any], claims: list[dict[str, Any]], page: Reader
) -> None:
    assert_self_contained(render(tables, claims))
    ids = {a["id"] for tag, a in page.tags if tag == "section"}
    linked = {(a.get("href") or "")[1:] for tag, a in page.tags if tag == "a"}
    assert ids == linked
    assert not re.search(r"\b(None|nan|undefined|Undefined)\b", " ".join(page.text))


def test_every_mean_interval_and_gain_stands_in_its_place(
    tables: dict[str, Any], page: Reader
) -> None:
    shown = section(page, "results")
    gaps = differences(tables)
    assert len(shown) == len(settings(tables))
    for row in tables["rows"]:
        table = shown[settings(tables).index((row["dataset"], row["fraction"]))]
        cells = lines(table)[title(row["method"])]
        for i, metric in enumerate(METRICS):
            mean, gained = cells[2 * i], cells[2 * i + 1]
            told = row["metrics"][metric]
            assert mean.text == score(told["value"])
            assert mean.small == [f"{score(told['low'])}{DASH}{score(told['high'])}"]
            gap = gaps.get((row["dataset"], row["fraction"], row["method"], metric))
            if gap is not None:
                assert gained.text == expected_gain(gap)
                assert gained.classes[-1] == expected_look(gap)
            elif row["kind"] == "reference":
                assert gained.classes[-1] == "untested"


def trials_only(tables: dict[str, Any]) -> dict[str, Any]:
    """The same study before any seed: rows with the best of their trials, one of them unfinished."""
    changed = copy.deepcopy(tables)
    changed |= {"seeds": [], "contrasts": [], "sweeps": []}
    changed["rows"] = [row for row in changed["rows"] if row["kind"] != "reference"]
    for place, row in enumerate(changed["rows"]):
        value = row["metrics"]["recall@50"]["value"]
        done = 3 if place == 1 else 8
        row |= {"metrics": {}, "seeds": []}
        row["validation"] = {
            "metric": "recall@50",
            "value": value,
            "values": [value] * done,
            "done": done,
            "planned": 8,
        }
    return changed


def test_a_study_of_trials_shows_the_best_validation_value_of_every_cell(
    tables: dict[str, Any],
) -> None:
    document = trials_only(tables)
    text = render(document, [])
    assert_self_contained(text)
    page = read(text)
    (table,) = section(page, "validation")
    assert not section(page, "results")
    shown = lines(table)
    places = settings(tables)
    for place, row in enumerate(document["rows"]):
        where = (row["dataset"], row["fraction"])
        cell = shown[title(row["method"])][places.index(where)]
        mine = row["validation"]["value"]
        assert cell.text == score(mine)
        alike = {r["method"]: r for r in document["rows"] if (r["dataset"], r["fraction"]) == where}
        top = max(r["validation"]["value"] for r in alike.values())
        assert ("best" in cell.classes) == (mine == top)
        base = alike["baseline"]["validation"]["value"]
        told = [] if row["method"] == "baseline" else [gain(mine / base - 1)]
        told += ["3 of 8 trials"] if place == 1 else []
        assert cell.small == ([", ".join(told)] if told else [])
    assert "test is left alone" in "".join(page.text)
    assert "then its seeds" not in "".join(page.text)


def test_bold_is_the_highest_of_its_column_and_nothing_else(
    tables: dict[str, Any], page: Reader
) -> None:
    for where, table in zip(settings(tables), section(page, "results"), strict=True):
        rows = [r for r in tables["rows"] if (r["dataset"], r["fraction"]) == where]
        for i, metric in enumerate(METRICS):
            body = [row for row in table.rows if len(row) == 1 + 2 * len(METRICS)][1:]
            bold = [row[0].text for row in body if "best" in row[1 + 2 * i].classes]
            top = max(rows, key=lambda r: r["metrics"][metric]["value"])
            assert bold == [title(top["method"])]


def test_what_sets_a_row_apart_stands_below_its_name(tables: dict[str, Any], page: Reader) -> None:
    shown = dict(zip(settings(tables), section(page, "results"), strict=True))

    def remarks(dataset: str, fraction: float, method: str) -> list[str]:
        table = shown[dataset, fraction]
        return next(row[0].small for row in table.rows if row[0].text.strip() == title(method))

    assert remarks("debian", 0.1, "cfm") == [
        "undertrained: 2 of 5",
        "best at first validation: 1 of 5",
    ]
    assert remarks("debian", 1.0, "cfm") == []
    assert remarks("completejourney", 1.0, "so") == []
    assert " ".join(page.text).count("5 seeds, settings of debian") >= 2  # above the tables
    assert remarks("movietweetings", 1.0, "rfm") == ["seeds missing: 1"]
    assert remarks("wikispeedia", 1.0, "no_masking") == ["3 seeds"]
    last = [row[0].text.strip() for row in shown["debian", 1.0].rows[-len(REFERENCES) :]]
    assert last == [title(name) for name in REFERENCES]


def test_slices_show_recall_with_its_gain(tables: dict[str, Any], page: Reader) -> None:
    shown = dict(zip(settings(tables), section(page, "slices"), strict=True))
    gaps = differences(tables)
    order = [f"{part}_{metric}" for part in SLICES for metric in ("recall@10", "recall@50")]
    for row in tables["rows"]:
        where = (row["dataset"], row["fraction"])
        for metric, cell in zip(order, lines(shown[where])[title(row["method"])], strict=True):
            assert cell.text == score(row["metrics"][metric]["value"])
            if gap := gaps.get((*where, row["method"], metric)):
                assert cell.small == [expected_gain(gap)]
                assert expected_look(gap) in cell.classes


def test_the_gains_of_all_settings_stand_in_one_table(tables: dict[str, Any], page: Reader) -> None:
    gaps = differences(tables)
    rows = {(r["dataset"], r["fraction"], r["method"]): r for r in tables["rows"]}
    for metric, table in zip(tables["primary"], section(page, "gains"), strict=True):
        for method in [m for m in METHODS if m != "baseline"]:
            cells = lines(table)[title(method)]
            wanted = [expected_gain(gaps[(*where, method, metric)]) for where in settings(tables)]
            assert [cell.text for cell in cells] == wanted
            marked = [signs(rows[(*where, method)]) for where in settings(tables)]
            assert [cell.small for cell in cells] == marked
    hovers = {a["title"] for _, a in page.tags if a.get("class") == "sign"}
    assert {"undertrained: 2 of 5", "best at first validation: 5 of 5"} <= hovers


def test_tables_say_that_gains_of_what_is_not_trained_have_no_test(
    tables: dict[str, Any], page: Reader
) -> None:
    told = "Not trained: their gains have no test"
    for name in ("gains", "results", "slices"):
        for table in section(page, name):
            texts = [row[0].text.strip() for row in table.rows]
            first = texts.index(told) + 1
            assert texts[first : first + len(REFERENCES)] == [title(name) for name in REFERENCES]
    trained = [row for row in tables["rows"] if row["kind"] != "reference"]
    assert told not in render(tables | {"rows": trained}, [])


def test_what_is_corrected_is_told_apart_from_what_is_descriptive(
    tables: dict[str, Any], page: Reader
) -> None:
    heads = [cell.text for cell in section(page, "results")[0].rows[1][1:]]
    assert heads == ["mean", "gain"] * 3 + ["mean", "gain, Holm"]
    heads = [cell.text for cell in section(page, "slices")[0].rows[1][1:]]
    assert [n for n, head in enumerate(heads) if "Holm" in head] == [5]  # tail @50
    text = " ".join(" ".join(page.text).split())
    told = "Grey, all others: descriptive, not corrected for the number of comparisons"
    assert (
        f"In colour: Recall@50, Holm-corrected; ≈: not distinguishable from Baseline. {told}"
        in text
    )
    assert (
        f"In colour: Tail Recall@50, Holm-corrected; ≈: not distinguishable from Baseline. {told}"
        in text
    )


def test_claims_with_their_verdicts(claims: list[dict[str, Any]], page: Reader) -> None:
    (table,) = section(page, "claims")
    rows = [row for row in table.rows[1:] if len(row) > 1]
    told = [row[0].text for row in table.rows if row[0].text in {c["note"] for c in claims}]
    assert len(rows) == len(claims)
    assert told == [claim["note"] for claim in claims if claim["note"]]
    for claim, row in zip(claims, rows, strict=True):
        texts = [cell.text for cell in row]
        if claim["ours"] is None:
            assert texts[:2] == ["all data", "… open"]
            continue
        where = claim["dataset"] + (" 10 %" if claim["fraction"] == 0.1 else "")
        assert texts[0] == where
        assert texts[1].split(" ", 1)[1] == claim["verdict"].replace("_", " ")
        assert texts[2] == (gain(claim["paper"]) if claim["paper"] is not None else DASH)
        assert texts[3] == gain(claim["ours"])
        assert row[3].small == [f"{gain(claim['low'])} to {gain(claim['high'])}"]
        assert texts[5:] == [p_value(claim["p_holm"]) if claim["p_holm"] is not None else DASH]
        asides = [text for text in row[1].small if "seeds" in text]
        needed = claim["seeds_needed"]
        assert asides == ([f"{needed} seeds would do"] if needed else [])


def test_claims_have_no_column_for_figures_that_no_paper_gives(
    tables: dict[str, Any], claims: list[dict[str, Any]]
) -> None:
    own = [claim | {"paper": None} for claim in claims if claim["verdict"] != "underpowered"]
    (table,) = section(read(render(tables, own)), "claims")
    heads = [cell.text.strip() for cell in table.rows[0]]
    assert heads == ["On", "Verdict", "Here", "here", "p (Holm)"]


def claim_rows(tables: dict[str, Any], claims: list[dict[str, Any]]) -> list[list[Any]]:
    (table,) = section(read(render(tables, claims)), "claims")
    return [row for row in table.rows[1:] if len(row) > 1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seeds_needed": 1400}, "1\u202f400 seeds would do"),
        (
            {"seeds_needed": 9, "excludes_paper": True},
            "9 seeds would dothe paper's gain is outside",
        ),
        ({"paper": None}, "no paper figure to power for"),
        ({"paper": None, "margin": 0.02}, "more queries, not seeds"),
        ({}, "more queries, not seeds"),
        ({"ours": None}, "no gain to power for"),
        ({"low": None, "high": None}, "no gain to power for"),
        ({"seeds": 1}, "one seed: its spread is not known"),
        ({"verdict": "not_shown"}, ""),
    ],
)
def test_an_underpowered_claim_says_how_many_seeds_or_why_there_is_no_number(
    tables: dict[str, Any], claims: list[dict[str, Any]], change: dict[str, Any], told: str
) -> None:
    one = claims[0] | {"verdict": "underpowered", "paper": 0.04, "seeds_needed": None}
    found, _ = claim_rows(tables, [one | change, one])
    assert "".join(found[1].small) == told


def test_claims_tell_the_marks_of_the_runs_behind_them(
    tables: dict[str, Any], claims: list[dict[str, Any]]
) -> None:
    for claim, row in zip(claims, claim_rows(tables, claims), strict=True):
        where = claim["dataset"], claim["fraction"], claim["method"], claim["against"]
        late = ["undertrained: CFM 2 of 5", "best at first validation: CFM 1 of 5"]
        first = ["best at first validation: Baseline 5 of 5"]
        told = {"debian": late if "cfm" in where else [], "wikispeedia": first}
        wanted = told.get(claim["dataset"] or "", []) if claim["fraction"] == 0.1 else []
        assert row[0].small == ([] if wanted == first and "baseline" not in where else wanted)


def test_lines_of_one_claim_are_told_apart_by_their_methods(
    tables: dict[str, Any], claims: list[dict[str, Any]]
) -> None:
    pair = [claims[0], claims[0] | {"method": "so"}]
    assert [row[0].text for row in claim_rows(tables, pair)] == [
        "debian, CFM against Baseline",
        "debian, SO against Baseline",
    ]


def test_one_far_claim_leaves_the_others_their_axis(
    tables: dict[str, Any], claims: list[dict[str, Any]]
) -> None:
    """As where the baseline finds next to nothing: an arrow, and the rest stays apart."""

    def picture(found: list[dict[str, Any]], place: int) -> ElementTree.Element:
        page = render(tables, found).split('<section id="claims">')[1]
        return ElementTree.fromstring(re.findall("<svg.*?</svg>", page)[place])

    near = {"verdict": "underpowered", "ours": 0.05, "low": -0.1, "high": 0.2, "paper": None}
    own = [claims[0] | near, claims[0] | near | {"ours": 0.3}]
    far = claims[0] | near | {"ours": 103.0, "low": -4.0, "high": 300.0}
    dots = [
        float(next(picture([*own, far], place).iter("circle")).get("cx", 0)) for place in (0, 1)
    ]
    assert dots[1] - dots[0] > 20
    assert not list(picture([*own, far], 2).iter("circle"))
    assert len(list(picture([*own, far], 2).iter("path"))) == 2
    assert list(picture([far | {"verdict": "holds"}], 0).iter("circle"))


def test_the_papers_gains_stand_beside_ours(tables: dict[str, Any], page: Reader) -> None:
    shown = section(page, "paper")
    heads = [[cell.text for cell in table.rows[0][1:]] for table in shown]
    assert heads == [["Recall@10", "Recall@50"], ["Unseen Recall@50"], ["Recall@10", "Recall@50"]]
    gaps, others = differences(tables), differences(tables, "so")
    for table, fraction, place in ((shown[0], 1.0, 0), (shown[2], 0.1, 1)):
        texts = [[cell.text.strip() for cell in row] for row in table.rows[2:]]
        for dataset in DATASETS:
            first = texts.index([dataset])
            own = texts[first + 1 : first + 4]
            assert [row[0] for row in own] == ["SO", "CFM", "CFM against SO"]
            assert [row[1] for row in own] == [
                *(gain(PAPER[name, "baseline", "recall@10"][place]) for name in ("so", "cfm")),
                "",
            ]
            assert own[0][2].startswith(expected_gain(gaps[dataset, fraction, "so", "recall@10"]))
            assert own[2][3] == gain(PAPER["cfm", "so", "recall@50"][place])
            assert own[2][4].startswith(
                expected_gain(others[dataset, fraction, "cfm", "recall@50"])
            )
    assert '<section id="paper">' not in render(tables | {"paper": []}, [])


def test_a_share_of_pairs_is_per_cent_and_a_dataset_names_its_task(
    tables: dict[str, Any], page: Reader
) -> None:
    table = section(page, "data")[0]
    heads = [cell.text for cell in table.rows[0]]
    at = heads.index("share of test pairs of unseen items")
    facts = [dataset["facts"] for dataset in tables["datasets"]]
    wanted = [percent(own["share_of_test_pairs_of_unseen_items"]) for own in facts]
    assert [row[at].text for row in table.rows[1:]] == wanted
    assert {row[heads.index("Task")].text for row in table.rows[1:]} == {"item to item"}


def test_forest_points_are_filled_where_holm_finds_them(
    tables: dict[str, Any], claims: list[dict[str, Any]]
) -> None:
    html = render(tables, claims)
    part = html.split('<section id="differences">')[1].split("</section>")[0]
    primary = [c for c in tables["contrasts"] if c["primary"]]
    assert part.count('class="hollow"') == sum(not c["significant"] for c in primary)
    assert part.count('class="dot"') == sum(c["significant"] for c in primary)


def test_every_run_stands_with_its_numbers_and_its_command(
    tables: dict[str, Any], claims: list[dict[str, Any]], page: Reader
) -> None:
    shown = {row[0].text: row for table in section(page, "runs") for row in table.rows}
    commands = {a.get("data-copy") for _, a in page.tags if a.get("data-copy")}
    for run in tables["runs"]:
        cells = [cell.text for cell in shown[run["id"]]]
        assert f"twotower reproduce runs.jsonl --run {run['id']}" in commands
        assert cells[1] == title(run["method"])
        if run["kind"] == "seed":
            tested = [score(run["metrics"][metric]) for metric in METRICS]
            steps = f"{run['best_step']} of {run['steps']}"
            spent = [integer(run["core_seconds"]), integer(run["seconds"])]
            assert cells[2] == f"seed {run['seed']}"
            assert cells[3:-3] == [score(run["validation"]), *tested, steps, *spent]
    words = {"undertrained": "undertrained", "first_look": "best at first validation"}
    for mark, word in words.items():
        marked = [row[0].text for row in shown.values() if word in row[2].small]
        assert sorted(marked) == sorted(run["id"] for run in tables["runs"] if run[mark])


def test_environments_stand_once_and_runs_point_at_them(
    tables: dict[str, Any], page: Reader
) -> None:
    """The first two differ in their commit alone."""
    first, *groups = section(page, "runs")
    runs = tables["runs"]
    references = sum(run["environment"] == "e3" for run in runs)
    told = [[cell.text for cell in row] for row in first.rows[1:]]
    versions, rest = "python 3.11.9, torch 2.13.0, ray 2.60.0", integer(len(runs) - references)
    assert told == [
        ["E1", "2 cores, Intel Xeon 2.1 GHz, 7.8 GiB", "Linux 6.8", versions, "2", rest],
        ["E2", "2 cores, AMD EPYC, 7.8 GiB", "Linux 6.8", versions, "1", str(references)],
    ]
    pointed = {row[0].text: row[-2].text for table in groups for row in table.rows[1:]}
    assert pointed == {r["id"]: "E2" if r["environment"] == "e3" else "E1" for r in runs}


def test_costs_add_up(tables: dict[str, Any], page: Reader) -> None:
    table = section(page, "cost")[0]
    for method in METHODS:
        rows = [r for r in tables["rows"] if r["method"] == method]
        spent = sum(r["core_seconds"] + (r["trial_core_seconds"] or 0) for r in rows)
        assert lines(table)[title(method)][-1].text == integer(spent)


def test_sweeps_draw_every_point_on_their_axis(
    tables: dict[str, Any], claims: list[dict[str, Any]]
) -> None:
    part = render(tables, claims).split('<section id="sweeps">')[1].split("</section>")[0]
    points = sum(len(sweep["points"]) for sweep in tables["sweeps"])
    assert part.count("<circle") == 2 * points  # two primary metrics
    assert part.count('class="level"') == 2 * 4  # 2 sweeps on 2 datasets, each in 2 metrics
    for weight in ("0.03", "0.1", "0.3", "1", "3", "10"):
        assert f">{weight}</text>" in part


def test_the_headline_counts_claims_and_leaders(
    tables: dict[str, Any], claims: list[dict[str, Any]]
) -> None:
    def headline(document: dict[str, Any], found: list[dict[str, Any]]) -> str:
        match = re.search("<h1>(.*?)</h1>", render(document, found), flags=re.DOTALL)
        assert match is not None
        return match[1]

    said = headline(tables, claims)
    holds = sum(claim["verdict"] == "holds" for claim in claims)
    assert said.startswith(f"So far, of {len(claims)} claims {holds} hold")
    assert "has the highest Recall@50 in" in said
    done = tables | {"complete": True}
    assert headline(done, claims).startswith(f"Of {len(claims)} claims {holds} hold")
    one = [c for c in claims if c["verdict"] == "holds"][:1]
    assert headline(done | {"rows": [], "contrasts": []}, one) == "The one claim holds."
    assert headline(done | {"rows": []}, []) == "No run is evaluated yet."


def test_an_incomplete_study_says_so(tables: dict[str, Any], claims: list[dict[str, Any]]) -> None:
    counts = f"{integer(tables['runs_done'])} of {integer(tables['runs_total'])}"
    assert f"Incomplete: {counts} runs done" in render(tables, claims)
    assert "Incomplete" not in render(tables | {"complete": True}, claims)


def poisoned(value: Any) -> Any:
    """The same document with EVIL behind every text and every free key."""
    if isinstance(value, str):
        return value if value in ("reference", "tuned", "borrowed") else value + EVIL
    if isinstance(value, list):
        return [poisoned(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    free = {"metrics", "settings", "facts", "versions", "baseline"}
    return {
        key: {k + EVIL: poisoned(v) for k, v in inner.items()}
        if key in free and isinstance(inner, dict)
        else poisoned(inner)
        for key, inner in value.items()
    }


def test_texts_of_the_documents_are_never_markup(
    tables: dict[str, Any], claims: list[dict[str, Any]]
) -> None:
    html = render(poisoned(tables), poisoned(claims), ledger=EVIL)
    assert html.count("<script") == 1
    assert "<img" not in html
    assert not [a for _, a in read(html).tags if "onerror" in a]


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {},
        lambda t: {key: [] if isinstance(value, list) else value for key, value in t.items()},
        dict.fromkeys,
        lambda t: t | {"rows": t["rows"][:1], "contrasts": [], "sweeps": [], "runs": t["runs"][:1]},
        lambda t: t | {"rows": [r for r in t["rows"] if r["fraction"] == 1.0], "datasets": []},
        lambda t: t | {"rows": [r for r in t["rows"] if r["method"] != "baseline"]},
        lambda t: t | {"sweeps": [s | {"points": s["points"][:1]} for s in t["sweeps"]]},
    ],
    ids=["nothing", "empty lists", "nulls", "one row", "one fraction", "no baseline", "one point"],
)
def test_what_is_missing_leaves_a_whole_page(
    tables: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    html = render(change(tables), [])
    text = " ".join(read(html).text)
    assert "No claim is decided yet." in text
    assert not re.search(r"\b(None|nan|inf)\b", text)


@pytest.mark.parametrize("seed", range(12))
def test_any_number_may_be_null_and_any_key_missing(
    tables: dict[str, Any], claims: list[dict[str, Any]], seed: int
) -> None:
    rng = np.random.default_rng(seed)

    def thinned(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: thinned(v) for k, v in value.items() if rng.random() > 0.03}
        if isinstance(value, list):
            return [thinned(inner) for inner in value if rng.random() > 0.5]
        return None if rng.random() < 0.05 else value

    text = " ".join(read(render(thinned(tables), thinned(claims))).text)
    assert not re.search(r"\b(None|nan|inf)\b", text)


def test_the_documents_are_not_changed(
    tables: dict[str, Any], claims: list[dict[str, Any]]
) -> None:
    own = copy.deepcopy((tables, claims))
    render(*own)
    assert own == (tables, claims)


def test_the_page_is_written_beside_its_ledger(
    tables: dict[str, Any],
    claims: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    own_tables, own_claims = json.loads(json.dumps([tables, claims]))  # as from the files
    write_page(own_tables, own_claims, Path("docs") / "paper" / "index.html")
    html = (tmp_path / "docs" / "paper" / "index.html").read_text(encoding="utf-8")
    assert html == render(tables, claims, "docs/paper/runs.jsonl")
    assert f"twotower reproduce docs/paper/runs.jsonl --run {tables['runs'][0]['id']}" in html
    write_page(tables, claims, tmp_path.parent / f"{tmp_path.name}-other.html")
    elsewhere = (tmp_path.parent / f"{tmp_path.name}-other.html").read_text(encoding="utf-8")
    assert str(tmp_path.parent) not in elsewhere


def test_sizes_are_drawn_where_tables_differ(
    tables: dict[str, Any], claims: list[dict[str, Any]], page: Reader
) -> None:
    """On movietweetings at both fractions; methods of one curve are joined."""
    part = render(tables, claims).split('<section id="sizes">')[1].split("</section>")[0]
    named = re.findall("<h3>(movie.*?|debian.*?|wiki.*?|complete.*?)</h3>", part)
    assert named == ["movietweetings", "movietweetings 10 %"]
    methods = len(METHODS) - 1
    assert part.count("<circle") == 2 * 2 * methods  # fractions, primary metrics; less the baseline
    assert part.count("RFM, both sizes</text>") == 2 * 2
    first = lines(section(page, "sizes")[0])
    assert [cell.text for cell in first["RFM"]][:3] == ["1.2 MB", "15.0 %", "1.49 MB"]
    picture = ElementTree.fromstring(re.findall("<svg.*?</svg>", part)[0])
    at = {e[0].text or "": float(e.get("cx", 0)) for e in picture.iter("circle")}
    half, one, two = (
        next(x for told, x in at.items() if f" at {size} [" in told)
        for size in ("0.6", "1.2", "2.4")
    )
    assert two - one == pytest.approx(one - half, abs=7)  # but for what sets curves apart
    same = copy.deepcopy(tables)
    for row in same["rows"]:
        row["sizes"] = tables["rows"][0]["sizes"] and dict(tables["rows"][0]["sizes"])
    assert '<section id="sizes">' not in render(same, claims)


def test_the_page_says_how_many_seeds_a_margin_takes(
    tables: dict[str, Any], claims: list[dict[str, Any]]
) -> None:
    told = "Not being worse by 2.0 % of Recall@50 takes 7 seeds on debian 10 %"
    assert told in render(tables, claims)
    endless = copy.deepcopy(tables)
    endless["power"][0]["seeds_needed"] = None
    assert "takes more than 1,000 seeds on debian 10 %" in render(endless, claims)


def test_the_best_trials_have_marks_of_their_own(tables: dict[str, Any]) -> None:
    document = trials_only(tables)
    for row in document["rows"]:
        row |= {"undertrained": 0, "first_look": 0, "best_trial": {}}
    document["rows"][0]["best_trial"] = {"undertrained": 0, "first_look": 1}
    page = read(render(document, []))
    (table,) = section(page, "validation")
    found = [cell.text for row in table.rows for cell in row if "‡" in cell.small]
    assert found == [score(document["rows"][0]["validation"]["value"])]
    assert "The best trials of some methods are marked ‡" in " ".join(page.text)
