"""What the numbers of a study allow to be said in two sentences."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from twotower.report.folder import as_number
from twotower.report.formats import core_time, integer, listed, metric_label, percent
from twotower.study.document import Document, Setting, rows_of, setting_of, text_of

VERDICTS = {
    "holds": ("holds", "hold"),
    "contradicted": ("is contradicted", "are contradicted"),
    "not_shown": ("is not shown", "are not shown"),
    "underpowered": ("is underpowered", "are underpowered"),
}
"""Verdicts with the words that follow a number of claims, for one and for several."""

_SOLID = "\u00a0"
"""A space that no line ends at."""


def sentence(document: Document, claims: Sequence[Mapping[str, Any]]) -> str:
    """How many claims hold, and which method leads in how many settings."""
    said = [part for part in (_claims(claims), _leaders(document)) if part]
    if document.is_trials_only:
        return "Trials only: methods are compared on validation, and test is left alone."
    if not said:
        return "No run is evaluated yet."
    whole = "; ".join(said) + "."
    if is_complete(document):
        return whole[0].upper() + whole[1:]
    return "So far, " + whole


def where(document: Document) -> str:
    """Where the highest method leads the baseline, where it can't be told, who else is above."""
    metric = next(iter(document.primary), "")
    ahead: dict[str, list[Setting]] = {}
    unsure: dict[str, list[Setting]] = {}
    behind: list[Setting] = []
    above: dict[str, list[Setting]] = {}
    for setting, best in leaders(document).items():
        if best == document.baseline:
            behind.append(setting)
        elif document.standing(setting, best, metric) == "ahead":
            ahead.setdefault(best, []).append(setting)
        else:
            unsure.setdefault(best, []).append(setting)
        for name in _above(document, setting, best, metric):
            above.setdefault(name, []).append(setting)
    label, other = metric_label(metric), document.other
    ahead = dict(sorted(ahead.items(), key=lambda found: -len(found[1])))
    said = [
        f"{document.title(name)} leads {other} in {label} on {_places(document, places)}."
        for name, places in ahead.items()
    ]
    said += [
        f"{document.title(name)} is the highest on {_places(document, places)}, but not "
        f"distinguishable from {other}."
        for name, places in unsure.items()
    ]
    if behind:
        said.append(f"No trained method is above {other} on {_places(document, behind)}.")
    said += [
        f"{document.title(name)}, not trained, is above all of them on {_places(document, places)}."
        for name, places in above.items()
    ]
    return " ".join(said)


def leaders(document: Document) -> dict[Setting, str]:
    """The trained method with the highest first primary metric, where more than one has it."""
    metric = next(iter(document.primary), "")
    found: dict[Setting, str] = {}
    for setting in document.settings:
        trained = [
            m
            for m in document.methods(setting)
            if not document.is_reference(m) and document.value(setting, m, metric) is not None
        ]
        if len(trained) > 1 and (best := document.best(setting, metric, trained)):
            found[setting] = best
    return found


def notes(document: Document) -> list[str]:
    """What to know before believing the page."""
    told: list[str] = []
    if not is_complete(document):
        told.append(f"Incomplete: {_runs(document)} runs done; every number may still change.")
    for mark in document.all_marks:
        found = sum(bool(as_number(row.get(mark.name))) for row in document.rows)
        rows = "1 row holds" if found == 1 else f"{found} rows hold"
        runs = f"{rows} runs" if found else "The best trials of some methods are"
        told.append(f"{runs} marked {mark.sign}, {mark.word}: {mark.meaning}.")
    told += [_silent(document, row) for row in rows_of(document.tables, "not_compared", "method")]
    return told + [_power(document, row) for row in rows_of(document.tables, "power", "margin")]


def _silent(document: Document, row: Mapping[str, Any]) -> str:
    """A comparison that no number answers."""
    pair = listed(document.title(text_of(row, key)) for key in ("method", "against"))
    place, other = setting_of(row), as_number(row.get("grows_from"))
    places = [place.label] if other is None else [place.label, Setting(place.dataset, other).label]
    return f"{pair} are not compared on {listed(places)}: runs diverged, and no seed is left."


def _power(document: Document, row: Mapping[str, Any]) -> str:
    """What a claim of not being worse takes."""
    seeds, margin = as_number(row.get("seeds_needed")), as_number(row.get("margin")) or 0.0
    needed = f"takes {integer(seeds)} seeds" if seeds else "takes more than 1,000 seeds"
    return (
        f"Not being worse by {percent(margin)} of {metric_label(text_of(row, 'metric'))} {needed} "
        f"on {setting_of(row).label}, where the two are equal and are to be found so in "
        f"{percent(as_number(row.get('power')) or 0.0)} of such studies, or more where they differ "
        f"query by query; by the spread of {document.title(text_of(row, 'method'))} over "
        f"{integer(as_number(row.get('seeds')) or 0)} seeds."
    )


def tiles(document: Document, claims: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """(label, number, remark) of the few numbers to see first."""
    tables = document.tables
    shown: list[tuple[str, str, str]] = []
    if claims:
        counts = Counter(text_of(c, "verdict") for c in claims)
        rest = [f"{counts[v]} {v.replace('_', ' ')}" for v in list(VERDICTS)[1:] if counts[v]]
        if open_ := sum(number for verdict, number in counts.items() if verdict not in VERDICTS):
            rest.append(f"{open_} open")
        shown.append(("Claims that hold", f"{counts['holds']} of {len(claims)}", ", ".join(rest)))
    trials = as_number(tables.get("trials"))
    then = "" if document.is_trials_only else ", then its seeds"
    more = ", one at each other's best" if tables.get("exchange") else ""
    remark = f"{integer(trials)} trials a method{more}{then}" if trials else ""
    shown.append(("Runs done", _runs(document), remark))
    environment = tables.get("environment") or {}
    if (spent := as_number(tables.get("core_seconds"))) is not None:
        number, unit = core_time(spent).split(" ")
        shown.append((f"Cost in {unit}", number, hardware(environment)))
    if commit := text_of(environment, "commit"):
        changed = "with changes not committed" if commit.endswith("+") else ""
        date = text_of(tables, "date")
        shown.append(("Commit", commit[:10], ", ".join(x for x in (date, changed) if x)))
    return shown


def hardware(environment: Mapping[str, Any]) -> str:
    """``2 cores, Xeon, 8 GiB``, as far as it is known."""
    cpus, memory = (as_number(environment.get(key)) for key in ("cpus", "memory_gib"))
    parts = [
        f"{cpus:g} core{'s' if cpus != 1 else ''}" if cpus is not None else "",
        text_of(environment, "cpu"),
        f"{memory:.3g} GiB" if memory is not None else "",
    ]
    return ", ".join(part for part in parts if part)


def is_complete(document: Document) -> bool:
    """Whether every planned run is done."""
    return bool(document.tables.get("complete"))


def _runs(document: Document) -> str:
    done, total = (as_number(document.tables.get(k)) for k in ("runs_done", "runs_total"))
    if done is None:
        done = len(rows_of(document.tables, "runs"))
    return integer(done) if total is None else f"{integer(done)} of {integer(total)}"


def _claims(claims: Sequence[Mapping[str, Any]]) -> str:
    if not claims:
        return ""
    counts = Counter(text_of(claim, "verdict") for claim in claims)
    told = [
        f"{counts[verdict]} {one if counts[verdict] == 1 else many}"
        for verdict, (one, many) in VERDICTS.items()
        if counts[verdict]
    ]
    if open_ := sum(n for verdict, n in counts.items() if verdict not in VERDICTS):
        told.append(f"{open_} {'is' if open_ == 1 else 'are'} open")
    if len(claims) == 1:
        return f"the one claim {told[0].split(' ', 1)[1]}"
    return f"of {len(claims)} claims {listed(told)}{_ruled_out(claims)}"


def _ruled_out(claims: Sequence[Mapping[str, Any]]) -> str:
    """Of how many undecided claims the paper's gain is not among what is possible here."""
    undecided = [c for c in claims if text_of(c, "verdict") == "underpowered"]
    told = sum(bool(claim.get("excludes_paper")) for claim in undecided)
    return f" ({told} of these rule the paper's gain out)" if told else ""


def _leaders(document: Document) -> str:
    found = leaders(document)
    if not found:
        return ""
    counts = Counter(found.values()).most_common()
    (first, most), *rest = counts
    metric = metric_label(next(iter(document.primary), ""))
    if len(found) == 1:
        return f"{document.title(first)} has the highest {metric} on {next(iter(found)).label}"
    if not rest:
        return f"{document.title(first)} has the highest {metric} in all {len(found)} settings"
    others = [f"{document.title(name)} in {number}" for name, number in rest]
    told = listed([f"{document.title(first)} has the highest {metric} in {most}", *others])
    return f"{told} of {len(found)} settings"


def _above(document: Document, setting: Setting, best: str, metric: str) -> list[str]:
    """Methods that are not trained and yet higher than the best trained one."""
    top = document.value(setting, best, metric)
    return [
        name
        for name in document.methods(setting)
        if document.is_reference(name)
        and (value := document.value(setting, name, metric)) is not None
        and top is not None
        and value.value > top.value
    ]


def _places(document: Document, settings: Sequence[Setting]) -> str:
    """``debian (100 %, 10 %) and wikispeedia (10 %)``; no share where a dataset has but one."""
    told: list[str] = []
    for dataset in dict.fromkeys(setting.dataset for setting in settings):
        shares = [setting.share for setting in settings if setting.dataset == dataset]
        is_only = sum(setting.dataset == dataset for setting in document.settings) == 1
        told.append(dataset if is_only else f"{dataset} ({', '.join(shares)})".replace(" ", _SOLID))
    return listed(told)
