"""Grids of a study: every combination as a point of a curve against bytes, and as a line."""

from typing import Any

import pytest

from page_reader import read
from study_files import study_claims, study_tables
from twotower.report.formats import percent, score
from twotower.study.page import render

PATHS = ["model.embeddings.large.num_subspaces", "model.embed_dim"]
SIZES = {(8, 16): 600_000, (8, 32): 900_000, (16, 16): 700_000, (16, 32): 1_100_000}


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    """Of one grid; not to be changed."""
    found = study_tables()
    one = next(sweep for sweep in found["sweeps"] if len(sweep["points"]) >= 4)
    points = [
        {
            **point,
            "value": dict(zip(PATHS, value, strict=True)),
            "sizes": {"table_bytes": size, "full_table_bytes": 5_000_000, "dense_bytes": 9},
        }
        for point, (value, size) in zip(one["points"], SIZES.items(), strict=False)
    ]
    grid = {**one, "title": "D and width", "path": None, "grid": PATHS, "points": points}
    return {**found, "sweeps": [grid]}


def test_points_are_lines_from_the_smallest_tables_up(tables: dict[str, Any]) -> None:
    page = read(render(tables, study_claims(tables)))
    (table,) = [table for table in page.tables if table.section == "sweeps"]
    _, *rows = [[cell.text for cell in cells] for cells in table.rows]
    assert [row[:2] for row in rows] == [["8", "16"], ["16", "16"], ["8", "32"], ["16", "32"]]
    assert [row[3] for row in rows] == [percent(size / 5e6) for size in sorted(SIZES.values())]
    metric = tables["primary"][0]
    smallest = tables["sweeps"][0]["points"][0]["metrics"][metric]["value"]
    assert score(smallest) in rows[0]


def test_a_curve_runs_along_the_first_path(tables: dict[str, Any]) -> None:
    text = render(tables, study_claims(tables))
    part = text.split('<section id="sweeps">')[1].split("</section>")[0]
    assert "D and width" in part
    for label in ("embed_dim 16", "embed_dim 32"):
        assert part.count(f">{label}<") == len(tables["primary"])
    assert part.count("<circle") == 4 * len(tables["primary"])


def test_long_values_are_named_by_letters(tables: dict[str, Any]) -> None:
    tiers = {16: [{"share": 1, "num_centroids": 256}], 32: [{"share": 1, "num_centroids": 64}]}
    (grid,) = tables["sweeps"]
    points = [
        {**point, "value": {**point["value"], PATHS[1]: tiers[point["value"][PATHS[1]]]}}
        for point in grid["points"]
    ]
    changed = {**tables, "sweeps": [{**grid, "points": points}]}
    text = render(changed, study_claims(tables))
    assert text.count(">embed_dim A<") == text.count(">embed_dim B<") == len(tables["primary"])
    (table,) = [table for table in read(text).tables if table.section == "sweeps"]
    assert table.rows[1][1].text == "A: [{share: 1, num_centroids: 256}]"
