"""Searches on real Ray over a tiny real experiment.

Real: Ray, Tune, ASHA, the trials' training. Small: data and model.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import ray
from tune import resume

from small_experiment import SPACE, small_document
from twotower.core.config import ExperimentConfig
from twotower.core.errors import ResourceError, RunError, StoppedError
from twotower.core.loading import build_config, load_config, with_overrides
from twotower.core.space import SearchSpace
from twotower.core.space_loading import build_space
from twotower.data.pipeline import prepare
from twotower.data.prepared import Pairs, Part, Prepared
from twotower.runtime import search as searches
from twotower.runtime import trial
from twotower.runtime.cluster import connect
from twotower.runtime.journal import FILE
from twotower.runtime.search import SearchResult, search, search_name
from twotower.runtime.search_files import RESULT
from twotower.runtime.search_plan import SearchPlan
from twotower.runtime.sweep import SearchProgress

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def config(folder: Path) -> ExperimentConfig:
    return build_config(small_document(folder), "small")


@pytest.fixture(scope="module")
def cluster(config: ExperimentConfig) -> Iterator[None]:
    with connect(config.cluster):
        prepare(config)
        yield


def space_of(config: ExperimentConfig, document: dict[str, Any] | None = None) -> SearchSpace:
    return build_space(document or SPACE, config, "space")


def lines_of(result: SearchResult) -> list[str]:
    return (Path(result.directory) / FILE).read_text().splitlines()


@pytest.mark.usefixtures("cluster")
class TestOnOneCluster:
    def test_a_search_ends_with_a_config_that_can_be_trained(
        self, config: ExperimentConfig
    ) -> None:
        seen: list[SearchProgress] = []
        space = space_of(config)
        result = search(config, space, SearchPlan(5), seen.append)
        trials = result.progress.trials
        assert [t.number for t in trials] == [0, 1, 2, 3, 4]
        assert sum(result.progress.counts.values()) == 5
        assert result.progress.counts["failed"] == result.progress.counts["diverged"] == 0
        assert result.best.value == max(t.value for t in trials if t.value is not None)
        for t in trials:
            assert [epoch for epoch, _ in t.curve] == list(range(1, t.epochs + 1))
            assert t.value == max(value for _, value in t.curve)
            assert t.cpu_s > 0
            assert t.start_s is not None
        assert any(t.state == "complete" and t.epochs == 4 for t in trials)
        winner = load_config(result.winner).config
        changed = space.apply(config, result.best.params)
        assert winner == changed.model_copy(update={"name": "small-tuned"})
        document = json.loads((Path(result.directory) / RESULT).read_text())
        assert document["certificate"]["part"] == "validation"
        assert document["resources"]["concurrent"] == 2
        assert document["best"] == result.best.number
        assert set(document["importances"]) == set(SPACE)
        assert seen[-1].finished == 5
        assert max(p.running for p in seen) <= 2
        assert not list(Path(result.directory).glob("*.pkl"))

    def test_the_same_call_again_does_nothing_and_a_longer_one_only_the_rest(
        self, config: ExperimentConfig
    ) -> None:
        first = search(config, space_of(config), SearchPlan(5))
        before = lines_of(first)
        assert first.reused == 5
        calls: list[SearchProgress] = []
        began = time.monotonic()
        again = search(config, space_of(config), SearchPlan(5), calls.append)
        assert time.monotonic() - began < 2
        assert (again.best, again.reused, calls) == (first.best, 5, [])
        longer = search(config, space_of(config), SearchPlan(7))
        assert lines_of(longer)[:5] == before
        assert (len(lines_of(longer)), longer.reused) == (7, 5)

    def test_a_search_goes_on_from_its_directory_with_its_own_plan(
        self, config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = SearchPlan(1, "own-plan", max_concurrent=1, prune=False)
        first = search(config, space_of(config), plan)
        monkeypatch.setattr(sys, "argv", ["resume.py", first.directory, "--trials", "3"])
        resume.main()
        document = json.loads((Path(first.directory) / RESULT).read_text())
        assert (document["scheduler"], document["max_concurrent"]) == (None, 1)
        assert document["resources"]["concurrent"] == 1
        assert document["counts"] == {"complete": 3, "pruned": 0, "failed": 0, "diverged": 0}

    @pytest.mark.parametrize(
        ("number", "error"),
        [(signal.SIGTERM, StoppedError), (signal.SIGINT, KeyboardInterrupt)],
    )
    def test_a_stop_while_the_data_is_prepared_ends_the_search_at_once(
        self,
        config: ExperimentConfig,
        monkeypatch: pytest.MonkeyPatch,
        number: signal.Signals,
        error: type[BaseException],
    ) -> None:
        def prepare_and_hear(_: ExperimentConfig) -> NoReturn:
            os.kill(os.getpid(), number)
            pytest.fail("the preparation went on")

        monkeypatch.setattr(searches, "prepare", prepare_and_hear)
        early = with_overrides(config, {"name": f"stopped-{number}"})
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(error):
                search(early, space_of(early), SearchPlan(2))
        finally:
            signal.signal(signal.SIGINT, handler)
        assert not (Path(config.storage.runs) / search_name(early, space_of(early))).exists()

    def test_trials_that_diverge_are_counted_and_the_search_goes_on(
        self, config: ExperimentConfig
    ) -> None:
        space = space_of(config, {"train.learning_rate": {"choices": [0.05, 1e30, 0.1]}})
        result = search(config, space, SearchPlan(8, prune=False))
        assert result.progress.counts == {"complete": 2, "pruned": 0, "failed": 0, "diverged": 1}
        (bad,) = [t for t in result.progress.trials if t.state == "diverged"]
        assert bad.params == {"train.learning_rate": 1e30}
        assert "not finite" in str(bad.error)
        assert bad.attempts == 1

    def test_where_every_trial_diverges_the_search_fails_and_says_why(
        self, config: ExperimentConfig
    ) -> None:
        space = space_of(config, {"train.learning_rate": {"choices": [1e30, 1e31]}})
        with pytest.raises(
            RunError, match=r"none of 2 trials ended with a metric; trial 0: .*fini"
        ):
            search(config, space, SearchPlan(2))

    def test_a_trial_that_no_node_can_hold_is_refused_before_a_directory_is_made(
        self, config: ExperimentConfig
    ) -> None:
        large = with_overrides(config, {"train.threads": 64, "name": "large"})
        with pytest.raises(ResourceError, match=r"train\.threads: .* 64 CPUs .* has 2 CPUs"):
            search(large, space_of(large), SearchPlan(2))
        many = with_overrides(config, {"train.num_workers": 8, "name": "large"})
        with pytest.raises(ResourceError, match=r"train\.num_workers: .* 8 workers"):
            search(many, space_of(many), SearchPlan(2))
        assert not [p for p in Path(config.storage.runs).iterdir() if "large" in p.name]

    def test_a_cluster_that_others_hold_is_said_after_the_timeout(
        self, config: ExperimentConfig
    ) -> None:
        holder = ray.util.placement_group([{"CPU": 2}])
        ray.get(holder.ready())
        hurried = with_overrides(config, {"train.start_timeout_s": 3.0, "name": "starved"})
        try:
            with pytest.raises(ResourceError, match=r"search: .* need 1 CPUs, only 0 came free"):
                search(hurried, space_of(hurried), SearchPlan(2))
        finally:
            ray.util.remove_placement_group(holder)

    @pytest.mark.slow
    def test_trials_of_two_workers_run_under_ray_train(self, config: ExperimentConfig) -> None:
        two = with_overrides(config, {"train.num_workers": 2, "name": "group"})
        result = search(two, space_of(two), SearchPlan(1))
        (only,) = result.progress.trials
        assert (only.state, only.epochs) == ("complete", 4)
        one = with_overrides(config, {"name": "alone"})
        alone = search(one, space_of(one), SearchPlan(1)).progress.trials[0]
        assert only.params == alone.params
        assert only.value == pytest.approx(alone.value, abs=0.05)

    def test_a_trial_never_asks_for_the_test_part(
        self, config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Part] = []
        whole = Prepared.pairs

        def spy(self: Prepared, part: Part) -> Pairs:
            asked.append(part)
            return whole(self, part)

        monkeypatch.setattr(Prepared, "pairs", spy)
        task = trial.TrialTask(
            number=0,
            config=config.model_dump_json(),
            prepared=prepare(config).path,
            threads=1,
            device="cpu",
            asked_at=time.time(),
        )
        reports: list[dict[str, Any]] = []
        trial.run_alone(trial.TrialTask.parse(task.dump()), reports.append)
        assert [r["state"] for r in reports] == [*["running"] * 4, "complete"]
        assert "validation" in asked
        assert "test" not in asked
