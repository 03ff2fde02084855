"""Parts of `tables.json` that no run of a study is needed for."""

from pathlib import Path

from small_study import small_study
from twotower.core.storage import Store
from twotower.study.ledger import Ledger
from twotower.study.load import load_study
from twotower.study.rows import best_trial, environments, paper_gains

CLAIM = {"method": "cfm", "against": "baseline", "metric": "recall@10"}


def test_environments_stand_once_whatever_command_made_the_run(tmp_path: Path) -> None:
    ledger = Ledger(Store(tmp_path))
    one = {"commit": "a", "cpu": "x", "versions": {"torch": "2"}}
    noted = [
        {**one, "command": "study paper.yaml"},
        {**one, "commit": "b", "command": "study paper.yaml"},
        {**one, "command": "study best.yaml"},
    ]
    lines = [{"environment": ledger.note(noted[n])} for n in (0, 1, 2, 1)]
    found, names = environments(lines, ledger)
    assert found == [{"id": "e1", **one}, {"id": "e2", **one, "commit": "b"}]
    assert names == ["e1", "e2", "e1", "e2"]


def test_the_best_trial_is_the_first_of_the_highest() -> None:
    lines = [{"value": value, "id": n} for n, value in enumerate((None, 0.1, 0.3, 0.3))]
    assert [line["id"] for line in best_trial(lines)] == [2]
    assert best_trial(lines[:1]) == []


def test_the_papers_gains_are_those_of_single_gains(tmp_path: Path) -> None:
    claims = [
        {**CLAIM, "claim": "a", "fractions": [1.0, 0.5], "paper": 0.04},
        {**CLAIM, "claim": "b", "fractions": [0.5], "paper_fractions": {"0.5": -0.2}},
        {**CLAIM, "claim": "c", "paper": 0.9},
        {**CLAIM, "claim": "d", "fractions": [0.5], "grows_from": 1.0}
        | {"paper_fractions": {"0.5": 0.1}},
        {**CLAIM, "claim": "e", "more_than": "tail_recall@10", "paper": 0.1},
        {**CLAIM, "claim": "f", "metric": "map@10", "datasets": ["small"], "paper": 0.3},
    ]
    paper = [
        {"method": "cfm", "metric": "map@5", "gains": {"1": 0.0, "0.5": 0.2}},
        {"method": "cfm", "metric": "recall@10", "gains": {"1": 0.7}},
    ]
    file = small_study(tmp_path, claims=claims, paper=paper)
    found = list(paper_gains(load_study(file).plan))
    assert {(one["method"], one["against"]) for one in found} == {("cfm", "baseline")}
    assert [(one["metric"], one["fraction"], one["gain"]) for one in found] == [
        ("recall@10", 1.0, 0.04),
        ("recall@10", 0.5, -0.2),
        ("map@10", 1.0, 0.3),
        ("map@5", 1.0, 0.0),
        ("map@5", 0.5, 0.2),
    ]
    assert [one["datasets"] for one in found] == [None, None, ("small",), None, None]
