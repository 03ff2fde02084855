"""Reads run directories, a search and the prepared data into one `Report`."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from twotower.core.config import Eval, ExperimentConfig
from twotower.core.errors import DataError, InputError
from twotower.core.loading import build_config, parse_yaml
from twotower.core.storage import Store
from twotower.report.compare import best_method, conclude, differences, display_metrics
from twotower.report.content import (
    COLOURS,
    Dataset,
    Evaluation,
    Interval,
    Method,
    PerQuery,
    Report,
    Run,
    Search,
    Stage,
    Trial,
)
from twotower.report.folder import Folder, as_mapping, as_number, as_rows, numbers
from twotower.report.sizes import read_sizes

BASELINES = "evaluation/baselines"
_BASELINE_ORDER = ("popularity", "content", "item_knn")
_STAGE_ORDER = ("inspect", "catalogue", "read", "merge", "split", "write", "commit")
_SEARCH_KEYS = ("metric", "trials", "space", "importances", "best")


def collect(
    runs: Mapping[str, str | Path],
    *,
    part: Literal["test", "validation"] = "test",
    title: str | None = None,
    search: str | Path | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """Read everything a report shows. Places are local paths or URIs.

    Args:
        runs: Run directories by the name of their row, in the order of the table.
        part: Which evaluation is shown.
        title: What the page is called; the name of the run where there is only one.
        search: Directory that holds search.json.
        notes: What the reader must know to read the numbers; shown below the headline.

    Raises:
        InputError: no run was given.
        DataError: a file has another shape than the platform writes. A missing file is no error:
            it is named in `Report.missing`.
    """
    if not runs:
        raise InputError("report: give at least one run directory")
    missing: list[str] = []
    folders = {name: Folder(Store(place), missing) for name, place in runs.items()}
    found = tuple(
        _run(name, place % COLOURS + 1, folder)
        for place, (name, folder) in enumerate(folders.items())
    )
    rules = next((run.config.eval for run in found if run.config is not None), Eval())
    methods = _methods(folders, found, part, rules)
    best = best_method(methods, rules.select)
    gaps = differences(methods, best, rules.select, rules.confidence)
    return Report(
        title=title or (found[0].label if len(found) == 1 else "comparison"),
        part=part,
        metric=rules.select,
        confidence=rules.confidence,
        methods=methods,
        runs=found,
        headline=conclude(methods, best, rules, gaps, part),
        differences=gaps,
        search=read_search(search, missing) if search is not None else None,
        dataset=_dataset(found, missing),
        notes=tuple(notes),
        commands=_commands(found),
        missing=tuple(missing),
    )


def read_search(location: str | Path, missing: list[str]) -> Search | None:
    """A search from its directory; None, and named in ``missing``, without a search.json."""
    folder = Folder(Store(location), missing)
    document = folder.json("search.json", "search")
    if not document:
        return None
    where = folder.where("search.json")
    best = as_number(document.get("best"))
    return Search(
        location=folder.store.uri,
        metric=str(document.get("metric", "value")),
        trials=tuple(_trial(row) for row in as_rows(document.get("trials"), f"{where} trials")),
        space=as_mapping(document.get("space") or {}, f"{where} space"),
        importances=numbers(as_mapping(document.get("importances") or {}, f"{where} importances")),
        best=int(best) if best is not None else None,
        facts={key: value for key, value in document.items() if key not in _SEARCH_KEYS},
    )


def read_summary(document: Mapping[str, Any], where: str) -> dict[str, Interval]:
    """The `summary` of an evaluation file, by metric key; metrics without a value are left out."""
    summary: dict[str, Interval] = {}
    for key, cell in document.items():
        kept = numbers(as_mapping(cell, f"{where} {key}"))
        if "value" not in kept:
            continue  # a slice without truth has no mean
        n = kept.get("n")
        summary[key] = Interval(
            kept["value"], kept.get("low"), kept.get("high"), int(n) if n is not None else None
        )
    return summary


def _run(name: str, colour: int, folder: Folder) -> Run:
    text = folder.text("config.yaml", f"config of {name}")
    record = folder.json("record.json", f"record of {name}")
    points = folder.lines("metrics.jsonl", f"learning curves of {name}")
    kinds: dict[str, list[Mapping[str, float]]] = {"train": [], "validation": []}
    for point in points:
        if point.get("kind") in kinds and as_number(point.get("epoch")) is not None:
            kinds[point["kind"]].append(numbers(point))
    config = _config(text, folder.where("config.yaml")) if text else None
    return Run(
        label=name,
        colour=colour,
        location=folder.store.uri,
        config=config,
        config_text=text,
        record=record,
        stages=_stages(record.get("stages"), folder.where("record.json")),
        validation=_latest(kinds["validation"]),
        train=_latest(kinds["train"]),
        best=folder.json("best.json", f"best checkpoint of {name}"),
        sizes=read_sizes(folder, config),
    )


def _config(text: str, where: str) -> ExperimentConfig:
    return build_config(parse_yaml(text, where), where)


def _latest(points: Sequence[Mapping[str, float]]) -> tuple[Mapping[str, float], ...]:
    """One point an epoch position, in order; after a restart the later reading counts."""
    by_epoch = {point["epoch"]: point for point in points}
    return tuple(by_epoch[epoch] for epoch in sorted(by_epoch))


def _stages(value: Any, where: str) -> tuple[Stage, ...]:
    stages: list[Stage] = []
    for row in as_rows(value, f"{where} stages"):
        taken = as_number(row.get("seconds"))
        if taken is None:
            raise DataError(f"{where}: stage {row.get('name')!r} has no `seconds`")
        stages.append(Stage(str(row.get("name")), taken, as_number(row.get("peak_memory_mb"))))
    return tuple(stages)


def _methods(
    folders: Mapping[str, Folder], runs: Sequence[Run], part: str, rules: Eval
) -> tuple[Method, ...]:
    """Rows of the table: baselines of the first run that has some, then the runs."""
    columns = display_metrics(rules)
    methods: list[Method] = []
    for folder in folders.values():
        if part == "test" and folder.store.exists(f"{BASELINES}.json"):
            methods = _baselines(folder, columns)
            break
    for run, folder in zip(runs, folders.values(), strict=True):
        document = folder.json(f"evaluation/{part}.json", f"{part} metrics of {run.label}")
        if document:
            where = folder.where(f"evaluation/{part}.json")
            rows = folder.table(
                f"evaluation/{part}.parquet",
                ["query", "group", *columns],
                f"paired differences of {run.label}",
            )
            methods.append(
                Method(run.label, _evaluation(document, where), _per_query(rows), run.colour, run)
            )
    return tuple(methods)


def _baselines(folder: Folder, columns: Sequence[str]) -> list[Method]:
    where = folder.where(f"{BASELINES}.json")
    found: list[Method] = []
    documents = folder.json(f"{BASELINES}.json", "baselines")
    for name in _in_order(documents, _BASELINE_ORDER):
        document = documents[name]
        file = f"{BASELINES}/{name}.parquet"
        rows = None
        if folder.store.exists(file):
            rows = folder.table(file, ["query", "group", *columns], f"paired differences of {name}")
        evaluation = _evaluation(as_mapping(document, f"{where} {name}"), f"{where} {name}")
        found.append(Method(name, evaluation, _per_query(rows), 0))
    return found


def _evaluation(document: Mapping[str, Any], where: str) -> Evaluation:
    certificate = as_mapping(document.get("certificate") or {}, f"{where} certificate")
    summary = as_mapping(document.get("summary"), f"{where} summary")
    return Evaluation(
        read_summary(summary, where),
        as_mapping(certificate.get("protocol") or {}, f"{where} protocol"),
        as_mapping(certificate.get("subject") or {}, f"{where} subject"),
    )


def _per_query(table: pa.Table | None) -> PerQuery | None:
    if table is None or "query" not in table.column_names:
        return None
    query = table["query"].to_numpy().astype(np.int64)
    order = np.argsort(query, kind="stable")
    columns = {
        name: table[name].to_numpy().astype(np.float64)[order]
        for name in table.column_names
        if name not in ("query", "group")
    }
    groups = table["group"].to_numpy()[order] if "group" in table.column_names else None
    return PerQuery(query[order], columns, groups)


def _trial(row: Mapping[str, Any]) -> Trial:
    curve = [(as_number(x), as_number(y)) for x, y in row.get("curve") or ()]
    return Trial(
        number=int(row["number"]),
        state=str(row.get("state", "complete")),
        params=as_mapping(row.get("params") or {}, f"trial {row['number']} params"),
        value=as_number(row.get("value")),
        epochs=as_number(row.get("epochs")),
        seconds=as_number(row.get("seconds")),
        curve=tuple((x, y) for x, y in curve if x is not None and y is not None),
        error=str(row["error"]) if row.get("error") else None,
    )


def _dataset(runs: Sequence[Run], missing: list[str]) -> Dataset | None:
    """The prepared data that the first record with a `prepared` names."""
    place = next((str(run.record["prepared"]) for run in runs if run.record.get("prepared")), None)
    if place is None:
        missing.append("data profile: no record names the prepared data")
        return None
    folder = Folder(Store(place), missing)
    parent, _, name = place.rstrip("/").rpartition("/")
    beside = Folder(Store(parent or "."), missing)
    record = beside.json(f"{name}.record.json", "time of the preparation")
    taken = numbers(record.get("seconds") or {})
    return Dataset(
        location=place,
        profile=folder.json("profile.json", "data profile"),
        information=folder.json("mi.json", "mutual information"),
        stages=tuple(
            Stage(name, taken[name])
            for name in _in_order(taken, _STAGE_ORDER)
            if name != "all"  # their sum
        ),
    )


def _in_order(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Names in a known order, others after them: JSON files have their keys sorted."""
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def _commands(runs: Sequence[Run]) -> tuple[str, ...]:
    commands = [run.record.get("command") for run in runs]
    written = [shlex.join(map(str, c)) if isinstance(c, list) else c for c in commands]
    return tuple(dict.fromkeys(str(command) for command in written if command))
