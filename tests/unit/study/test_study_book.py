"""What a study runs next: a function of its ledger alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_study import TRIALS_ONLY, small_study
from twotower.core.errors import ConfigError
from twotower.core.seeding import derive
from twotower.core.storage import Store
from twotower.study.asked import part_of
from twotower.study.book import Book
from twotower.study.cells import RunSpec
from twotower.study.ledger import Ledger
from twotower.study.load import load_study

PATH = "loss.temperature"


def ended(spec: RunSpec) -> dict[str, object]:
    """A finished run's line: its value depends on the run alone."""
    value = (derive(0, spec.id) % 1000) / 1000
    return {"id": spec.id, "kind": spec.kind, "status": "done", "value": value}


EXCHANGE = {
    "exchange": ["loss.temperature"],
    "trials": 4,
    "methods": {
        "baseline": {},
        "other": {"set": {"loss.feature_dropout": 0.1}},
        "cfm": {"set": {"ssl.weight": 0.3}, "space": {"ssl.weight": {"low": 0.03, "high": 3.0}}},
        "borrower": {"set": {"loss.feature_dropout": 0.3}, "settings_from": "other"},
    },
}


def play(
    folder: Path, order_seed: int, at_once: int, restart_every: int, **changes: Any
) -> dict[str, dict]:
    """Finish all runs, some at once, in a drawn order, reading the ledger anew now and then."""
    study = load_study(small_study(folder, **changes))
    rng = np.random.default_rng(order_seed)
    store = Store(folder / f"ledger-{order_seed}-{at_once}-{restart_every}")
    ledger = Ledger(store)
    book, steps = Book(study, ledger), 0
    running: dict[str, RunSpec] = {}
    while True:
        for spec in book.ready():
            if len(running) < at_once:
                running.setdefault(spec.id, spec)
        if not running:
            break
        name = rng.choice(sorted(running))
        ledger.add(ended(running.pop(name)))
        steps += 1
        if steps % restart_every == 0:
            running = {}  # what was under way is lost
            ledger = Ledger(store)
            book = Book(study, ledger)
    assert book.left == 0
    assert len(ledger.runs()) == steps
    return {line["id"]: line for line in ledger.runs()}


def test_any_order_and_any_interruption_make_the_same_runs(tmp_path: Path) -> None:
    plain = play(tmp_path, 0, at_once=1, restart_every=10**6)
    assert play(tmp_path, 1, at_once=3, restart_every=10**6) == plain
    assert play(tmp_path, 2, at_once=2, restart_every=3) == plain
    # 4 cells of 2 trials and 2 seeds, 2 references, 2 points of one seed each
    assert len(plain) == 4 * 4 + 2 + 2


def test_exchanged_settings_are_tried_whatever_the_order(tmp_path: Path) -> None:
    plain = play(tmp_path, 0, at_once=1, restart_every=10**6, **EXCHANGE)
    assert play(tmp_path, 1, at_once=3, restart_every=10**6, **EXCHANGE) == plain
    assert play(tmp_path, 2, at_once=2, restart_every=3, **EXCHANGE) == plain


def test_every_method_is_tried_at_the_exchanged_settings_of_every_other_winner(
    tmp_path: Path,
) -> None:
    study = load_study(small_study(tmp_path, **EXCHANGE))
    ledger = Ledger(Store(tmp_path / "ledger"))
    book = Book(study, ledger)
    cells = {c.key.method: c for c in study.rows() if c.key.fraction == 1}
    rows = [cells[name] for name in ("baseline", "other", "cfm")]
    assert {book.planned(cell) for cell in rows} == {4 + 2}
    assert book.planned(cells["borrower"]) == 0
    first: dict[str, dict[str, Any]] = {}
    made: list[RunSpec] = []
    while ready := [s for s in book.ready() if s.kind == "trial" and s.key.fraction == 1]:
        if all(len(book.trials(cell)) == 4 for cell in rows):
            assert not first, "all later trials were ready together"
            for cell in rows:
                best = max(book.trials(cell), key=lambda t: t.value or 0)
                first[cell.key.method] = dict(best.params)
                assert (book.settings(cell) is None) == (book.planned(cell) > 4)
            made = ready
        for spec in ready:
            ledger.add(ended(spec))
    asked = [
        (cell.key.method, {**first[cell.key.method], PATH: other[PATH]})
        for cell in rows
        for other in first.values()
    ]
    before = [(cell.key.method, trial.params) for cell in rows for trial in book.trials(cell)[:4]]
    found = [(spec.key.method, spec.params) for spec in made]
    assert all(one in asked and one not in before for one in found)
    assert all(one in found or one in before for one in asked)
    assert found
    for cell in rows:
        assert len(book.trials(cell)) == len(book.trial_lines(cell)) == book.planned(cell)
        best = max(book.trials(cell), key=lambda t: t.value or 0)
        assert book.settings(cell) == best.params


def test_a_part_of_a_study_needs_the_trials_beside_it_where_methods_exchange(
    tmp_path: Path,
) -> None:
    study = load_study(small_study(tmp_path, sweeps={}, **EXCHANGE))
    asked = part_of(study, ["borrower"])
    assert {key.method for key in asked.cells} == {"borrower"}
    assert {key.method for key in asked.trials} == {"baseline", "other", "cfm", "borrower"}


def test_only_what_all_methods_search_can_be_exchanged(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"exchange: no 'ssl\.weight' in the study's space"):
        load_study(small_study(tmp_path, exchange=["ssl.weight"]))


def test_finals_come_at_the_best_trial_and_with_seeds_of_their_own(tmp_path: Path) -> None:
    study = load_study(small_study(tmp_path))
    ledger = Ledger(Store(tmp_path / "ledger"))
    book = Book(study, ledger)
    cell = study.rows()[1]
    assert book.settings(cell) is None
    while book.settings(cell) is None:
        for spec in [s for s in book.ready() if s.kind == "trial"]:
            ledger.add(ended(spec))
    best = max(book.trials(cell), key=lambda trial: trial.value or 0)
    assert book.settings(cell) == best.params
    finals = [s for s in book.ready() if s.kind == "seed" and s.key == cell.key]
    assert [s.config.seed for s in finals] == [5, 6]
    assert {s.config.loss.temperature for s in finals} == {best.params["loss.temperature"]}
    points = [s for s in book.ready() if s.key.method.startswith("weight=")]
    assert [s.config.ssl.weight for s in points] == [0.1, 1.0]
    assert {s.config.loss.temperature for s in points} == {best.params["loss.temperature"]}


def test_a_cell_whose_trials_all_diverge_ends_without_finals(tmp_path: Path) -> None:
    study = load_study(small_study(tmp_path))
    ledger = Ledger(Store(tmp_path / "ledger"))
    book = Book(study, ledger)
    lost = study.rows()[1].key
    while ready := list(book.ready()):
        for spec in ready:
            line = ended(spec)
            if spec.key == lost:
                line |= {"status": "diverged", "value": None}
            ledger.add(line)
    assert book.left == 0
    assert book.settings(study.rows()[1]) is None
    finals = [line for line in ledger.runs() if line["kind"] == "seed"]
    assert len(finals) == 3 * 2  # neither the cell's own nor the figure's that starts from it


def test_without_seeds_only_trials_are_run(tmp_path: Path) -> None:
    study = load_study(small_study(tmp_path, **TRIALS_ONLY))
    ledger = Ledger(Store(tmp_path / "ledger"))
    book = Book(study, ledger)
    assert book.total == book.left == 4 * 2
    while ready := list(book.ready()):
        for spec in ready:
            ledger.add(ended(spec))
    assert book.left == 0
    assert [line["kind"] for line in ledger.runs()] == ["trial"] * 8


def test_equal_runs_of_two_cells_are_one(tmp_path: Path) -> None:
    methods = {"baseline": {}, "same": {}}
    study = load_study(small_study(tmp_path, methods=methods, sweeps={}, claims=[]))
    book = Book(study, Ledger(Store(tmp_path / "ledger")))
    trials = [spec for spec in book.ready() if spec.kind == "trial"]
    assert len(trials) == 4
    assert len({spec.id for spec in trials}) == 2


def test_what_claims_name_comes_first(tmp_path: Path) -> None:
    methods = {"last": {}, "against": {"set": {"ssl.weight": 0.2}}, "baseline": {}, "claimed": {}}
    sets = {"claimed": 0.3, "last": 0.4, "baseline": 0.5}
    for name, weight in sets.items():
        methods[name] = {"set": {"ssl.weight": weight}}
    claim = {"claim": "it is better", "method": "claimed", "against": "against"}
    claims = [claim | {"metric": "recall@10"}]
    study = load_study(small_study(tmp_path, methods=methods, sweeps={}, claims=claims))
    ready = Book(study, Ledger(Store(tmp_path / "ledger"))).ready()
    named = [spec.key.method for spec in ready if spec.kind == "trial"]
    assert list(dict.fromkeys(named)) == ["baseline", "claimed", "against", "last"]
