"""The tables of the page as plain text: gains, results, slices and cost. The template lays out."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from twotower.report.folder import as_number
from twotower.report.formats import (
    SLICES,
    gain,
    metric_label,
    score,
    split_metric,
)
from twotower.study import marks
from twotower.study.document import Document, Setting, Value, text_of, texts_of
from twotower.study.marks import Mark

DASH = "–"  # noqa: RUF001 an en dash is meant


@dataclass(frozen=True, slots=True)
class Cell:
    """One number."""

    text: str = DASH
    small: str = ""
    """Below it: its interval, or its gain."""

    look: str = ""
    """Classes: `best`, and the standing against the baseline (`document.Standing`)."""

    marks: list[tuple[Mark, str]] = field(default_factory=list)
    """Of the runs behind it, each with how many have it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One method."""

    title: str
    colour: int | None
    """None for a sum."""

    cells: list[Cell]
    remarks: list[str] = field(default_factory=list)
    """What sets it apart: settings taken over, undertrained, seeds missing."""


@dataclass(frozen=True, slots=True)
class Body:
    """Lines that belong together."""

    lines: list[Line]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Methods against columns."""

    title: str
    aside: str
    """Beside the title, quieter."""

    groups: list[tuple[str, int]]
    """Titles over the columns, each with the number of columns it spans."""

    columns: list[str]
    bodies: list[Body]
    """Trained methods, then those that are not; no body is empty."""

    kind: str = "methods"
    """Class of the table."""


def gain_table(document: Document, metric: str) -> Table | None:
    """Gains over the baseline in one metric: methods against settings; None without any."""
    base = document.baseline
    settings = [s for s in document.settings if document.value(s, base, metric) is not None]
    names = [
        name
        for name in document.methods(*settings)
        if any(document.relative(s, name, metric) is not None for s in settings)
    ]
    if not names:
        return None
    best = {s: document.best(s, metric, [base, *names]) for s in settings}
    cells = {base: [_base_cell(document, s, metric, best[s]) for s in settings]}
    for name in names:
        cells[name] = [_gain(document, s, name, metric, best[s]) for s in settings]
    return Table(
        title=metric_label(metric),
        aside=f"{document.title(base)}, and the gain of every other method over it",
        groups=by_dataset(settings),
        columns=[setting.share for setting in settings],
        bodies=_bodies(document, cells),
        kind="methods dense gains",
    )


def result_table(document: Document, setting: Setting) -> Table | None:
    """The main metrics of one setting: means with intervals, gains beside them; None if empty."""
    names = document.methods(setting)
    metrics = _known(document, setting, document.metrics)
    if not metrics:
        return None
    cells: dict[str, list[Cell]] = {name: [] for name in names}
    for metric in metrics:
        best = document.best(setting, metric, names)
        for name in names:
            value = document.value(setting, name, metric)
            look = "best" if name == best else ""
            shown = _mean(value, value.interval if value else "", look)
            gain = Cell(
                document.gain(setting, name, metric), look=_look(document, setting, name, metric)
            )
            cells[name] += [shown, gain]
    return Table(
        title=setting.dataset,
        aside=_aside(document, setting),
        groups=[(metric_label(metric), 2) for metric in metrics],
        columns=[name for m in metrics for name in ("mean", "gain" + _corrected(document, m))],
        bodies=_bodies(document, cells, setting),
        kind="methods paired",
    )


def slice_table(document: Document, setting: Setting) -> Table | None:
    """Recall in every slice of the truth, the gain below it; None where no slice was measured."""
    recalls = [m for m in document.metrics if (split_metric(m) or ("", ""))[1] == "recall"]
    parts = texts_of(document.tables, "slices")
    metrics = _known(document, setting, [f"{part}_{m}" for part in parts for m in recalls])
    if not metrics:
        return None
    names = document.methods(setting)
    cells: dict[str, list[Cell]] = {name: [] for name in names}
    for metric in metrics:
        best = document.best(setting, metric, names)
        for name in names:
            look = _look(document, setting, name, metric) + (" best" if name == best else "")
            small = document.gain(setting, name, metric)
            cells[name].append(_mean(document.value(setting, name, metric), small, look))
    split = [split_metric(metric) or ("all", metric, 0) for metric in metrics]
    return Table(
        title=setting.dataset,
        aside=_aside(document, setting),
        groups=list(Counter(SLICES[part] for part, _, _ in split).items()),
        columns=[
            f"@{k}{_corrected(document, m)}" for m, (*_, k) in zip(metrics, split, strict=True)
        ],
        bodies=_bodies(document, cells, setting),
        kind="methods dense",
    )


def validation_table(document: Document) -> Table | None:
    """Best validation values of the trials: methods against settings; None without any."""
    found = {
        (setting, name): value
        for setting in document.settings
        for name in document.methods(setting)
        if (value := document.best_trial(setting, name)) is not None
    }
    settings = [s for s in document.settings if any(s == setting for setting, _ in found)]
    if not settings:
        return None
    best = {
        s: max(value for (setting, _), value in found.items() if setting == s) for s in settings
    }
    cells: dict[str, list[Cell]] = {}
    for name in document.methods(*settings):
        if any(method == name for _, method in found):
            cells[name] = [_trial_cell(document, s, name, best[s]) for s in settings]
    rows = [document.row(setting, name) for setting, name in found]
    metrics = dict.fromkeys(text_of(row["validation"], "metric") for row in rows)
    return Table(
        title=", ".join(map(metric_label, metrics)),
        aside="on validation, the best of each method's trials; below it the gain over "
        f"{document.title(document.baseline)}",
        groups=by_dataset(settings),
        columns=[setting.share for setting in settings],
        bodies=_bodies(document, cells),
        kind="methods dense",
    )


def _trial_cell(document: Document, setting: Setting, method: str, best: float) -> Cell:
    value = document.best_trial(setting, method)
    if value is None:
        return Cell()
    base = document.best_trial(setting, document.baseline)
    told = [gain(value / base - 1)] if base and method != document.baseline else []
    row = document.row(setting, method)
    found = row["validation"]
    if found.get("done") != found.get("planned"):
        told.append(f"{found.get('done')} of {found.get('planned')} trials")
    look = "best" if value == best else ""
    shown = marks.shown(row.get("best_trial") or {}, 1)
    return Cell(score(value), ", ".join(told), look, shown)


def _base_cell(document: Document, setting: Setting, metric: str, best: str | None) -> Cell:
    base = document.baseline
    look = "best" if best == base else ""
    found = _mean(document.value(setting, base, metric), "", look)
    return replace(found, marks=document.marks(setting, base))


def _gain(document: Document, setting: Setting, method: str, metric: str, best: str | None) -> Cell:
    look = _look(document, setting, method, metric) + (" best" if method == best else "")
    shown = document.gain(setting, method, metric)
    return Cell(shown or DASH, "", look, document.marks(setting, method) if shown else [])


def _corrected(document: Document, metric: str) -> str:
    """Behind a column's title, which gains are more than descriptive."""
    return ", Holm" if metric in document.primary else ""


def _look(document: Document, setting: Setting, method: str, metric: str) -> str:
    return "" if method == document.baseline else document.standing(setting, method, metric)


def _mean(value: Value | None, small: str, look: str) -> Cell:
    return Cell() if value is None else Cell(score(value.value), small, look)


def _known(document: Document, setting: Setting, metrics: Sequence[str]) -> list[str]:
    """Metrics that some method of the setting has."""
    names = document.methods(setting)
    return [m for m in metrics if any(document.value(setting, n, m) is not None for n in names)]


def by_dataset(settings: Sequence[Setting]) -> list[tuple[str, int]]:
    """Names of datasets with the number of their settings: titles over columns."""
    return list(Counter(setting.dataset for setting in settings).items())


def _bodies(
    document: Document, cells: dict[str, list[Cell]], setting: Setting | None = None
) -> list[Body]:
    """Lines of the trained methods and, apart, of the others."""
    bodies = [Body([]), Body([], "Not trained: their gains have no test")]
    for name, own in cells.items():
        remarks = [] if setting is None else _remarks(document, setting, name)
        line = Line(document.title(name), document.colour(name), own, remarks)
        bodies[document.is_reference(name)].lines.append(line)
    return [body for body in bodies if body.lines]


def _remarks(document: Document, setting: Setting, method: str) -> list[str]:
    row = document.row(setting, method)
    missing = as_number(row.get("missing")) or 0
    seeds = len(row.get("seeds") or ())
    told: list[str] = []
    if (source := _borrowed(document, setting, method)) and not _all_borrowed(document, setting):
        told.append(source)
    told += marks.words(document.marks(setting, method))
    if missing:
        told.append(f"seeds missing: {missing:g}")
    elif seeds and seeds != _seeds(document, setting):
        told.append("1 seed" if seeds == 1 else f"{seeds} seeds")
    return told


def _seeds(document: Document, setting: Setting) -> int:
    """Seeds that most trained methods of a setting have; 0 where none says."""
    counts = Counter(
        len(seeds)
        for name in document.methods(setting)
        if not document.is_reference(name) and (seeds := document.row(setting, name).get("seeds"))
    )
    return counts.most_common(1)[0][0] if counts else 0


def _aside(document: Document, setting: Setting) -> str:
    seeds = _seeds(document, setting)
    told = f"{setting.share} of the train pairs" if setting.fraction != 1 else "all train pairs"
    if seeds:
        told += f", {seeds} seed{'s' if seeds > 1 else ''}"
    return ", ".join(part for part in (told, _all_borrowed(document, setting)) if part)


def _borrowed(document: Document, setting: Setting, method: str) -> str:
    """Whose settings a row has; empty where they are its own."""
    row = document.row(setting, method)
    if source := text_of(row, "settings_from"):
        return f"settings of {document.titles.get(source, source)}"
    return "settings not its own" if row.get("kind") == "borrowed" else ""


def _all_borrowed(document: Document, setting: Setting) -> str:
    """What all trained methods of a setting borrow; empty where they differ."""
    trained = [name for name in document.methods(setting) if not document.is_reference(name)]
    sources = {_borrowed(document, setting, name) for name in trained}
    return sources.pop() if len(sources) == 1 else ""


def written(value: object, how: Callable[[float], str]) -> str:
    """A number from a document as text; a dash where it is missing."""
    number = as_number(value)
    return DASH if number is None else how(number)
