"""The tables of a study as the page reads them: lookups, names and numbers, some missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from twotower.report.content import COLOURS
from twotower.report.folder import as_number
from twotower.report.formats import gain, method_label, score
from twotower.study import marks
from twotower.study.marks import MARKS, Mark

Row = Mapping[str, Any]
Standing = Literal["ahead", "behind", "same", "descriptive", "untested"]
"""What may be said of a difference. The first three are of the primary family, after Holm's
correction; `descriptive`: outside of it, not corrected; `untested`: nothing was compared."""

APART = "°"
"""Behind a descriptive gain whose own p-value, corrected for nothing, is below 0.05."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A dataset at a fraction of its train pairs."""

    dataset: str
    fraction: float = 1.0

    @property
    def label(self) -> str:
        """``debian`` for all train pairs, ``debian 10 %`` for a tenth."""
        return self.dataset if self.fraction == 1 else f"{self.dataset} {self.share}"

    @property
    def share(self) -> str:
        """The fraction in per cent."""
        return f"{self.fraction * 100:g} %"


@dataclass(frozen=True, slots=True)
class Value:
    """A mean with its interval."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> str:
        """``0.4901–0.5102``; empty without one."""  # noqa: RUF002 an en dash is meant
        if self.low is None or self.high is None:
            return ""
        return f"{score(self.low)}–{score(self.high)}"  # noqa: RUF001 an en dash is meant


class Document:
    """`tables.json`, by setting, method and metric.

    Lists may be empty, rows incomplete and numbers null: a lookup then gives None.
    """

    def __init__(self, tables: Mapping[str, Any]) -> None:
        """Index a document of the shape that `tables.build` writes."""
        self.tables = tables
        self.titles = {
            text_of(m, "name"): text_of(m, "title") or method_label(text_of(m, "name"))
            for m in rows_of(tables, "methods", named="name")
        }
        self.baseline = str(tables.get("baseline") or "baseline")
        self.rows = [r for r in rows_of(tables, "rows", "dataset") if r.get("method")]
        self.contrasts = [c for c in rows_of(tables, "contrasts", "dataset") if c.get("method")]
        self._references = {str(r["method"]) for r in self.rows if r.get("kind") == "reference"}
        named = dict.fromkeys([*self.titles, *(str(r["method"]) for r in self.rows)])
        coloured = [n for n in named if n != self.baseline and n not in self._references]
        self._colours = {name: 1 + i % (COLOURS - 1) for i, name in enumerate(coloured)}
        self._colours[self.baseline] = COLOURS
        self._row = {(setting_of(r), str(r["method"])): r for r in self.rows}
        self._contrast = {
            (setting_of(c), str(c["method"]), self._against(c), text_of(c, "metric")): c
            for c in self.contrasts
        }

    @property
    def settings(self) -> list[Setting]:
        """Datasets with their fractions, in the document's order; those of one dataset together."""
        rows = [*rows_of(self.tables, "datasets", named="name"), *self.rows]
        found = list(dict.fromkeys(setting_of(row) for row in rows))
        names = list(dict.fromkeys(setting.dataset for setting in found))
        return sorted(found, key=lambda setting: names.index(setting.dataset))

    @property
    def metrics(self) -> list[str]:
        """Columns of the table of results."""
        return texts_of(self.tables, "metrics")

    @property
    def is_trials_only(self) -> bool:
        """Whether the study has no final runs: nothing is measured on test."""
        return self.tables.get("seeds") == []

    @property
    def primary(self) -> list[str]:
        """Metrics whose differences are corrected for their number; the first ranks methods."""
        return texts_of(self.tables, "primary") or self.metrics[-1:]

    @property
    def other(self) -> str:
        """In a sentence, the method that all others are compared with."""
        title = self.title(self.baseline)
        return "the baseline" if title.lower() == "baseline" else title

    def title(self, method: str) -> str:
        """A method's name as people read it."""
        return self.titles.get(method) or method_label(method)

    def colour(self, method: str) -> int:
        """A method's colour, the same on the whole page; 0 for what isn't trained."""
        return self._colours.get(method, 0)

    def methods(self, *settings: Setting) -> list[str]:
        """Methods that have a row in one of the settings, in the plan's order, references last."""
        known = dict.fromkeys(name for where, name in self._row if where in settings)
        order = list(dict.fromkeys([*self.titles, *known]))
        return sorted(known, key=lambda name: (self.is_reference(name), order.index(name)))

    def row(self, setting: Setting, method: str) -> Row:
        """A method's row; empty where there is none."""
        return self._row.get((setting, method), {})

    def marks(self, setting: Setting, method: str) -> list[tuple[Mark, str]]:
        """Marks that runs of a method's row have, with how many of them."""
        row = self.row(setting, method)
        return marks.shown(row, len(row.get("seeds") or ()))

    def signs(self, setting: Setting, method: str) -> str:
        """The signs of those marks."""
        return "".join(mark.sign for mark, _ in self.marks(setting, method))

    @property
    def all_marks(self) -> list[Mark]:
        """Marks that any row has, or the best of its trials."""
        rows = [one for row in self.rows for one in (row, row.get("best_trial") or {})]
        return [mark for mark in MARKS if any(as_number(row.get(mark.name)) for row in rows)]

    def is_reference(self, method: str) -> bool:
        """Whether the method isn't trained."""
        return method in self._references

    def value(self, setting: Setting, method: str, metric: str) -> Value | None:
        """A method's mean of a metric."""
        return value_of((self.row(setting, method).get("metrics") or {}).get(metric))

    def best_trial(self, setting: Setting, method: str) -> float | None:
        """The best validation value over a method's trials."""
        return as_number((self.row(setting, method).get("validation") or {}).get("value"))

    def contrast(
        self, setting: Setting, method: str, metric: str, against: str | None = None
    ) -> Row | None:
        """The difference to the baseline, or to ``against``, where the two were compared."""
        found = self._contrast.get((setting, method, against or self.baseline, metric))
        return found if found is not None and as_number(found.get("mean")) is not None else None

    def _against(self, contrast: Row) -> str:
        return str(contrast.get("against") or self.baseline)

    def relative(self, setting: Setting, method: str, metric: str) -> float | None:
        """The difference to the baseline as a share of the baseline."""
        found = self.contrast(setting, method, metric)
        if found is not None and (told := as_number(found.get("relative"))) is not None:
            return told
        mine = self.value(setting, method, metric)
        base = self.value(setting, self.baseline, metric)
        if method == self.baseline or mine is None or base is None or base.value == 0:
            return None
        return mine.value / base.value - 1

    def standing(self, setting: Setting, method: str, metric: str) -> Standing:
        """How a method stands to the baseline."""
        found = self.contrast(setting, method, metric)
        return "untested" if found is None else standing(found)

    def gain(self, setting: Setting, method: str, metric: str) -> str:
        """The relative gain as text, with the sign of its standing (`gain_text`)."""
        share = self.relative(setting, method, metric)
        if share is None:
            return ""
        found = self.contrast(setting, method, metric)
        return gain(share) if found is None else gain_text(found, share)

    def best(self, setting: Setting, metric: str, methods: Sequence[str]) -> str | None:
        """The method with the highest mean; the first of equal ones."""
        rated = [(m, v.value) for m in methods if (v := self.value(setting, m, metric)) is not None]
        return max(rated, key=lambda pair: pair[1])[0] if rated else None


def standing(contrast: Row) -> Standing:
    """What a contrast says."""
    mean = as_number(contrast.get("mean"))
    if mean is None:
        return "untested"
    if not contrast.get("primary"):
        return "descriptive"
    return "same" if not contrast.get("significant") else "ahead" if mean > 0 else "behind"


def gain_text(contrast: Row, share: float) -> str:
    """A relative gain with the sign of its standing.

    ≈ before it where it isn't distinguishable from none, after Holm's correction; `APART` behind it
    where it is descriptive and, taken by itself, is.
    """
    said = standing(contrast)
    is_apart = said == "descriptive" and contrast.get("significant")
    return ("≈ " if said == "same" else "") + gain(share) + (APART if is_apart else "")


def setting_of(row: Row) -> Setting:
    """The setting of a row, a contrast, a run, or (by `name`) a dataset."""
    fraction = as_number(row.get("fraction"))
    name = row.get("dataset") or row.get("name") or ""
    return Setting(str(name), 1.0 if fraction is None else fraction)


def value_of(cell: Any) -> Value | None:
    """A cell ``{"value", "low", "high"}``; None where it has no value."""
    if not isinstance(cell, Mapping) or (value := as_number(cell.get("value"))) is None:
        return None
    return Value(value, as_number(cell.get("low")), as_number(cell.get("high")))


def rows_of(document: Mapping[str, Any], key: str, named: str | None = None) -> list[Row]:
    """The objects of a list; those without a name left out where ``named`` is the name's key."""
    rows = [row for row in document.get(key) or () if isinstance(row, Mapping)]
    return rows if named is None else [row for row in rows if row.get(named) is not None]


def text_of(row: Row, key: str) -> str:
    """A text of a row; empty where it is missing."""
    return str(row.get(key) or "")


def texts_of(document: Mapping[str, Any], key: str) -> list[str]:
    """A list of names; nulls are left out."""
    return [str(name) for name in document.get(key) or () if name]
