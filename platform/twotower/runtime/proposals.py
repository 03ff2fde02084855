"""Which point a search tries next: a spread-out start, then Optuna's TPE over what is known.

The study lives in memory and is rebuilt from the journal, so a search that goes on after a crash
knows every trial that ended and proposes none of them again.
"""

import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from twotower.core.seeding import derive, permutation, uniform
from twotower.core.space import Dimension, SearchSpace
from twotower.runtime.journal import Trial

_MAX_REPEATS = 20
"""Proposals of known points before the next unknown one is taken as it comes."""

_MIN_FOR_IMPORTANCES = 4
"""Trials with a value below which importances say nothing."""


def distribution(dimension: Dimension) -> BaseDistribution:
    """Optuna's form of a dimension; lists are drawn as places."""
    if dimension.kind == "choice":
        return CategoricalDistribution(range(len(dimension.values)))
    if dimension.kind == "grid":
        return IntDistribution(0, len(dimension.values) - 1)
    if dimension.kind == "int":
        low, high, step = int(dimension.low), int(dimension.high), int(dimension.step or 1)
        return IntDistribution(low, high, log=dimension.log, step=step)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)


def spread(space: SearchSpace, num_points: int, seed: int) -> list[dict[str, Any]]:
    """A Latin hypercube: each dimension's range is cut in as many parts, each part used once."""
    points: list[dict[str, Any]] = [{} for _ in range(num_points)]
    places = np.arange(num_points, dtype=np.int64)
    for dimension in space.dimensions:
        purpose = f"search:{dimension.path}"
        shares = permutation(seed, purpose, num_points) + uniform(seed, purpose, 0, places)
        for point, share in zip(points, shares / num_points, strict=True):
            point[dimension.path] = dimension.value(_at_share(dimension, float(share)))
    return points


def num_spread(num_trials: int) -> int:
    """Points of the spread-out start: a third of the trials, 4 to 10. Chosen, not tuned."""
    return min(max(num_trials // 3, 4), 10, num_trials)


class Proposer:
    """Points for a search of `num_trials` trials, and what came of them."""

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        num_trials: int,
        first: Mapping[str, Any] | None,
        known: Iterable[Trial],
    ) -> None:
        """Start from what is known.

        Args:
            space: where points come from.
            seed: of the start and of TPE.
            num_trials: trials of the whole search, for the size of the start.
            first: the point tried before any other (the config's own), if not None.
            known: trials of the journal; those that ended teach the sampler.
        """
        self._space = space
        self._distributions = {d.path: distribution(d) for d in space.dimensions}
        known = list(known)
        num_start = num_spread(num_trials)
        start = spread(space, num_start, seed)
        start = [dict(first), *start[1:]] if first is not None else start
        self._queue = start[len(known) :]
        # A sampler that went on with the first seed would draw the first draws once more.
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=num_start, seed=derive(seed, "tpe", len(known)) % 2**32
        )
        self._study = _quiet_study(sampler)
        self._seen = {_key(trial.params) for trial in known}
        self._asked: dict[int, optuna.Trial] = {}
        for trial in known:
            if trial.ended:
                self._study.add_trial(self._frozen(trial))

    def propose(self) -> tuple[dict[str, Any], optuna.Trial] | None:
        """The next point that is not known yet, with Optuna's handle; None if none is left."""
        while self._queue:
            point = self._queue.pop(0)
            if _key(point) not in self._seen:
                return self._take(point)
        for _ in range(_MAX_REPEATS):
            asked = self._study.ask(fixed_distributions=self._distributions)
            point = {d.path: d.value(asked.params[d.path]) for d in self._space.dimensions}
            if _key(point) not in self._seen:
                self._seen.add(_key(point))
                return point, asked
            self._study.tell(asked, state=TrialState.FAIL)
        point = self._any_unknown()
        return None if point is None else self._take(point)

    def start(self, number: int, params: Mapping[str, Any], asked: optuna.Trial | None) -> None:
        """Count a point as running under a trial's number; `asked` is None for one run again."""
        self._asked[number] = asked if asked is not None else self._take(dict(params))[1]

    def finish(self, trial: Trial) -> None:
        """Tell the sampler how a running trial ended."""
        asked = self._asked.pop(trial.number)
        if trial.value is None or trial.state in ("failed", "diverged"):
            self._study.tell(asked, state=TrialState.FAIL)
        else:
            self._study.tell(asked, trial.value)

    def _take(self, point: dict[str, Any]) -> tuple[dict[str, Any], optuna.Trial]:
        self._seen.add(_key(point))
        self._study.enqueue_trial({d.path: d.raw(point[d.path]) for d in self._space.dimensions})
        return point, self._study.ask(fixed_distributions=self._distributions)

    def _any_unknown(self) -> dict[str, Any] | None:
        if self._space.size is None:
            asked = self._study.ask(fixed_distributions=self._distributions)
            point = {d.path: d.value(asked.params[d.path]) for d in self._space.dimensions}
            self._study.tell(asked, state=TrialState.FAIL)
            return point
        places = (_all_values(d) for d in self._space.dimensions)
        for values in itertools.product(*places):
            point = {d.path: v for d, v in zip(self._space.dimensions, values, strict=True)}
            if _key(point) not in self._seen:
                return point
        return None

    def _frozen(self, trial: Trial) -> optuna.trial.FrozenTrial:
        return frozen_trial(self._space, self._distributions, trial)


def frozen_trial(
    space: SearchSpace, distributions: Mapping[str, BaseDistribution], trial: Trial
) -> optuna.trial.FrozenTrial:
    """Optuna's form of a trial that ended."""
    failed = trial.value is None or trial.state in ("failed", "diverged")
    return optuna.trial.create_trial(
        state=TrialState.FAIL if failed else TrialState.COMPLETE,
        value=None if failed else trial.value,
        params={d.path: d.raw(trial.params[d.path]) for d in space.dimensions},
        distributions=dict(distributions),
    )


def importances(space: SearchSpace, trials: Iterable[Trial]) -> dict[str, float]:
    """Share of each parameter in what sets the better trials apart (PED-ANOVA, arXiv 2304.10255).

    Empty where too few trials have a value, or all have the same one.
    """
    distributions = {d.path: distribution(d) for d in space.dimensions}
    usable = [t for t in trials if t.value is not None and t.state in ("complete", "pruned")]
    if len(usable) < _MIN_FOR_IMPORTANCES or len({t.value for t in usable}) == 1:
        return {}
    study = _quiet_study()
    study.add_trials([frozen_trial(space, distributions, trial) for trial in usable])
    found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return {path: float(share) for path, share in found.items()}


def _quiet_study(sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    """A study in memory; Optuna says nothing of it on the console, progress is shown by us."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(direction="maximize", sampler=sampler)


def _at_share(dimension: Dimension, share: float) -> float:
    """The raw draw at a share in [0, 1) of a dimension."""
    if dimension.kind in ("grid", "choice"):
        return int(share * len(dimension.values))
    if dimension.log:
        return dimension.low * (dimension.high / dimension.low) ** share
    if dimension.step is None:
        return dimension.low + (dimension.high - dimension.low) * share
    return dimension.low + int(share * (dimension.size or 1)) * dimension.step


def _all_values(dimension: Dimension) -> list[Any]:
    if dimension.kind in ("grid", "choice"):
        return list(dimension.values)
    step = dimension.step or 1.0
    return [dimension.value(dimension.low + place * step) for place in range(dimension.size or 0)]


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)
