"""Twenty real runs that differ in their seed alone: how often two halves of them are told apart.

Real: preparation, training, evaluation, all twenty times. Small: dataset and model.
"""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from prepare_serial import open_prepared
from small_experiment import small_document
from twotower.core.loading import build_config, with_overrides
from twotower.core.seeding import derive
from twotower.core.types import Float64
from twotower.datasets.synthetic import write_synthetic
from twotower.evaluation.significance import Comparison
from twotower.evaluation.two_way import effect
from twotower.runtime.reference import train_reference

SEEDS, SIDE, DRAWS, LEVEL = 20, 5, 200, 0.05
METRICS = ("recall@10", "tail_recall@10")
HIGHEST = 0.12
"""Of the bound on the share that is significant; at the level itself the bound is 0.08 or so."""

CHANGES: dict[str, Any] = {"train.num_epochs": 3}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Float64]:
    """Metric -> its values in every run on every test query, float64 ``(20, Q)``."""
    folder = tmp_path_factory.mktemp("same_seeds")
    write_synthetic(
        folder / "data", rows=30_000, queries=2000, items=300, shards=2, seed=1, clusters=8
    )
    config = with_overrides(build_config(small_document(folder), "same"), CHANGES)
    prepared = open_prepared(config)
    runs = [
        train_reference(with_overrides(config, {"seed": seed}), prepared).evaluations["test"]
        for seed in range(SEEDS)
    ]
    return {name: np.stack([run.per_query[name] for run in runs]) for name in METRICS}


def differences(values_SQ: Float64, draw: int) -> Float64:
    """Five runs less five others, both drawn by key: float64 ``(5, Q)``."""
    drawn = np.random.Generator(np.random.Philox(key=derive(0, "same_seeds", draw)))
    order = drawn.permutation(SEEDS)
    return values_SQ[order[:SIDE]] - values_SQ[order[SIDE : 2 * SIDE]]


def significant(tables: list[Float64]) -> int:
    """Tables whose effect is significant at the level."""
    p_values = [effect(table, None, Comparison(resamples=0)).p for table in tables]
    return sum(p is not None and p < LEVEL for p in p_values)


@pytest.mark.parametrize("metric", METRICS)
def test_runs_of_one_method_are_seldom_told_apart(
    measured: dict[str, Float64], metric: str
) -> None:
    """Given the twenty runs the draws are independent: their count is binomial over all the draws
    that these runs allow, and Clopper and Pearson bound the share of those (95 %, one-sided)."""
    tables = [differences(measured[metric], draw) for draw in range(DRAWS)]
    count = significant(tables)
    most = stats.binomtest(count, DRAWS, alternative="less").proportion_ci(0.95).high
    assert most < HIGHEST, f"{count} of {DRAWS} draws are significant: up to {most:.3f} of all"

    queries_only = significant([table.mean(axis=0, keepdims=True) for table in tables])
    least = stats.binomtest(queries_only, DRAWS, alternative="greater").proportion_ci(0.95).low
    assert least > HIGHEST, f"{queries_only} of {DRAWS}: seeds hardly matter, nothing is shown"
