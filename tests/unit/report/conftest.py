"""One set of run files for the report's tests: they only read it, or copy it first."""

from collections.abc import Callable
from pathlib import Path

import pytest

from report_files import RUNS, write_demo
from twotower.report.collect import collect
from twotower.report.content import Report


@pytest.fixture(scope="session")
def demo_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Places of three runs, a search and prepared data. Not to be written to."""
    return write_demo(tmp_path_factory.mktemp("report"), queries=900)


@pytest.fixture(scope="session")
def demo_report(demo_files: dict[str, Path]) -> Report:
    """The report of all of it."""
    return collect(
        {name: demo_files[name] for name in RUNS},
        title="demo",
        search=demo_files["search"],
        notes=["One seed.", "The baseline was not searched."],
    )


@pytest.fixture
def own_files(tmp_path: Path) -> Callable[[], dict[str, Path]]:
    """Makes a set of files that the test may change."""
    return lambda: write_demo(tmp_path, queries=60)
