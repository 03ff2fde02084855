"""A study's file: what it becomes, and what of it is refused before anything runs."""

import shutil
from copy import deepcopy
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from small_study import TRIALS_ONLY, small_study
from twotower.core.errors import ConfigError
from twotower.study import schema
from twotower.study.cells import Key, seed_runs
from twotower.study.load import Study, load_study

CLAIM = [{"claim": "CFM is better", "method": "cfm", "against": "baseline"}]
METHODS: dict[str, Any] = {"baseline": {}, "cfm": {"set": {"ssl.weight": 0.3}}}
SMALL: dict[str, Any] = {"config": "small.yaml", "fractions": [1.0, 0.5]}
OTHER: dict[str, Any] = {"other": {"config": "small.yaml", "methods": ["baseline"]}}
SWEEP: dict[str, Any] = {
    "title": "Weight",
    "method": "cfm",
    "path": "ssl.weight",
    "values": [0.1, 1.0],
    "datasets": ["small"],
}


def test_cells_are_methods_on_every_dataset_and_fraction(tmp_path: Path) -> None:
    study = load_study(small_study(tmp_path))
    assert [tuple(cell.key) for cell in study.rows()] == [
        ("small", 1.0, "baseline"),
        ("small", 1.0, "cfm"),
        ("small", 0.5, "baseline"),
        ("small", 0.5, "cfm"),
    ]
    cfm = study.rows()[3]
    assert (cfm.config.ssl.weight, cfm.config.data.fraction) == (0.3, 0.5)
    assert cfm.config.train.num_epochs == 2
    assert cfm.config.train.threads == 1
    assert cfm.space is not None
    assert [d.path for d in cfm.space.dimensions] == ["loss.temperature", "ssl.weight"]
    assert (cfm.trials, cfm.seeds) == (2, (5, 6))


def test_a_fraction_may_have_epochs_of_its_own(tmp_path: Path) -> None:
    study = load_study(small_study(tmp_path, at={"0.5": {"train.num_epochs": 9}}))
    assert [cell.config.train.num_epochs for cell in study.rows()] == [2, 2, 9, 9]


def test_a_dataset_may_have_epochs_of_its_own_at_a_fraction(tmp_path: Path) -> None:
    both = {"0.5": {"train.num_epochs": 9, "train.patience": 3}}

    def study(**other: Any) -> Study:
        datasets = {"small": SMALL, "other": deepcopy(SMALL) | other}
        return load_study(small_study(tmp_path, at=both, datasets=datasets))

    before, after = study(), study(at={"0.5": {"train.num_epochs": 4}})
    changed = set[Key]()
    for was, cell in zip(before.cells, after.cells, strict=True):
        train = cell.config.train
        if [run.id for run in seed_runs(cell, {})] == [run.id for run in seed_runs(was, {})]:
            assert (train.num_epochs, train.patience) in ((2, 0), (9, 3))
        else:
            assert (train.num_epochs, train.patience) == (4, 3)
            changed.add(cell.key)
    assert changed == {("other", 0.5, "baseline"), ("other", 0.5, "cfm")}


def test_points_of_a_figure_take_the_winner_and_change_one_value(tmp_path: Path) -> None:
    study = load_study(small_study(tmp_path))
    points = [cell for cell in study.cells if cell.sweep]
    assert [cell.value for cell in points] == [0.1, 1.0]
    assert all(cell.lender == ("small", 1.0, "cfm") for cell in points)
    assert [cell.seeds for cell in points] == [(5,), (5,)]
    assert points[1].config.ssl.weight == 1.0


def test_a_grid_has_every_combination(tmp_path: Path) -> None:
    paths = {"ssl.weight": [0.1, 1.0], "model.embed_dim": [4, 8]}
    grid = {"title": "x", "method": "cfm", "datasets": ["small"], "grid": paths}
    points = [c for c in load_study(small_study(tmp_path, sweeps={"grid": grid})).cells if c.sweep]
    both = [(c.config.ssl.weight, c.config.model.embed_dim) for c in points]
    assert both == [(0.1, 4), (0.1, 8), (1.0, 4), (1.0, 8)]
    assert points[1].value == {"ssl.weight": 0.1, "model.embed_dim": 8}
    assert len({cell.key for cell in points}) == 4


def test_a_dataset_may_take_over_settings(tmp_path: Path) -> None:
    datasets = {
        "small": {"config": "small.yaml", "fractions": [1.0, 0.2]},
        "other": {"config": "small.yaml", "fractions": [0.3], "settings_from": "small", "seeds": 1},
    }
    study = load_study(small_study(tmp_path, datasets=datasets, claims=[]))
    other = [cell for cell in study.rows() if cell.key.dataset == "other"]
    assert [cell.lender for cell in other] == [("small", 0.2, m) for m in ("baseline", "cfm")]
    assert all(cell.trials == 0 and cell.seeds == (5,) for cell in other)


def test_a_borrowing_method_of_a_borrowing_dataset_needs_no_runs_of_it_elsewhere(
    tmp_path: Path,
) -> None:
    small = {"set": {"model.embed_dim": 4}, "settings_from": "cfm"}
    datasets = {
        "small": {"config": "small.yaml", "methods": ["baseline", "cfm"]},
        "other": {"config": "small.yaml", "fractions": [0.3], "settings_from": "small"},
    }
    methods = {**METHODS, "narrow": small}
    study = load_study(small_study(tmp_path, datasets=datasets, methods=methods, claims=[]))
    narrow = study.rows()[-1]
    assert (narrow.key.method, narrow.lender) == ("narrow", ("small", 1.0, "cfm"))
    assert narrow.last == {"model.embed_dim": 4}


def test_a_dataset_runs_all_methods_or_those_it_names(tmp_path: Path) -> None:
    datasets = {"small": {"config": "small.yaml"}, **OTHER}
    study = load_study(small_study(tmp_path, datasets=datasets, claims=[]))
    assert study.plan.methods_on("small") == ("baseline", "cfm")
    assert study.plan.methods_on("other") == ("baseline",)
    assert [cell.key.method for cell in study.rows()] == ["baseline", "cfm", "baseline"]


def test_what_a_method_sets_is_not_tuned_for_it(tmp_path: Path) -> None:
    methods = {"baseline": {}, "hot": {"set": {"loss.temperature": 0.2}}}
    study = load_study(small_study(tmp_path, methods=methods, sweeps={}, claims=[]))
    hot = study.rows()[1]
    assert (hot.space, hot.trials) == (None, 0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seedz": [1]}, "did you mean 'seeds'"),
        ({"seeds": [5, 5]}, "seeds: must be distinct"),
        ({"at": {"0.7": {}}}, "at: no '0.7' in the study; it has 1, 0.5"),
        (
            {"datasets": {"small": {**SMALL, "at": {"0.2": {}}}}},
            "datasets.small.at: no '0.2' in the dataset; it has 1, 0.5",
        ),
        ({"datasets": {"small": {**SMALL, "at": {"0.5": {"a.b": 1}}}}}, "baseline on small at 0.5"),
        ({"primary": ["recal@10"]}, "did you mean 'recall@10'"),
        (
            {"methods": {**METHODS, "x": {"set": {"eval.k": [10, 20]}}}},
            "which methods on one dataset",
        ),
        ({"methods": {**METHODS, "popularity": {}}}, "a reference's name"),
        ({"tuning_seed": 5}, "5 is the tuning seed"),
        ({"baseline": "bare"}, "baseline: no 'bare' in the study"),
        ({"methods": {**METHODS, "x": {"set": {"ssl.wait": 1}}}}, "ssl.wait: unknown key"),
        ({"methods": {**METHODS, "x": {"set": {"loss.temperature": -1}}}}, "x on small at 1"),
        ({"space": {"data.seed": {"low": 0, "high": 3}}}, "data.seed: can't be searched"),
        ({"space": {"loss.temperatur": {"low": 1, "high": 3}}}, "did you mean"),
        ({"datasets": {"small": {"config": "no.yaml"}}, "claims": []}, "no such config file"),
        ({"datasets": {"small": {"config": "small.yaml", "seeds": 3}}}, "but the study has 2"),
        (
            {"datasets": {"small": {"config": "small.yaml", "settings_from": "small"}}},
            "must be one that is tuned itself",
        ),
        ({"seeds": []}, "references: are measured on test, but seeds is empty"),
        ({**TRIALS_ONLY, "claims": CLAIM}, "claims: need final runs, but seeds is empty"),
        ({"seeds": [], "references": False, "claims": []}, "sweeps: need final runs"),
        ({**TRIALS_ONLY, "trials": 0}, "trials: 0, and seeds is empty"),
        (
            {**TRIALS_ONLY, "methods": {**METHODS, "x": {"settings_from": "cfm"}}},
            "methods.x.settings_from: without seeds only what is tuned",
        ),
        (
            {**TRIALS_ONLY, "methods": {**METHODS, "x": {"set": {"loss.temperature": 0.1}}}},
            "x on small at 1: has nothing to tune",
        ),
        (
            {"claims": [{"claim": "x", "method": "so", "against": "baseline"}]},
            "no 'so' in the study",
        ),
        (
            {"claims": [{**CLAIM[0], "fractions": [0.2]}]},
            "claims.0: no dataset runs both 'cfm' and",
        ),
        (
            {"claims": [{**CLAIM[0], "fractions": [1.0, 0.5], "grows_from": 1.0}]},
            "grows_from: 1 is among the claim's own fractions",
        ),
        ({"claims": [{**CLAIM[0], "grows_from": 1.0}]}, "grows_from: 1 is among"),
        (
            {"claims": [{**CLAIM[0], "metric": "recall@10", "more_than": "recall@10"}]},
            "more_than: 'recall@10' is the claim's own metric",
        ),
        ({"claims": [{**CLAIM[0], "grows_from": 0.7}]}, "'baseline' at 0.7 and 1; add the runs"),
        ({"claims": [{**CLAIM[0], "against": "cfm"}]}, "'cfm' is held against itself"),
        (
            {
                "datasets": {"small": SMALL, **OTHER},
                "claims": [{**CLAIM[0], "datasets": ["other"]}],
            },
            "claims.0.datasets: 'other' does not run both methods",
        ),
        ({"datasets": {"small": {**SMALL, "methods": ["cfm"]}}}, "lack the baseline 'baseline'"),
        ({"datasets": {"small": {**SMALL, "methods": []}}}, "at least 1 item"),
        ({"sweeps": {"weight": {**SWEEP, "seeds": 3}}}, "sweeps.weight.seeds: 3, but"),
        ({"sweeps": {"weight": {**SWEEP, "values": [1]}}}, "values: has fewer than two points"),
        ({"sweeps": {"weight": {**SWEEP, "grid": {"seed": [1, 2]}}}}, "or `grid` alone"),
        ({"sweeps": {"weight": {**SWEEP, "path": None}}}, "or `grid` alone"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_study(small_study(tmp_path, **changes))


def test_the_example_of_the_schema_is_a_study(tmp_path: Path) -> None:
    shutil.copy("configs/debian.yaml", tmp_path)
    file = tmp_path / "studies" / "small.yaml"
    file.parent.mkdir()
    file.write_text(dedent((schema.__doc__ or "").partition("one:\n")[2]))
    study = load_study(file)
    assert study.plan.name == file.stem
    assert [(cell.key.fraction, cell.key.method) for cell in study.rows()] == [
        (1.0, "baseline"),
        (1.0, "cfm"),
        (0.1, "baseline"),
        (0.1, "cfm"),
    ]
    assert study.rows()[1].config.ssl.weight == 0.3


@pytest.mark.parametrize("file", sorted(Path("configs/studies").glob("*.yaml")), ids=str)
def test_the_studies_of_the_repository_are_fine(file: Path) -> None:
    study = load_study(file)
    assert study.plan.name == file.stem
    assert study.cells
