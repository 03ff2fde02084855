"""`twotower bench`: what it takes and what it prints; the measuring is in the modules beside."""

# `--help` must not wait for Ray and torch, so a command imports what it runs.
# ruff: noqa: PLC0415

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twotower.core.console import plain, show

if TYPE_CHECKING:
    from rich.table import Table

bench_app = typer.Typer(
    help="Measure throughput and memory; close what else runs first.", invoke_without_command=True
)

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the result files.")]
Repeats = Annotated[int, typer.Option(min=1, help="Runs of each cell.")]
Folder = Annotated[Path, typer.Option(help="Folder of the workload's data; made where missing.")]
Environments = Annotated[
    Path, typer.Option(help="Python environments of the peers: torch/ and tf/ in it.")
]
OUTPUT, FOLDER, ENVIRONMENTS = Path("runs/bench"), Path("runs/bench/data"), Path("runs/bench/envs")


@bench_app.callback()
def default(context: typer.Context) -> None:
    """Run them all where no one is named."""
    if context.invoked_subcommand is None:
        every()


@bench_app.command("all")
def every(
    output: Output = OUTPUT, environments: Environments = ENVIRONMENTS, repeats: Repeats = 3
) -> None:
    """Run every bench, one after the other."""
    prepare(output=output, repeats=repeats)
    train(output=output, environments=environments, repeats=repeats)
    topk(output=output, environments=environments)
    tables(output=output)


@bench_app.command("prepare")
def prepare(
    output: Output = OUTPUT,
    w2: Annotated[
        Path | None, typer.Option(help="Folder of the peers' W2 logs; our own otherwise.")
    ] = None,
    repeats: Repeats = 3,
) -> None:
    """Measure `prepare`: rows per second, memory, gain from a second CPU."""
    from twotower.bench.prepare import bench as measure

    document = measure(output, w2, repeats)
    for key in ("rows_per_s_20m", "memory_20m_over_2m", "two_cpus_over_one"):
        show(f"{key:24} {document[key]:,}")
    show(f"{output}/prepare.json")


@bench_app.command("train")
def train(  # noqa: PLR0913, PLR0917 - a command's options are its arguments
    output: Output = OUTPUT,
    folder: Folder = FOLDER,
    environments: Environments = ENVIRONMENTS,
    cells: Annotated[
        list[str] | None,
        typer.Option(help="Batch size, _ssl with the contrastive task: 4096_ssl; repeatable."),
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="float32 or bf16; repeatable; both by default.")
    ] = None,
    peers: Annotated[bool, typer.Option(help="Run the peers beside ours.")] = True,
    ray: Annotated[bool, typer.Option(help="Also under Ray Train, 1 and 2 workers.")] = True,
    curves: Annotated[
        bool, typer.Option(help="Also how cost grows with catalogue, batch and workers.")
    ] = True,
    repeats: Repeats = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Least length of a window.")] = 5.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads and CPUs of all sides.")] = 2,
) -> None:
    """Measure training on workload W1: ours with and without Ray, the peers, the floor."""
    from twotower.bench.measures import PEER_NAMES, Plan
    from twotower.bench.result import PRECISIONS
    from twotower.bench.summary import summary
    from twotower.bench.train import FILE, bench
    from twotower.bench.w1 import CELLS, Cell
    from twotower.bench.windows import Timing
    from twotower.core.errors import InputError

    if unknown := set(precision or ()) - {*PRECISIONS}:
        raise InputError(f"--precision {min(unknown)}: take {' or '.join(PRECISIONS)}")
    plan = Plan(
        folder=folder,
        environments=environments,
        cells=tuple(Cell.parse(name) for name in cells) if cells else CELLS,
        precisions=tuple(precision or PRECISIONS),
        peers=PEER_NAMES if peers else (),
        repeats=repeats,
        timing=Timing(seconds=seconds),
        threads=threads,
        with_ray=ray,
        with_curves=curves,
    )
    document = bench(plan, output, lambda what: _tell(f"bench train: {what}"))
    _show(summary(document), document["not_quotable_because"])
    show(f"{output}/{FILE}")


@bench_app.command("topk")
def topk(
    output: Output = OUTPUT,
    folder: Folder = FOLDER,
    environments: Environments = ENVIRONMENTS,
    queries: Annotated[int, typer.Option(min=1, help="Queries searched.")] = 5000,
    repeats: Repeats = 5,
) -> None:
    """Measure exact evaluation on workload W3 against FAISS Flat: speed, errors, memory."""
    from twotower.bench.summary import topk_summary
    from twotower.bench.topk import write_vectors
    from twotower.bench.topk_run import bench
    from twotower.core.storage import Store

    vectors = folder / "w3.npz"
    if not vectors.exists():
        _tell("bench topk: workload")
        folder.mkdir(parents=True, exist_ok=True)
        write_vectors(vectors)
    faiss = environments / "etl"
    _tell("bench topk: searching")
    bench(output, vectors, environments if faiss.exists() else None, queries, repeats)
    show(topk_summary(Store(output).read_json("topk.json")))
    if not faiss.exists():
        show(plain(f"FAISS was skipped: {faiss} is missing", "yellow"))
    show(f"{output}/topk.json")


@bench_app.command("tables")
def tables(
    output: Output = OUTPUT,
    folder: Folder = FOLDER,
    seconds: Annotated[
        float, typer.Option(min=0.01, help="Least length of a window; lookups take a tenth.")
    ] = 2.0,
    repeats: Annotated[int, typer.Option(min=1, help="Windows of each kind of table.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads and CPUs of training.")] = 2,
) -> None:
    """Measure compressed tables against full ones: training steps, memory, lookups."""
    from twotower.bench.table_summary import summary
    from twotower.bench.tables import FILE, Plan, bench

    plan = Plan(folder=folder, seconds=seconds, repeats=repeats, threads=threads)
    document = bench(plan, output, lambda what: _tell(f"bench tables: {what}"))
    _show(summary(document), document["not_quotable_because"])
    show(f"{output}/{FILE}")


def _show(tables: Iterable["Table"], reasons: Iterable[str]) -> None:
    """Print what was found, and why it can't be quoted."""
    for table in tables:
        show(table, "")
    show(*(plain(f"not to be quoted: {reason}", "yellow") for reason in reasons))


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
