"""The plan of failures: what it refuses, and that it is no part of what a run is."""

from pathlib import Path
from typing import Any

import pytest

from tiny_run import tiny_run
from twotower.core.errors import ConfigError
from twotower.core.loading import with_overrides
from twotower.core.records import identity, run_name

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown action": ({"action": "die"}, r"fault\.plan\.0\.action: .*'kill'"),
    "unknown key": ({"action": "kill", "stp": 1}, r"fault\.plan\.0\.stp: .*did you mean 'step'"),
    "other rank": (
        {"action": "kill", "rank": 2},
        r"fault\.plan: .*rank 2's, but train\.num_workers",
    ),
    "nothing to poison": ({"action": "nan"}, r"fault\.plan\.0\.phase: .*phase all_reduce"),
    "writes nothing": (
        {"action": "kill", "rank": 1, "phase": "checkpoint"},
        r"fault\.plan\.0\.rank: 1 writes no checkpoint",
    ),
    "no step": ({"action": "kill", "phase": "start", "step": 1}, r"fault\.plan\.0\.step: "),
    "negative": ({"action": "kill", "step": -1}, r"fault\.plan\.0\.step: .*greater than or equal"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_plan_that_means_nothing_is_refused(tmp_path: Path, name: str) -> None:
    fault, message = REFUSED[name]
    config, _ = tiny_run(tmp_path, train__num_workers=2)
    with pytest.raises(ConfigError, match=message):
        with_overrides(config, {"fault.plan": [fault]})


def test_faults_are_distinct(tmp_path: Path) -> None:
    config, _ = tiny_run(tmp_path)
    fault = {"action": "kill", "step": 3}
    with pytest.raises(ConfigError, match="fault 1 is there twice"):
        with_overrides(config, {"fault.plan": [fault, fault]})
    with_overrides(config, {"fault.plan": [fault, fault | {"attempt": 2}]})


def test_faults_are_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    config, _ = tiny_run(tmp_path)
    broken = with_overrides(config, {"fault.plan": [{"action": "kill"}], "fault.trace": True})
    assert identity(broken) == identity(config)
    assert run_name(broken) == run_name(config)
