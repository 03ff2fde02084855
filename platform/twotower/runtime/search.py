"""A search from the command to the winning config: what `twotower tune` and tune/search.py call."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray

from twotower.core.config import ExperimentConfig
from twotower.core.errors import RunError, StoppedError
from twotower.core.lease import Lease
from twotower.core.records import fingerprint
from twotower.core.space import SearchSpace
from twotower.core.storage import Store
from twotower.data.pipeline import prepare
from twotower.data.prepared import Prepared
from twotower.runtime.admission import TrialNeed, concurrent_trials, trial_need
from twotower.runtime.cluster import ClusterInfo, connect, wait_free
from twotower.runtime.journal import Journal, Trial, best_of
from twotower.runtime.proposals import Proposer
from twotower.runtime.pruning import Pruning, grace_epochs
from twotower.runtime.run_folder import location
from twotower.runtime.search_files import (
    STOPS,
    WINNER,
    SearchSubject,
    certificate,
    is_current,
    read_result,
    write_result,
    write_subject,
)
from twotower.runtime.search_plan import SearchPlan
from twotower.runtime.stopping import stop_requests, stopped_at_once
from twotower.runtime.sweep import OnProgress, SearchProgress, Sweep
from twotower.runtime.trial import TrialTask
from twotower.runtime.tuning import TunePlan, run_sweep


@dataclass(frozen=True, slots=True)
class SearchResult:
    """How a search ended."""

    directory: str
    winner: str
    """The winning config's file."""

    best: Trial
    progress: SearchProgress
    importances: dict[str, float]
    """Share of each parameter in what sets the better trials apart; may be empty."""

    seconds: float
    """Wall-clock time of all calls."""

    reused: int
    """Trials that earlier calls had finished."""


def search_name(config: ExperimentConfig, space: SearchSpace) -> str:
    """Name of a search: the config's stem and 8 digits of the fingerprint of config and space."""
    return f"{config.name}-search-{fingerprint(SearchSubject(config, space).document())[:8]}"


def search(
    config: ExperimentConfig,
    space: SearchSpace,
    plan: SearchPlan,
    on_progress: OnProgress | None = None,
    *,
    verbose: bool = False,
) -> SearchResult:
    """Try points of a space, trained and validated under the config, and write down the best.

    The same call again goes on: trials that ended are never run again, and where all have ended
    nothing is done but to write down a result that a kill has cut off. Trials see the train and the
    validation part only.

    Args:
        config: the experiment; what the space names is replaced by each trial.
        space: built with this config.
        plan: size and name.
        on_progress: called at each start, validation and end of a trial, in this process.
        verbose: let Ray's own messages reach the console.

    Raises:
        InputError: storage or data can't be used, or the cluster can't hold one trial.
        RunError: not one trial ended with a metric.
        StoppedError: asked to stop; the same call goes on.
    """
    name = search_name(config, space) if plan.name is None else plan.name
    store = Store(config.storage.runs).child(name)
    store.require_writable("storage.runs")
    total = plan.trials if space.size is None else min(plan.trials, space.size)
    subject = SearchSubject(config, space)
    before = read_result(store, subject)
    done = [trial for trial in Journal(store).trials() if trial.ended]
    if len(done) < total or not before:
        stoppable = stopped_at_once(f"{store.uri}: stopped; the same command goes on")
        with stoppable, connect(config.cluster, verbose=verbose) as info:
            _Work(subject, plan, total, store, info).run(on_progress)
    elif not is_current(store, before, done):  # killed after the last trial's end
        with Lease(store):
            write_result(store, subject, Journal(store).trials(), read_result(store, subject))
    return _result(store, subject, total, reused=min(len(done), total))


class _Work:
    """One call's share of a search."""

    def __init__(
        self,
        subject: SearchSubject,
        plan: SearchPlan,
        total: int,
        store: Store,
        info: ClusterInfo,
    ) -> None:
        self._subject, self._plan, self._total = subject, plan, total
        self._store, self._info = store, info
        self._stops = store.child(STOPS)
        self._need = trial_need(subject.config, info.gpus)
        # Refused here, before a directory is made or data is prepared.
        wanted = total if plan.max_concurrent is None else min(total, plan.max_concurrent)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._concurrent = concurrent_trials(self._need, nodes, wanted)

    def run(self, on_progress: OnProgress | None) -> None:
        """Run what is left, and write the result, also of a search that was stopped."""
        config, space, need = self._subject.config, self._subject.space, self._need
        # The preparation, too, would wait for ever on a cluster that others hold.
        wait_free(
            f"search: {need.workers} worker(s) of a first trial",
            need.workers * need.cpus,
            need.workers * need.gpus,
            timeout_s=config.train.start_timeout_s,
        )
        prepared = Prepared.open(prepare(config).path)
        with Lease(self._store), stop_requests() as should_stop:
            began = time.monotonic()
            before = read_result(self._store, self._subject)
            facts = self._facts(prepared) | {"seconds": before.get("seconds", 0.0)}
            journal = Journal(self._store)
            if not before:
                write_subject(self._store, self._subject)
            write_result(self._store, self._subject, journal.trials(), facts)
            proposer = Proposer(
                space,
                seed=config.seed,
                num_trials=self._total,
                first=space.own_point(config),
                known=journal.trials(),
            )
            sweep = Sweep(
                journal,
                proposer,
                total=self._total,
                metric=config.eval.select,
                on_progress=on_progress,
            )
            self._stops.delete()
            try:
                run_sweep(sweep, self._tune_plan(), self._task_maker(prepared), should_stop)
            finally:
                self._stops.delete()
                facts["seconds"] += time.monotonic() - began
                if not sweep.finished:
                    sweep.interrupt()
                write_result(self._store, self._subject, journal.trials(), facts)
            if not sweep.finished:
                ended = sweep.progress().finished
                raise StoppedError(
                    f"{self._store.uri}: stopped with {ended} of {self._total} trials done; "
                    "the same command goes on"
                )

    def _task_maker(self, prepared: Prepared) -> Callable[[Trial], TrialTask]:
        config, space = self._subject.config, self._subject.space
        path = location(prepared.store)

        def make(trial: Trial) -> TrialTask:
            return TrialTask(
                number=trial.number,
                config=space.apply(config, trial.params).model_dump_json(),
                prepared=path,
                threads=int(self._need.cpus),
                device="cuda" if self._need.gpus else "cpu",
                asked_at=time.time(),
                stops=location(self._stops),
            )

        return make

    def _tune_plan(self) -> TunePlan:
        train = self._subject.config.train
        pruning = Pruning(
            max_epochs=train.num_epochs,
            grace_epochs=grace_epochs(train.num_epochs, train.validate_every),
            stops=self._stops if self._need.workers > 1 else None,
        )
        return TunePlan(
            need=self._need,
            concurrent=self._concurrent,
            pruning=pruning if self._plan.prune else None,
            max_epochs=train.num_epochs,
            start_timeout_s=train.start_timeout_s,
        )

    def _facts(self, prepared: Prepared) -> dict[str, Any]:
        need: TrialNeed = self._need
        return {
            "sampler": "TPE",
            "scheduler": "ASHA" if self._plan.prune else None,
            "total": self._total,
            "max_concurrent": self._plan.max_concurrent,
            "resources": {
                "cpus": self._info.cpus,
                "gpus": self._info.gpus,
                "nodes": self._info.nodes,
                "concurrent": self._concurrent,
                "workers": need.workers,
                "cpus_each": need.cpus,
                "gpus_each": need.gpus,
            },
            "certificate": certificate(self._subject, prepared.manifest),
        }


def _result(store: Store, subject: SearchSubject, total: int, reused: int) -> SearchResult:
    document = read_result(store, subject)
    trials = Journal(store).trials()
    best = best_of(trials)
    if best is None:
        errors = [f"trial {t.number}: {t.error}" for t in trials if t.error]
        first = f"; {errors[0]}" if errors else ""
        raise RunError(f"{store.uri}: none of {len(trials)} trials ended with a metric{first}")
    return SearchResult(
        directory=store.uri,
        winner=f"{store.uri}/{WINNER}",
        best=best,
        progress=SearchProgress(trials, total, subject.config.eval.select),
        importances=document["importances"],
        seconds=document["seconds"],
        reused=reused,
    )
