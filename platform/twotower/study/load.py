"""A study's file read and checked, every config and search space of it, before anything runs."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twotower.core.config import ExperimentConfig
from twotower.core.errors import ConfigError
from twotower.core.loading import load_config, parse_yaml, with_overrides
from twotower.core.space_loading import build_space
from twotower.core.validation import validated
from twotower.evaluation.metrics import DEFINITIONS
from twotower.study.cells import Cell, Key
from twotower.study.schema import Dataset, Method, StudyPlan


@dataclass(frozen=True, slots=True)
class Study:
    """A plan and all its cells."""

    plan: StudyPlan
    source: Path
    cells: tuple[Cell, ...]
    """Rows of the tables first, dataset by dataset; points of figures after them."""

    def rows(self) -> list[Cell]:
        """The cells that are rows of tables."""
        return [cell for cell in self.cells if cell.sweep is None]

    def places(self) -> dict[tuple[str, float], ExperimentConfig]:
        """Every dataset and fraction, in the file's order, with a config of its data."""
        return {cell.key.place: cell.config for cell in self.rows()}


def load_study(path: str | Path) -> Study:
    """Read a study.

    Raises:
        ConfigError: file, key, config or space is wrong; each is named, with its cell.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: can't be read: {error}") from None
    plan = validated(StudyPlan, parse_yaml(text, str(file)), str(file))
    rows = list(_rows(plan, file))
    if plan.exchange:
        rows = [_exchanging(cell, rows) for cell in rows]
    _check_alike(rows, file)
    _check_metrics(plan, rows[0], file)
    known = {cell.key: cell for cell in rows}
    for cell in rows:
        if cell.lender is not None and cell.lender not in known:
            raise ConfigError(
                f"{file}: {_named(cell.key)} takes settings from {_named(cell.lender)}, "
                "which the study does not run"
            )
    cells = (*rows, *_points(plan, known, file))
    _check_alike(cells, file)
    return Study(plan, file, cells)


def _check_alike(cells: Sequence[Cell], file: Path) -> None:
    """Methods of one dataset and fraction share its prepared data and are evaluated alike."""
    first: dict[tuple[str, float], Cell] = {}
    for cell in cells:
        other = first.setdefault(cell.key.place, cell)
        for section in ("data", "eval"):
            if getattr(cell.config, section) != getattr(other.config, section):
                raise ConfigError(
                    f"{file}: {_named(cell.key)} changes {section}, which methods on one dataset "
                    "share; make it a dataset of its own"
                )


def _check_metrics(plan: StudyPlan, cell: Cell, file: Path) -> None:
    rules = cell.config.eval
    plain = [f"{metric}@{k}" for metric in DEFINITIONS for k in rules.k]
    known = [*plain, *(f"{part}_{metric}" for part in rules.slices for metric in plain)]
    wanted = [("primary", metric) for metric in plan.primary]
    for place, claim in enumerate(plan.claims):
        found = [claim.metric, *([claim.more_than] if claim.more_than else [])]
        wanted += [(f"claims.{place}", metric) for metric in found]
    wanted += [(f"paper.{place}", one.metric) for place, one in enumerate(plan.paper)]
    for key, metric in wanted:
        if metric not in known:
            near = difflib.get_close_matches(metric, known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{file}: {key}: {metric!r} is not measured{hint}")


def _rows(plan: StudyPlan, file: Path) -> Iterator[Cell]:
    for name, dataset in plan.datasets.items():
        base = _base(plan, name, dataset, file)
        for fraction in dataset.fractions:
            for label in dataset.methods or plan.methods:
                yield _row(plan, Key(name, fraction, label), base, file)


def _base(plan: StudyPlan, name: str, dataset: Dataset, file: Path) -> ExperimentConfig:
    changes = {
        **plan.set,
        **dataset.set,
        "seed": plan.tuning_seed,
        "eval.confidence": plan.confidence,
        "train.threads": plan.threads,
        "train.num_workers": 1,
    }
    config = load_config(file.parent / dataset.config).config
    return _changed(config, changes, f"{file}: datasets.{name}")


def _row(plan: StudyPlan, key: Key, base: ExperimentConfig, file: Path) -> Cell:
    method, dataset = plan.methods[key.method], plan.datasets[key.dataset]
    where = f"{file}: {_named(key)}"
    share = f"{key.fraction:g}"
    at = {**plan.at.get(share, {}), **dataset.at.get(share, {})}
    changes = {**method.set, **at, "data.fraction": key.fraction}
    config = _changed(base, changes, where)
    seeds = plan.seeds[: dataset.seeds or len(plan.seeds)]
    if dataset.settings_from is not None:
        lent = method.settings_from or key.method
        lender = Key(dataset.settings_from, _lent_fraction(plan, key), lent)
        last = method.set if method.settings_from else None
        return Cell(key, config, None, 0, seeds, lender=lender, last=last)
    if method.settings_from is not None:
        lender = Key(key.dataset, key.fraction, method.settings_from)
        return Cell(key, config, None, 0, seeds, lender=lender, last=method.set)
    space = _space(plan, method)
    if not plan.seeds and not space:
        raise ConfigError(f"{where}: has nothing to tune, and the study has no seeds")
    if not plan.trials or not space:
        return Cell(key, config, None, 0, seeds)
    built = build_space(space, config, where)
    trials = plan.trials if built.size is None else min(plan.trials, built.size)
    return Cell(key, config, built, trials, seeds)


def _exchanging(cell: Cell, rows: Sequence[Cell]) -> Cell:
    """With the cells beside it that are tuned as it is."""
    if not cell.trials:
        return cell
    beside = (other.key for other in rows if other.trials and other.key.place == cell.key.place)
    return replace(cell, others=tuple(key for key in beside if key != cell.key))


def _lent_fraction(plan: StudyPlan, key: Key) -> float:
    """The lender's nearest fraction."""
    lender = plan.datasets[key.dataset].settings_from
    assert lender is not None
    return min(plan.datasets[lender].fractions, key=lambda fraction: abs(fraction - key.fraction))


def _points(plan: StudyPlan, known: dict[Key, Cell], file: Path) -> Iterator[Cell]:
    for name, sweep in plan.sweeps.items():
        seeds = plan.seeds[: sweep.seeds or len(plan.seeds)]
        for dataset in sweep.datasets:
            for fraction in sweep.fractions:
                start = Key(dataset, fraction, sweep.method)
                if start not in known:
                    raise ConfigError(
                        f"{file}: sweeps.{name}: the study does not run {_named(start)}"
                    )
                for changes in sweep.points:
                    value = changes if sweep.path is None else changes[sweep.path]
                    key = Key(dataset, fraction, f"{name}={value}")
                    own = known[start]
                    last = {**(own.last or {}), **changes}
                    config = _changed(own.config, last, f"{file}: sweeps.{name}")
                    lender = own.lender or start
                    point = Cell(key, config, None, 0, seeds, lender=lender, last=last)
                    yield replace(point, sweep=name, value=value)


def _space(plan: StudyPlan, method: Method) -> dict[str, Any]:
    fixed = {path for path in plan.space if path in method.set and path not in method.space}
    return {path: spec for path, spec in plan.space.items() if path not in fixed} | method.space


def _changed(config: ExperimentConfig, changes: dict[str, Any], where: str) -> ExperimentConfig:
    try:
        return with_overrides(config, changes)
    except ConfigError as error:
        raise ConfigError(f"{where}: {str(error).removeprefix('override: ')}") from None


def _named(key: Key) -> str:
    return f"{key.method} on {key.dataset} at {key.fraction:g}"
