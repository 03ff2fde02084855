"""The figures of the page: which data goes into which plot, and the caption that explains it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from twotower.report import plots
from twotower.report.content import Dataset, Report, Run, Search, Stage, Trial
from twotower.report.data_views import tail
from twotower.report.formats import (
    SLICE_MEANING,
    SLICES,
    integer,
    megabytes,
    method_label,
    metric_label,
    percent,
    plain,
    rounded,
    score,
    seconds,
)
from twotower.report.heatmap import heatmap
from twotower.report.plots import Axes, Mark, Row, Series

LOSSES = {
    "main": "Main loss (retrieval)",
    "ssl": "Self-supervised loss",
    "spread_out": "Spread-out term",
}
"""Loss terms drawn, by their key in metrics.jsonl."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot with its title and a caption."""

    title: str
    svg: Markup
    caption: str = ""


def standings(report: Report) -> list[Figure]:
    """Every method in the chosen metric, and the best one's lead over each other."""
    label, level = metric_label(report.metric), f"{report.confidence:.0%}".replace("%", " %")
    rows = [
        Row(method_label(m.name), m.colour, cell.value, cell.low, cell.high, _leads(report, m.name))
        for m in report.methods
        if (cell := m.evaluation.summary.get(report.metric)) is not None
    ]
    figures: list[Figure] = []
    if rows:
        caption = f"Mean over {report.part} queries with its {level} interval."
        figures.append(Figure(label, plots.intervals(rows, label), caption))
    if report.differences:
        colours = {m.name: m.colour for m in report.methods}
        best = method_label(report.differences[0].method)
        gaps = [
            Row(f"over {method_label(d.other)}", colours[d.other], d.value, d.low, d.high)
            for d in report.differences
        ]
        caption = (
            f"Mean difference per query, paired, with its {level} interval. An interval that holds "
            "0 means: not distinguishable on these queries. Not corrected for the number of rows."
        )
        svg = plots.intervals(gaps, f"difference in {label}", zero=True)
        figures.append(Figure(f"Lead of {best}", svg, caption))
    return figures


def slices(report: Report) -> list[Figure]:
    """One figure a slice of the truth: the chosen metric of every method."""
    figures: list[Figure] = []
    for part, name in SLICES.items():
        key = report.metric if part == "all" else f"{part}_{report.metric}"
        cells = [
            (m, cell) for m in report.methods if (cell := m.evaluation.summary.get(key)) is not None
        ]
        if part in ("all", "not_head") or not cells:  # not head is the other three together
            continue
        rows = [Row(method_label(m.name), m.colour, c.value, c.low, c.high) for m, c in cells]
        counts = [c.n for _, c in cells if c.n is not None]
        caption = SLICE_MEANING[part] + (f"; {integer(counts[0])} queries" if counts else "")
        svg = plots.intervals(rows, metric_label(report.metric))
        figures.append(Figure(name, svg, caption[:1].upper() + caption[1:] + "."))
    return figures


def curves(report: Report) -> list[Figure]:
    """The chosen metric on validation by epoch, then each loss term."""
    figures: list[Figure] = []
    label = metric_label(report.metric)
    validation = [
        Series(method_label(run.label), run.colour, points, marked=_peak(points))
        for run in report.runs
        if (points := _points(run.validation, report.metric))
    ]
    if validation:
        svg = plots.lines(validation, Axes("epoch", label))
        caption = "On the validation part. The ring is the best point, whose checkpoint is kept."
        figures.append(Figure(f"Validation {label}", svg, caption))
    for key, title in LOSSES.items():
        series = [
            Series(method_label(run.label), run.colour, points)
            for run in report.runs
            if (points := _points(run.train, key))
        ]
        if series:
            caption = "Training batches; long lines are averaged in bins."
            if key == "main" and len({_loss_identity(run) for run in report.runs}) > 1:
                caption += " Losses of different settings don't compare."
            figures.append(Figure(title, plots.lines(series, Axes("epoch", "loss")), caption))
    return figures


def search_history(search: Search) -> list[Figure]:
    """Trials in order with the best so far, the trials' own curves, and what mattered."""
    label = f"validation {metric_label(search.metric)}"
    rated = [t for t in search.trials if t.value is not None]
    figures: list[Figure] = []
    if rated:
        svg = plots.scatter(
            [_mark(t, float(t.number), search) for t in rated],
            Axes("trial", label),
            steps=best_so_far(rated),
        )
        caption = "Ring: the best trial. Hollow: stopped early. Dashed line: best so far."
        figures.append(Figure("History", svg, caption))
    drawn = [t for t in search.trials if len(t.curve) > 1]
    if drawn:
        series = [
            Series(
                f"trial {t.number}" if t.number == search.best else "",
                2 if t.number == search.best else 1,
                t.curve,
                faint=t.number != search.best,
            )
            for t in sorted(drawn, key=lambda t: t.number == search.best)
        ]
        svg = plots.lines(series, Axes("epoch", label))
        caption = "One line a trial; the best one is named. Lines that end early were stopped."
        figures.append(Figure("Learning curves of the trials", svg, caption))
    if search.importances:
        ranked = sorted(search.importances.items(), key=lambda item: -item[1])
        rows = [Row(name, 1, value) for name, value in ranked]
        svg = plots.bars(rows, [percent(value) for _, value in ranked], "Importance of parameters")
        caption = "Share of the metric's variation between trials that each parameter explains."
        figures.append(Figure("Importance of each parameter", svg, caption))
    return figures


def search_parameters(search: Search) -> list[Figure]:
    """Each searched parameter against the metric."""
    rated = [t for t in search.trials if t.value is not None]
    figures: list[Figure] = []
    for name in dict.fromkeys(key for t in rated for key in t.params):
        space = search.space.get(name, {})
        having = [t for t in rated if name in t.params]
        if _is_axis(space, [t.params[name] for t in having]):
            marks = [_mark(t, float(t.params[name]), search) for t in having]
        else:
            choices = [plain(choice) for choice in space.get("choices", ())]
            having.sort(key=lambda t: _place(choices, plain(t.params[name])))
            marks = [_mark(t, plain(t.params[name]), search) for t in having]
        kind = "log" if space.get("log") else "linear"
        axes = Axes(name, metric_label(search.metric), x_kind=kind, height=230)
        figures.append(Figure(name, plots.scatter(marks, axes)))
    return figures


def best_so_far(trials: Sequence[Trial]) -> list[tuple[float, float]]:
    """(trial number, highest value up to it); trials without a value are skipped."""
    steps: list[tuple[float, float]] = []
    for trial in sorted(trials, key=lambda t: t.number):
        if trial.value is not None:
            best = max(trial.value, steps[-1][1]) if steps else trial.value
            steps.append((float(trial.number), best))
    return steps


def popularity(dataset: Dataset) -> list[Figure]:
    """How unevenly train pairs fall on items and queries, on log axes."""
    series = [
        Series({"item": "items", "query": "queries"}[side], colour, points)
        for colour, side in enumerate(("item", "query"), start=1)
        if (points := tail(dataset, side))
    ]
    if not series:
        return []
    axes = Axes("train pairs", "share with at least as many", "log", "log", height=300)
    caption = (
        "Of those with at least one train pair, the share that has at least so many; "
        "a straight line is a power law."
    )
    title = "How train pairs fall on items and queries"
    return [Figure(title, plots.lines(series, axes), caption)]


def information(dataset: Dataset) -> list[Figure]:
    """Mutual information between item features, raw and normalised."""
    names = [str(name) for name in dataset.information.get("features", [])]
    captions = {
        "raw": ("Mutual information, raw", "In nats; the diagonal is each feature's own entropy."),
        "normalised": (
            "Mutual information, normalised",
            "Divided by the smaller entropy of the two, Miller-Madow corrected; at most 1.",
        ),
    }
    return [
        Figure(title, heatmap(names, matrix, title), caption)
        for kind, (title, caption) in captions.items()
        if names and (matrix := dataset.information.get(kind))
    ]


def spent(stages: Sequence[tuple[str, int, Stage]]) -> list[Figure]:
    """Bars of seconds and of peak memory; ``stages`` are (label, colour, stage)."""
    figures: list[Figure] = []
    if stages:
        rows = [Row(label, colour, stage.seconds) for label, colour, stage in stages]
        labels = [seconds(stage.seconds) for _, _, stage in stages]
        total = seconds(sum(stage.seconds for _, _, stage in stages))
        caption = f"Wall time of each stage; {total} in all."
        figures.append(Figure("Time", plots.bars(rows, labels, "Time of each stage"), caption))
    sized = [(n, c, s.peak_memory_mb) for n, c, s in stages if s.peak_memory_mb is not None]
    if sized:
        rows = [Row(label, colour, size) for label, colour, size in sized]
        labels = [megabytes(size) for _, _, size in sized]
        svg = plots.bars(rows, labels, "Peak memory of each stage")
        figures.append(Figure("Peak memory", svg, "Largest resident size of the process tree."))
    return figures


def _is_axis(space: Mapping[str, Any], values: Sequence[Any]) -> bool:
    """Whether a parameter's values are points of an axis rather than names."""
    is_named = space.get("kind") == "choice" and not space.get("ordered")
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return numbers and not is_named


def _place(choices: Sequence[str], value: str) -> int:
    return choices.index(value) if value in choices else len(choices)


def _leads(report: Report, name: str) -> bool:
    return report.headline.verdict == "best" and report.headline.best == name


def _points(rows: Sequence[Mapping[str, float]], key: str) -> list[tuple[float, float]]:
    return [(row["epoch"], row[key]) for row in rows if key in row]


def _peak(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return max(points, key=lambda point: point[1])


def _loss_identity(run: Run) -> str:
    return run.config.loss.model_dump_json() if run.config is not None else ""


def _mark(trial: Trial, x: float | str, search: Search) -> Mark:
    params = ", ".join(f"{key} = {rounded(value)}" for key, value in trial.params.items())
    value = trial.value if trial.value is not None else float("nan")
    title = f"trial {trial.number} ({trial.state}): {score(value)}; {params}"
    if trial.number == search.best:
        return Mark(x, value, title, "best")
    return Mark(x, value, title, "full" if trial.state == "complete" else "hollow")
