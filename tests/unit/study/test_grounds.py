"""What claims rest on: tasks, and the runs of every difference they are about."""

from pathlib import Path
from typing import Any

from small_study import small_study
from twotower.study.grounds import grounded
from twotower.study.load import load_study


def contrast(fraction: float, metric: str, method: int, against: int) -> dict[str, Any]:
    where = {"dataset": "small", "fraction": fraction, "method": "cfm", "against": "baseline"}
    runs = {"method": method, "against": against, "runs": 2}
    return {**where, "metric": metric, "undertrained": runs, "first_look": {**runs, "against": 0}}


def row(method: str, value: float, fraction: float = 1.0) -> dict[str, Any]:
    kind = "reference" if method in ("popularity", "content") else "tuned"
    where = {"dataset": "small", "fraction": fraction, "method": method, "kind": kind}
    return {**where, "metrics": {"recall@10": {"value": value}}}


def test_each_row_gets_its_task_and_the_marks_of_its_runs(tmp_path: Path) -> None:
    base = {"method": "cfm", "against": "baseline", "metric": "recall@10"}
    planned = [
        {"claim": "plain", **base},
        {"claim": "not worse", **base, "margin": 0.02},
        {"claim": "grows", **base, "fractions": [0.5], "grows_from": 1.0},
        {"claim": "larger", **base, "more_than": "tail_recall@10"},
    ]
    plan = load_study(small_study(tmp_path, claims=planned)).plan
    tables = {
        "datasets": [{"name": "small", "fraction": f, "task": "sequence"} for f in (1.0, 0.5)],
        "contrasts": [
            contrast(1.0, "recall@10", 2, 1),
            contrast(1.0, "tail_recall@10", 2, 1),
            contrast(0.5, "recall@10", 1, 0),
        ],
        "rows": [
            *(row("cfm", 0.3), row("baseline", 0.2), row("popularity", 0.25), row("content", 0.1)),
            *(row("cfm", 0.1, 0.5), row("baseline", 0.2, 0.5)),
            *(row("popularity", 0.22, 0.5), row("content", 0.3, 0.5)),
        ],
    }
    rows = [
        {**base, "claim": claim, "dataset": "small", "fraction": fraction, "verdict": "holds"}
        for claim, fraction in (("plain", 1.0), ("not worse", 1.0), ("grows", 0.5), ("larger", 1.0))
    ]
    found = grounded(plan, tables, rows)
    assert [row["task"] for row in found] == ["sequence"] * 4
    above = [row["untrained_above"] for row in found]
    assert above == [None, None, "content", None], "more than both methods, the highest"
    once, both = {"method": 2, "against": 1, "runs": 2}, {"method": 3, "against": 1, "runs": 4}
    assert [row["undertrained"] for row in found] == [once, once, both, once]
    assert found[2]["first_look"] == {"method": 3, "against": 0, "runs": 4}
    assert all(row["verdict"] == "holds" for row in found)
    assert all("task" not in row for row in rows)
