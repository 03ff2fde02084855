"""A part of a study: which runs names stand for, and that no other run starts."""

from pathlib import Path
from typing import Any

import pytest

from small_study import TRIALS_ONLY, small_study
from twotower.core.errors import InputError
from twotower.core.seeding import derive
from twotower.core.storage import Store
from twotower.study.asked import part_of, whole
from twotower.study.book import Book
from twotower.study.cells import RunSpec
from twotower.study.ledger import Ledger
from twotower.study.load import Study, load_study

METHODS: dict[str, Any] = {
    "baseline": {},
    "cfm": {"set": {"ssl.weight": 0.3}},
    "warm": {"set": {"train.num_epochs": 3}, "settings_from": "cfm"},
}
DATASETS: dict[str, Any] = {
    "small": {"config": "small.yaml", "fractions": [1.0, 0.5]},
    "other": {"config": "small.yaml", "settings_from": "small", "seeds": 1},
}


def study_of(folder: Path, **changes: Any) -> Study:
    return load_study(small_study(folder, methods=METHODS, datasets=DATASETS, **changes))


def ended(spec: RunSpec) -> dict[str, Any]:
    value = (derive(0, spec.id) % 1000) / 1000
    return {"id": spec.id, "kind": spec.kind, "status": "done", "value": value, "key": spec.key}


def played(folder: Path, study: Study, *names: str) -> list[tuple[str, str, float, str]]:
    """Run all that names stand for: kind, dataset, fraction and method of each run."""
    ledger = Ledger(Store(folder / "ledger"))
    book = Book(study, ledger, part_of(study, names))
    total = book.left
    assert total == book.total
    while ready := list(book.ready()):
        for spec in ready:
            ledger.add(ended(spec))
    assert book.left == 0
    assert len(ledger.runs()) == total
    assert not Book(study, Ledger(Store(folder / "ledger")), part_of(study, names)).left
    return [(line["kind"], *line["key"]) for line in ledger.runs()]


@pytest.mark.parametrize(
    ("names", "runs"),
    [
        # 2 trials and 2 seeds at 2 fractions, a seed on the other dataset
        (["cfm"], {("small", "cfm"): 8, ("other", "cfm"): 1}),
        (["small/cfm"], {("small", "cfm"): 8}),
        # 2 trials of the lender at 2 fractions, none of its seeds
        (["small/warm"], {("small", "cfm"): 4, ("small", "warm"): 4}),
        (["other/warm"], {("small", "cfm"): 2, ("other", "warm"): 1}),
        # 2 points of a seed each, from a winner
        (["weight"], {("small", "cfm"): 2, ("small", "weight=0.1"): 1, ("small", "weight=1.0"): 1}),
        (["references"], {("small", "references"): 2, ("other", "references"): 1}),
        (["other/references"], {("other", "references"): 1}),
        (
            ["other"],
            {
                ("small", "baseline"): 2,
                ("small", "cfm"): 2,
                ("other", "baseline"): 1,
                ("other", "cfm"): 1,
                ("other", "warm"): 1,
                ("other", "references"): 1,
            },
        ),
        (
            ["small/baseline", "other/baseline"],
            {("small", "baseline"): 8, ("other", "baseline"): 1},
        ),
    ],
)
def test_only_runs_of_a_part_start(
    tmp_path: Path, names: list[str], runs: dict[tuple[str, str], int]
) -> None:
    found: dict[tuple[str, str], int] = {}
    for _, dataset, _, method in played(tmp_path, study_of(tmp_path), *names):
        found[dataset, method] = found.get((dataset, method), 0) + 1
    assert found == runs


def test_a_lender_makes_its_trials_alone(tmp_path: Path) -> None:
    runs = played(tmp_path, study_of(tmp_path), "small/warm")
    assert {kind for kind, *_, method in runs if method == "cfm"} == {"trial"}


def test_a_part_and_the_rest_are_the_whole(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    first = played(tmp_path, study, "warm")
    ledger = Ledger(Store(tmp_path / "ledger"))
    book = Book(study, ledger)
    assert book.total - book.left == len(first)
    while ready := list(book.ready()):
        for spec in ready:
            ledger.add(ended(spec))
    assert book.left == 0
    assert len(ledger.runs()) == book.total
    fresh = Ledger(Store(tmp_path / "fresh"))
    book = Book(study, fresh)
    while ready := list(book.ready()):
        for spec in ready:
            fresh.add(ended(spec))
    assert {line["id"] for line in fresh.runs()} == {line["id"] for line in ledger.runs()}


def test_all_names_together_are_the_whole(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    assert part_of(study, ["small", "other"]) == whole(study)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cmf", "did you mean 'cfm'"),
        ("small/cmf", "did you mean 'small/cfm'"),
        ("wieght", "did you mean 'weight'"),
        ("zzz", "it has baseline, small, cfm, warm, other, weight, references"),
        ("other/weight", "runs nothing named 'other/weight'"),
        ("", "runs nothing named ''"),
    ],
)
def test_unknown_names_are_refused(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        part_of(study_of(tmp_path), ["cfm", name])


def test_a_study_without_references_has_no_such_part(tmp_path: Path) -> None:
    study = load_study(small_study(tmp_path, **TRIALS_ONLY))
    with pytest.raises(InputError, match="'references'"):
        part_of(study, ["references"])
    assert {kind for kind, *_ in played(tmp_path, study, "small/cfm")} == {"trial"}
