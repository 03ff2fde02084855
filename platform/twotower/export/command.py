"""`twotower export`, `recommend` and `vectors`: what they take and what they print."""

# `--help` must not wait for Ray and torch, so a command imports what it runs.
# ruff: noqa: PLC0415

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from twotower.core.command_line import AsJson, Verbose, emit
from twotower.core.console import plain, show
from twotower.core.errors import InputError

if TYPE_CHECKING:
    from twotower.export.write import Exported

ExportPath = Annotated[
    str, typer.Argument(metavar="EXPORT", help="What `export` wrote; a folder or a URI.")
]


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run directory.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Folder; `export` in the run otherwise.")
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="Column of the catalogue that names items for people.")
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also both towers, checked.")] = False,
    index: Annotated[
        Literal["flat", "ivf_pq", "hnsw"] | None,
        typer.Option(help="Also a FAISS index, with its recall against exact search."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write what serving needs of a run and nothing else; `twotower.serving` reads it."""
    from twotower.export.write import export as write

    found = write(run, output, names=names, onnx=onnx, index=index)
    if as_json:
        emit(asdict(found))
    else:
        show_export(found)


def recommend(
    export: ExportPath,
    query: Annotated[str | None, typer.Option(help="Id of a query of the training data.")] = None,
    record: Annotated[
        str | None, typer.Option(help="Or the features of any query, as one JSON object.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Items.")] = 10,
    seen: Annotated[bool, typer.Option(help="Items that the query had before, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Best items for a query, from an export alone: exact, without torch and Ray."""
    from twotower.serving.reader import Export

    if (query is None) == (record is None):
        raise InputError("recommend: give either --query ID or --record JSON")
    opened = Export.open(export)
    asked = _record(record) if record is not None else str(query)
    found = opened.recommend(asked, k, filter_seen=False if seen else None)
    if as_json:
        emit([asdict(one) for one in found])
        return
    named = any(one.name != one.item for one in found)
    columns = ("", "item", *(["name"] if named else []), "score")
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for rank, one in enumerate(found, 1):
        name = [plain(one.name if one.name != one.item else "")] if named else []
        table.add_row(str(rank), plain(one.item), *name, f"{one.score:.4f}")
    show(table)


def vectors(
    export: ExportPath,
    catalogue: Annotated[
        str,
        typer.Argument(metavar="CATALOGUE", help="Parquet with the training's columns."),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of Parquet shards.")],
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Embed the items of any catalogue with Ray Data."""
    from twotower.export.vectors import write_vectors

    found = write_vectors(export, catalogue, output, verbose=verbose)
    if as_json:
        emit(found)
        return
    show(f"{found['rows']:,} items, {found['width']} numbers each", output)


def show_export(found: "Exported") -> None:
    """Print tables with their sizes, what was checked, and where the export is."""
    columns = ("table", "kind", "values", "bytes", "of float32 rows")
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for column in table.columns[2:]:
        column.justify = "right"
    for one in found.tables:
        share = f"{one.bytes / one.full_bytes:.1%}"
        table.add_row(plain(one.name), one.kind, f"{one.values:,}", f"{one.bytes:,}", share)
    show(table)
    for name, difference in found.onnx.items():
        show(f"{name}.onnx: within {difference:.1g} of torch")
    if found.onnx and found.scorer == "neumf":
        show("no ONNX graph of the network that scores pairs; `recommend` computes it")
    if found.index is not None:
        one = found.index
        show(
            f"index {one.kind}: recall@{one.k} against exact search {one.value:.4f} "
            f"({one.queries:,} queries), {one.bytes:,} bytes"
        )
    show(f"{sum(found.files.values()):,} bytes in {len(found.files)} files", found.path)


def _record(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"--record: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError("--record: must be one JSON object of values by column")
    return found
