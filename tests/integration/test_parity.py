"""The Debian experiment reaches the same Recall in plain PyTorch, for the baseline and for CFM.

Real: both trainings, five seeds each, three epochs. Shared: only the prepared files.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from twotower.core.config import ExperimentConfig
from twotower.core.loading import load_config, with_overrides
from twotower.data.prepared import Prepared
from twotower.runtime.prepare import prepare
from twotower.runtime.reference import train_reference

ROOT = Path(__file__).parents[2]
SEEDS, EPOCHS = 5, 3
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    folder = tmp_path_factory.mktemp("debian")
    changes = {
        "storage.prepared": str(folder),
        "train.num_epochs": EPOCHS,
        "train.validate_every": EPOCHS,
    }
    return with_overrides(load_config(ROOT / "configs" / "debian.yaml").config, changes)


@pytest.fixture(scope="module")
def prepared(config: ExperimentConfig) -> str:
    return prepare(config).path


def plain(prepared: str, seed: int, flags: list[str]) -> float:
    script = ROOT / "tests" / "reference" / "plain_torch.py"
    command = [sys.executable, str(script), prepared, "--epochs", str(EPOCHS), "--seed", str(seed)]
    done = subprocess.run(
        [*command, *flags],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    return json.loads(done.stdout)["test"]


CFM = {"ssl.weight": 0.3, "ssl.temperature": 0.1, "ssl.dropout_rate": 0.1, "ssl.mask_rate": 0.5}


@pytest.mark.parametrize(
    ("changes", "flags"), [({}, []), (CFM, ["--cfm"])], ids=["baseline", "cfm"]
)
def test_plain_torch_agrees_within_the_spread_of_seeds(
    config: ExperimentConfig, prepared: str, changes: dict[str, float], flags: list[str]
) -> None:
    opened = Prepared.open(prepared)
    ours: list[float] = []
    for seed in range(SEEDS):
        outcome = train_reference(with_overrides(config, {**changes, "seed": seed}), opened)
        value = outcome.evaluations["test"].summary["recall@50"]["value"]
        assert value is not None
        ours.append(value)
    theirs = [plain(prepared, seed, flags) for seed in range(SEEDS)]
    low, high = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.99)
    assert low <= 0 <= high, (ours, theirs)
    assert abs(np.mean(ours) - np.mean(theirs)) < 0.03
