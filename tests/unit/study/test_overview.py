"""The picture of all gains: every difference in its panel, and a file that stands alone."""

import copy
from typing import Any
from xml.etree import ElementTree

import pytest

from study_files import study_tables
from twotower.report.formats import gain
from twotower.study.document import Document
from twotower.study.overview import overview, standing_alone

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    return study_tables()


def drawn(tables: dict[str, Any]) -> ElementTree.Element:
    picture = overview(Document(tables))
    assert picture is not None
    return ElementTree.fromstring(standing_alone(picture))


def of_baseline(tables: dict[str, Any]) -> list[dict[str, Any]]:
    metric = tables["primary"][0]
    return [c for c in tables["contrasts"] if (c["against"], c["metric"]) == ("baseline", metric)]


def test_every_difference_stands_in_the_picture(tables: dict[str, Any]) -> None:
    picture, own = drawn(tables), of_baseline(tables)
    hovers = sorted(e.text or "" for e in picture.iter(f"{SVG}title"))
    said = [hover.split(":", 1)[1] for hover in hovers]
    assert sorted(f":{text}" for text in said) == sorted(
        f": {gain(c['relative'])} [{gain(c['relative_low'])}, {gain(c['relative_high'])}]"
        for c in own
    )
    filled = [e for e in picture.iter(f"{SVG}circle") if e.get("class") == "dot"]
    assert len(filled) == sum(bool(c["primary"] and c["significant"]) for c in own)


def test_what_lies_beyond_the_axis_is_an_arrow(tables: dict[str, Any]) -> None:
    changed = copy.deepcopy(tables)
    far = of_baseline(changed)[0]
    far |= {"relative": 0.1, "relative_low": -0.2, "relative_high": 3.0}
    before, after = drawn(tables), drawn(changed)
    width = float(after.get("width", 0))
    assert len(list(after.iter(f"{SVG}path"))) == len(list(before.iter(f"{SVG}path"))) + 1
    assert all(0 <= float(e.get("cx", 0)) <= width for e in after.iter(f"{SVG}circle"))


def test_the_file_needs_nothing_else(tables: dict[str, Any]) -> None:
    picture = drawn(tables)
    style = picture.find(f"{SVG}style")
    assert style is not None
    assert "--c1:" in (style.text or "")
    assert "prefers-color-scheme: dark" in (style.text or "")


def test_no_difference_is_no_picture(tables: dict[str, Any]) -> None:
    assert overview(Document(tables | {"contrasts": []})) is None
    nulls = [c | {"relative": None} for c in tables["contrasts"]]
    assert overview(Document(tables | {"contrasts": nulls})) is None


def test_the_axis_goes_as_far_as_what_is_significant(tables: dict[str, Any]) -> None:
    changed = copy.deepcopy(tables)
    far = next(c for c in of_baseline(changed) if c["primary"])
    far |= {"relative": 2.0, "relative_low": 1.8, "relative_high": 2.2}
    far |= {"p": 1e-9, "p_holm": 1e-8, "significant": True}
    told = "+200.0 % [+180.0 %, +220.0 %]"
    hovers = [e.text or "" for e in drawn(changed).iter(f"{SVG}title")]
    assert any(told in hover for hover in hovers)
    far |= {"p": 0.9, "p_holm": 1.0, "significant": False}  # beyond, and only an arrow
    picture = drawn(changed)
    assert not any(told in (e.text or "") for e in picture.iter(f"{SVG}title"))
    assert len(list(picture.iter(f"{SVG}path"))) == 1


def test_marked_runs_are_told_in_the_picture(tables: dict[str, Any]) -> None:
    said = [e.text or "" for e in drawn(tables).iter(f"{SVG}text")]
    assert "wikispeedia 10 % · Baseline ‡" in said
    assert said.count("†‡") == 1  # CFM on debian at 10 %
    assert "† undertrained, ‡ best at first validation: some or all of its runs" in said
    rows = [row | {"undertrained": 0, "first_look": 0} for row in tables["rows"]]
    assert not any("†" in (e.text or "") for e in drawn(tables | {"rows": rows}).iter())
