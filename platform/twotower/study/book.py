"""Which runs a study's ledger still lacks, and which of them may start."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from twotower.runtime.journal import Trial, best_of
from twotower.runtime.proposals import Proposer
from twotower.study.asked import Asked, whole
from twotower.study.cells import (
    Cell,
    Key,
    Kind,
    RunSpec,
    reference_run,
    seed_runs,
    trial_run,
    tuned_by,
)
from twotower.study.ledger import Ledger, Line
from twotower.study.load import Study


@dataclass(frozen=True, slots=True)
class Left:
    """How many runs of one kind and cell have not ended."""

    key: Key
    kind: Kind
    count: int
    after: Key | None = None
    """Cell whose trials come before them; trials of one cell run one after the other."""


class Book:
    """A study and its ledger, side by side; the ledger may grow meanwhile."""

    def __init__(self, study: Study, ledger: Ledger, asked: Asked | None = None) -> None:
        """Read both; `total`, `left` and `ready` are of the runs asked for, by default all."""
        self._study, self._ledger = study, ledger
        self._asked = asked or whole(study)
        self._cells = {cell.key: cell for cell in study.cells}
        self._searches: dict[Key, list[RunSpec]] = {cell.key: [] for cell in study.cells}
        self._exchanges: dict[Key, list[RunSpec]] = {}
        self._finals: dict[Key, list[RunSpec]] = {}
        self._references: dict[tuple[str, float], RunSpec] = {}
        for cell in study.rows():
            if cell.key.place in self._asked.references:
                self._references.setdefault(cell.key.place, reference_run(cell))
        plan = study.plan
        named = [plan.baseline, *(m for c in plan.claims for m in (c.method, c.against))]
        turn = {name: n for n, name in enumerate(dict.fromkeys([*named, *plan.methods]))}
        # Points of figures, whose name is no method's, come last.
        self._in_turn = sorted(
            (cell for cell in study.cells if cell.key in self._asked.trials),
            key=lambda cell: (cell.lender is not None, turn.get(cell.key.method, len(turn))),
        )

    @property
    def total(self) -> int:
        """Runs asked for; of those at exchanged settings the most, until they are known."""
        cells = sum(self.planned(cell) + len(self._seeds(cell)) for cell in self._in_turn)
        return len(self._references) + cells

    @property
    def left(self) -> int:
        """Runs that have not ended."""
        return sum(one.count for one in self.left_by_cell())

    def left_by_cell(self) -> Iterator[Left]:
        """The same by cell and kind."""
        for spec in self._references.values():
            yield Left(spec.key, "reference", int(self._ledger.run(spec.id) is None))
        for cell in self._in_turn:
            yield Left(cell.key, "trial", self.planned(cell) - len(self.trials(cell)))
            if self._seeds(cell) and not self.is_lost(cell):
                seeds = len(cell.seeds) - len(self.seed_lines(cell))
                yield Left(cell.key, "seed", seeds, tuned_by(self._cells, cell.key).key)

    def ready(self) -> Iterator[RunSpec]:
        """Runs that may start now; within a cell tuning comes first.

        What is tuned itself before what takes settings over, methods in the order in which claims
        name them, each on all data: a study that is cut short has whole claims.
        """
        wanted = list(self._references.values())
        for cell in self._in_turn:
            searched = self._searched(cell)
            if len(searched) < cell.trials:
                wanted.append(self._proposed(cell, searched))
            elif len(self.trials(cell)) < self.planned(cell):
                wanted += self._exchanged(cell) or []
            elif self._seeds(cell):
                wanted += self._final(cell)
        yield from (spec for spec in wanted if self._ledger.run(spec.id) is None)

    def settings(self, cell: Cell) -> Mapping[str, Any] | None:
        """What tuning chose for a cell, its own or its lender's.

        None before that ended, and where not one trial ended with a metric.
        """
        tuned = tuned_by(self._cells, cell.key)
        trials = self.trials(tuned)
        if len(trials) < self.planned(tuned):
            return None
        best = best_of(trials)
        return best.params if best else (None if tuned.trials else {})

    def is_lost(self, cell: Cell) -> bool:
        """Whether all trials that its settings would come from diverged: it has no final runs."""
        tuned = tuned_by(self._cells, cell.key)
        return len(self.trials(tuned)) == self.planned(tuned) and self.settings(tuned) is None

    def planned(self, cell: Cell) -> int:
        """A cell's trials, ended or not: those of its search and those at exchanged settings."""
        exchanged = self._exchanged(cell)
        return cell.trials + len(cell.others if exchanged is None else exchanged)

    def trials(self, cell: Cell) -> list[Trial]:
        """A cell's trials that ended: of its search, then at exchanged settings."""
        exchanged = ((spec, self._ledger.run(spec.id)) for spec in self._exchanged(cell) or ())
        return self._searched(cell) + [_trial(spec, line) for spec, line in exchanged if line]

    def trial_lines(self, cell: Cell) -> list[Line]:
        """The ledger's lines of a cell's trials, by number."""
        searched = self._searches[cell.key][: len(self._searched(cell))]
        return self._lines([*searched, *(self._exchanged(cell) or ())])

    def seed_lines(self, cell: Cell) -> list[Line]:
        """The ledger's lines of a cell's final runs, in the order of the seeds."""
        return self._lines(self._final(cell))

    def reference_line(self, place: tuple[str, float]) -> Line | None:
        """The ledger's line of popularity, content and item-kNN."""
        spec = self._references.get(place)
        return self._ledger.run(spec.id) if spec else None

    def _seeds(self, cell: Cell) -> tuple[int, ...]:
        """Training seeds of the final runs that are asked for."""
        return cell.seeds if cell.key in self._asked.cells else ()

    def _lines(self, specs: list[RunSpec]) -> list[Line]:
        found = (self._ledger.run(spec.id) for spec in specs)
        return [line for line in found if line is not None]

    def _final(self, cell: Cell) -> list[RunSpec]:
        if cell.key not in self._finals:
            params = self.settings(cell)
            if params is None:
                return []
            self._finals[cell.key] = seed_runs(cell, params)
        return self._finals[cell.key]

    def _searched(self, cell: Cell) -> list[Trial]:
        """Trials of a search that ended, from the first on: each follows from those before."""
        ended: list[Trial] = []
        while len(ended) < cell.trials:
            spec = self._proposed(cell, ended)
            line = self._ledger.run(spec.id)
            if line is None:
                break
            ended.append(_trial(spec, line))
        return ended

    def _proposed(self, cell: Cell, before: list[Trial]) -> RunSpec:
        """The trial after these; proposed once, and the same in every process."""
        specs = self._searches[cell.key]
        if len(before) == len(specs):
            assert cell.space is not None, cell.key
            proposer = Proposer(
                cell.space,
                seed=self._study.plan.tuning_seed,
                num_trials=cell.trials,
                first=cell.space.own_point(cell.config),
                known=before,
            )
            proposed = proposer.propose()
            assert proposed is not None, "a space has at least as many points as trials"
            specs.append(trial_run(cell, len(before), proposed[0]))
        return specs[len(before)]

    def _exchanged(self, cell: Cell) -> list[RunSpec] | None:
        """Trials at the settings that won for the cells beside it, less those it made before.

        None before all of their searches ended.
        """
        if cell.others and cell.key not in self._exchanges:
            cells = [cell, *(self._cells[key] for key in cell.others)]
            searches = [self._searched(one) for one in cells]
            if any(len(found) < one.trials for found, one in zip(searches, cells, strict=True)):
                return None
            own, *winners = [best_of(found) or found[0] for found in searches]
            made, specs = {spec.id for spec in self._searches[cell.key]}, dict[str, RunSpec]()
            for winner in winners:
                paths = {*self._study.plan.exchange} & own.params.keys() & winner.params.keys()
                params = {**own.params, **{path: winner.params[path] for path in paths}}
                spec = trial_run(cell, cell.trials + len(specs), params)
                if spec.id not in made:
                    specs.setdefault(spec.id, spec)
            self._exchanges[cell.key] = list(specs.values())
        return self._exchanges.get(cell.key, [])


def _trial(spec: RunSpec, line: Line) -> Trial:
    """A trial that ended."""
    assert spec.trial is not None, spec.key
    state = "complete" if line["status"] == "done" else "diverged"
    return Trial(spec.trial, dict(spec.params), state, line["value"])
