"""A study's cells (a method on a dataset at a fraction) and the runs each of them needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from twotower.core.config import ExperimentConfig
from twotower.core.loading import with_overrides
from twotower.core.records import fingerprint, identity
from twotower.core.space import SearchSpace
from twotower.data.locate import data_identity

Kind = Literal["trial", "seed", "reference"]


class Key(NamedTuple):
    """Which cell."""

    dataset: str
    fraction: float
    method: str

    @property
    def place(self) -> tuple[str, float]:
        """Dataset and fraction: what is compared with each other."""
        return self.dataset, self.fraction


@dataclass(frozen=True, slots=True)
class Cell:
    """One method on one dataset at one fraction."""

    key: Key
    config: ExperimentConfig
    """With the study's, the dataset's and the method's changes."""

    space: SearchSpace | None
    """What is tuned here; None = nothing is."""

    trials: int
    """Trials of the search; 0 where settings are borrowed or stay as they are."""

    seeds: tuple[int, ...]
    others: tuple[Key, ...] = ()
    """Cells whose winners' settings it is tried at too, where methods exchange some."""

    lender: Key | None = None
    """Cell whose winner is taken over."""

    last: Mapping[str, Any] | None = None
    """Changes that a borrowed winner does not override, by dotted path."""

    sweep: str | None = None
    """Figure that the cell is a point of; None = a row of the tables."""

    value: Any = None
    """What the figure's path is set to; of a grid by path."""


def tuned_by(cells: Mapping[Key, Cell], key: Key) -> Cell:
    """The cell whose winner one is run at: itself, where it borrows none."""
    cell = cells[key]
    while cell.lender is not None:
        cell = cells[cell.lender]
    return cell


@dataclass(frozen=True)
class RunSpec:
    """One run, whole: equal configs of one kind are one run, whatever cell asks for it."""

    key: Key
    kind: Kind
    config: ExperimentConfig
    params: Mapping[str, Any]
    """Settings by dotted path that tuning chose."""

    trial: int | None = None

    @cached_property
    def id(self) -> str:
        """12 digits of the fingerprint of what the run computes, wherever its data lies."""
        config = identity(self.config) | {"data": data_identity(self.config.data)}
        if self.kind == "reference":
            config = {"data": config["data"], "eval": config["eval"]}
        named = {"kind": self.kind, "dataset": self.key.dataset, "config": config}
        return fingerprint(named)[:12]


def seed_runs(cell: Cell, params: Mapping[str, Any]) -> list[RunSpec]:
    """The final runs of a cell at its settings."""
    config = with_overrides(cell.config, {**params, **(cell.last or {})})
    return [
        RunSpec(cell.key, "seed", with_overrides(config, {"seed": seed}), params)
        for seed in cell.seeds
    ]


def trial_run(cell: Cell, number: int, params: Mapping[str, Any]) -> RunSpec:
    """One trial of a cell's tuning."""
    assert cell.space is not None, cell.key
    return RunSpec(cell.key, "trial", cell.space.apply(cell.config, params), params, number)


def reference_run(cell: Cell) -> RunSpec:
    """Popularity, content and item-kNN where a cell is."""
    return RunSpec(Key(*cell.key.place, "references"), "reference", cell.config, {})
