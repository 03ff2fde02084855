"""Every number of a study, from its ledger: `tables.json`.

Shape letters:
    S seeds    Q queries
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np

from twotower.core.records import environment
from twotower.core.types import Float64
from twotower.evaluation.power import POWER, seeds_for_margin
from twotower.evaluation.significance import Comparison, holm
from twotower.evaluation.two_way import effects
from twotower.evaluation.verdict import ALPHA
from twotower.study import marks
from twotower.study.book import Book
from twotower.study.cells import Cell
from twotower.study.contrasts import Contrasts, Name, Values, contrasted
from twotower.study.facts import facts
from twotower.study.ledger import Ledger, Line
from twotower.study.load import Study
from twotower.study.measured import Place, open_data, open_place
from twotower.study.rows import (
    best_trial,
    done,
    environments,
    lender,
    measure,
    method_of,
    paper_gains,
    reference_lines,
    reference_row,
    seeds_of,
    sizes_of,
    validation,
)
from twotower.study.uncompared import not_compared

_ACCURACY = ("map", "recall")


def build(
    study: Study, ledger: Ledger, resamples: int = 10_000
) -> tuple[dict[str, Any], Contrasts]:
    """The document, and the contrasts that claims are held against.

    Raises:
        InputError: runs can't be compared, or their data is gone.
    """
    maker = _Maker(study, ledger, resamples)
    for place in study.places():
        maker.add(place)
    return maker.document(), maker.contrasts


class _Maker:
    def __init__(self, study: Study, ledger: Ledger, resamples: int) -> None:
        self._study, self._ledger, self._resamples = study, ledger, resamples
        self._book = Book(study, ledger)
        self._rows: list[dict[str, Any]] = []
        self._points: list[tuple[Cell, dict[str, Any]]] = []
        self._datasets: list[dict[str, Any]] = []
        self._power: list[dict[str, Any]] = []
        self._finals: dict[tuple[tuple[str, float], str], list[Line]] = {}
        self.contrasts = Contrasts()

    def add(self, at: tuple[str, float]) -> None:
        """Measure one dataset at one fraction."""
        cells = [cell for cell in self._study.cells if cell.key.place == at]
        if not self._study.plan.seeds:
            self._add_trials(at, cells)
            return
        lines = {cell.key: done(self._book.seed_lines(cell)) for cell in cells}
        reference = self._book.reference_line(at)
        self._finals |= {(at, key.method): found for key, found in lines.items()}
        measured = [line for found in lines.values() for line in found]
        if not measured and reference is None:
            return
        others = reference_lines(reference) if reference else []
        checked = [*measured, *others]
        place = open_place(cells[0].config, self._ledger, checked)
        self._datasets.append(facts(at, place.prepared, cells[0].config))
        values = {
            key.method: place.values([line["ranks"] for line in found])
            for key, found in lines.items()
            if found
        }
        if reference:
            for name, one in reference["references"].items():
                values[name] = place.values([one["ranks"]])
        self.contrasts.queries[at], self.contrasts.groups[at] = place.queries, place.groups
        self._compare(at, place, values, {k.method: seeds_of(found) for k, found in lines.items()})
        self._plan_seeds(at, values)
        means = self._means(place, values)
        for cell in cells:
            found = lines[cell.key]
            if found and cell.sweep:
                self._points.append((cell, means[cell.key.method]))
            elif not cell.sweep:
                self._rows.append(self._row(cell, found, means.get(cell.key.method, {})))
                if size := sizes_of(found):
                    self.contrasts.table_bytes[at, cell.key.method] = size["table_bytes"]
        if reference:
            self._rows += [
                reference_row(at, name, means[name], reference) for name in reference["references"]
            ]

    def _add_trials(self, at: tuple[str, float], cells: Sequence[Cell]) -> None:
        """Rows of one dataset at one fraction where nothing is measured on test."""
        lines = [line for cell in cells for line in self._book.trial_lines(cell)]
        if lines:
            prepared = open_data(cells[0].config, self._ledger, lines)
            self._datasets.append(facts(at, prepared, cells[0].config))
            self._rows += [self._row(cell, [], {}) for cell in cells]

    def document(self) -> dict[str, Any]:
        """`tables.json`."""
        plan, rules = self._study.plan, self._study.cells[0].config.eval
        runs = self._ledger.runs()
        left = self._book.left
        machines, made_on = environments(runs, self._ledger)
        return {
            "study": plan.name,
            "title": plan.title,
            "date": datetime.now(UTC).date().isoformat(),
            "environment": environment(),
            "command": f"twotower study {self._study.source}",
            "complete": not left,
            "runs_done": self._book.total - left,
            "runs_total": self._book.total,
            "core_seconds": round(sum(line["core_seconds"] for line in runs), 1),
            "baseline": plan.baseline,
            "trials": plan.trials,
            "exchange": list(plan.exchange),
            "seeds": list(plan.seeds),
            "metrics": [f"{metric}@{k}" for metric in _ACCURACY for k in rules.k],
            "slices": list(rules.slices),
            "primary": list(plan.primary),
            "claims_corrected": plan.claims_corrected,
            "methods": [method_of(self._study, name) for name in plan.methods],
            "datasets": self._datasets,
            "rows": self._rows,
            "contrasts": list(self._contrast_rows()),
            "sweeps": list(self._sweeps()),
            "power": self._power,
            "paper": list(paper_gains(plan)),
            "not_compared": not_compared(self._study, self._book),
            "environments": machines,
            "runs": [
                self._run(line) | {"environment": e} for line, e in zip(runs, made_on, strict=True)
            ],
        }

    def _means(
        self, place: Place, values: Mapping[str, Mapping[str, Float64]]
    ) -> dict[str, dict[str, Any]]:
        """Method -> metric -> value with interval over seeds and queries."""
        options = Comparison(
            confidence=self._study.plan.confidence, resamples=0, groups=place.groups
        )
        tables = {
            (method, metric): found
            for method, metrics in values.items()
            for metric, found in metrics.items()
            if metric in self._study.plan.primary or measure(metric) in _ACCURACY
        }
        named: dict[str, dict[str, Any]] = {}
        for (method, metric), one in effects(tables, options).items():
            value = None if np.isnan(one.mean) else one.mean
            named.setdefault(method, {})[metric] = {
                "value": value,
                "low": one.low,
                "high": one.high,
            }
        return named

    def _compare(
        self,
        at: tuple[str, float],
        place: Place,
        values: Mapping[str, Mapping[str, Float64]],
        seeds: Mapping[str, Sequence[int]],
    ) -> None:
        """All methods against the baseline, and each claim's pair, seed against equal seed."""
        plan = self._study.plan
        pairs = [(name, plan.baseline) for name in plan.methods if name != plan.baseline]
        pairs += [(claim.method, claim.against) for claim in plan.claims]
        pairs_of: dict[Name, Values] = {}
        common: dict[Name, tuple[int, ...]] = {}
        for method, against in dict.fromkeys(pairs):
            if method not in values or against not in values:
                continue
            both = [seed for seed in seeds[method] if seed in seeds[against]]
            if not both:
                continue
            mine = [seeds[method].index(seed) for seed in both]
            theirs = [seeds[against].index(seed) for seed in both]
            for metric, found_SQ in values[method].items():
                second_SQ, first_SQ = found_SQ[mine], values[against][metric][theirs]
                if np.isnan(second_SQ[0]).all():
                    continue
                name = Name(at, method, against, metric)
                pairs_of[name], common[name] = Values(second_SQ - first_SQ, first_SQ), tuple(both)
        options = Comparison(
            confidence=plan.confidence, resamples=self._resamples, groups=place.groups
        )
        found = contrasted(pairs_of, options)
        for name, contrast in found.items():
            contrast.seeds = common[name]
            if self._is_compared(name):
                contrast.values = pairs_of[name]
        family: dict[Hashable, float] = {
            name: one.effect.p
            for name, one in found.items()
            if name.against == plan.baseline and name.metric in plan.primary
            if one.effect.p is not None and one.effect.seeds > 1
        }
        # The planned family, whatever of it has ended: what is missing counts as no finding.
        planned = (len(plan.methods_on(at[0])) - 1) * len(plan.primary)
        rest = {f"missing {n}": 1.0 for n in range(planned - len(family))}
        adjusted = holm({**family, **rest})
        for name in family:
            found[cast("Name", name)].p_holm = adjusted[name]
        self.contrasts.found |= found

    def _is_compared(self, name: Name) -> bool:
        """Whether a claim compares this gain with another."""
        return any(
            (claim.method, claim.against) == (name.method, name.against)
            and claim.compares_gains
            and name.metric in (claim.metric, claim.more_than)
            for claim in self._study.plan.claims
        )

    def _plan_seeds(
        self, at: tuple[str, float], values: Mapping[str, Mapping[str, Float64]]
    ) -> None:
        """What claims of not being worse would take, by the spread of the method they name."""
        plan = self._study.plan
        wanted = [(c.against, c.metric, c.margin) for c in plan.claims if c.margin is not None]
        for against, metric, margin in dict.fromkeys(wanted):
            found_SQ = values.get(against, {}).get(metric)
            if found_SQ is None or len(found_SQ) < 2:
                continue
            means = np.nanmean(found_SQ, axis=1).tolist()
            self._power.append(
                {
                    "dataset": at[0],
                    "fraction": at[1],
                    "method": against,
                    "metric": metric,
                    "margin": margin,
                    "power": POWER,
                    "seeds": len(means),
                    "seeds_needed": seeds_for_margin(means, margin, confidence=plan.confidence),
                }
            )

    def _contrast_rows(self) -> Iterator[dict[str, Any]]:
        for name, contrast in self.contrasts.found.items():
            (dataset, fraction), method, against, metric = name
            one, gain, p_holm = contrast.effect, contrast.gain, contrast.p_holm
            p = one.p if p_holm is None else p_holm
            yield {
                "dataset": dataset,
                "fraction": fraction,
                "method": method,
                "against": against,
                "metric": metric,
                "first": contrast.first,
                "second": contrast.first + one.mean,
                "mean": one.mean,
                "relative": gain.mean if gain else None,
                "relative_low": gain.low if gain else None,
                "relative_high": gain.high if gain else None,
                "low": one.low,
                "high": one.high,
                "p": one.p,
                "p_holm": p_holm,
                "df": one.df,
                "p_df": one.p_df,
                "boot_low": one.boot_low,
                "boot_high": one.boot_high,
                "seeds": one.seeds,
                "queries": one.queries,
                "primary": p_holm is not None,
                "significant": p is not None and one.seeds > 1 and p < ALPHA,
                **marks.of_pair(*(self._of_seeds(name, m) for m in (method, against))),
            }

    def _of_seeds(self, name: Name, method: str) -> list[Line]:
        """The runs of one side of a difference."""
        seeds = self.contrasts.found[name].seeds
        return [line for line in self._finals[name.place, method] if line["seed"] in seeds]

    def _row(self, cell: Cell, lines: Sequence[Line], means: Mapping[str, Any]) -> dict[str, Any]:
        trials = self._book.trial_lines(cell)
        settings = self._book.settings(cell)
        return {
            "dataset": cell.key.dataset,
            "fraction": cell.key.fraction,
            "method": cell.key.method,
            "kind": "borrowed" if cell.lender else "tuned",
            "settings_from": lender(cell),
            "settings": None if settings is None else {**settings, **(cell.last or {})},
            "seeds": seeds_of(lines),
            "missing": len(cell.seeds) - len(lines),
            "metrics": dict(means),
            "validation": validation(cell, self._book.planned(cell), trials),
            "best_trial": marks.counts(best_trial(trials)),
            "sizes": sizes_of(lines),
            **marks.counts(lines),
            "core_seconds": round(sum(line["core_seconds"] for line in lines), 1),
            "trial_core_seconds": round(sum(line["core_seconds"] for line in trials), 1),
        }

    def _sweeps(self) -> Iterator[dict[str, Any]]:
        shown = {(r["dataset"], r["fraction"], r["method"]): r["metrics"] for r in self._rows}
        baseline = self._study.plan.baseline
        for name, sweep in self._study.plan.sweeps.items():
            for dataset in sweep.datasets:
                for fraction in sweep.fractions:
                    points = [
                        self._point(c, found)
                        for c, found in self._points
                        if c.sweep == name and c.key.place == (dataset, fraction)
                    ]
                    yield {
                        "name": name,
                        "title": sweep.title,
                        "dataset": dataset,
                        "fraction": fraction,
                        "method": sweep.method,
                        "path": sweep.path,
                        "grid": list(sweep.grid),
                        "points": points,
                        "baseline": shown.get((dataset, fraction, baseline), {}),
                    }

    def _point(self, cell: Cell, means: Mapping[str, Any]) -> dict[str, Any]:
        lines = done(self._book.seed_lines(cell))
        found = {"value": cell.value, "seeds": len(lines), "metrics": dict(means)}
        return {**found, "sizes": sizes_of(lines), **marks.counts(lines)}

    def _run(self, line: Line) -> dict[str, Any]:
        return {
            "id": line["id"],
            "dataset": line["dataset"],
            "fraction": line["fraction"],
            "method": line["method"],
            "kind": line["kind"],
            "seed": line["seed"],
            "trial": line["trial"],
            "settings": line["params"],
            "validation": line["value"],
            "metrics": line.get("test", {}),
            "best_step": (line.get("best") or {}).get("step"),
            "steps": line.get("steps"),
            **marks.of_run(line),
            "core_seconds": line["core_seconds"],
            "seconds": line.get("seconds"),
            "commit": self._ledger.noted(line["environment"])["commit"],
        }
