"""One experiment for all fault tests, one Ray cluster for those of a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broken_runs import trained_rows
from faults.rig import Whole, small_config
from twotower.core.config import ExperimentConfig
from twotower.core.loading import with_overrides
from twotower.data.pipeline import prepare
from twotower.data.prepared import Prepared
from twotower.runtime.cluster import connect
from twotower.runtime.launch import train


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    """40 steps."""
    return small_config(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def long_config(config: ExperimentConfig) -> ExperimentConfig:
    """240 steps, for signals that come from outside."""
    return with_overrides(config, {"train.num_epochs": 12})


@pytest.fixture(scope="session")
def whole(config: ExperimentConfig) -> Whole:
    """The unbroken run."""
    return _unbroken(config)


@pytest.fixture(scope="session")
def long_whole(long_config: ExperimentConfig) -> Whole:
    """The unbroken run of the long config."""
    return _unbroken(long_config)


def _unbroken(config: ExperimentConfig) -> Whole:
    run = Path(train(config).path)
    return Whole(run, trained_rows(run))


@pytest.fixture(scope="module")
def prepared(config: ExperimentConfig) -> Iterator[Prepared]:
    """The dataset, on a cluster that the tests of a module share."""
    with connect(config.cluster):
        yield Prepared.open(prepare(config).path)
