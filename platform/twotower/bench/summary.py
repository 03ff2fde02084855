"""The result file of training as tables for a console, readable without a legend."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from twotower.bench.result import ONE_WORKER, OURS, PRECISIONS, TWO_WORKERS
from twotower.bench.shares import PHASES

_NAMES = ("batch", "precision", "way", "tables")


def summary(document: Mapping[str, Any]) -> Iterator[Table]:
    """Tables of what a run found."""
    cells = document["cells"]
    yield _rates(cells)
    yield _phases(cells)
    if any("ray" in cell for cell in cells):
        yield _under_ray(cells)
    if curves := document.get("curves"):
        yield _vocabulary(curves["vocabulary"])
        yield _batches(curves["batch"])
        yield _exchange(curves["exchange"])
    if checkpoint := document.get("checkpoint"):
        yield _checkpoint(checkpoint)


def topk_summary(document: Mapping[str, Any]) -> Table:
    """Table of what `bench topk` found."""
    table = console_table(
        "exact evaluation, best 100 of 200,000 items",
        ("threads", "way", "queries per s", "over FAISS Flat", "CPU us a query", "wrong places"),
    )
    for run in document["speed"]:
        for name, engine in run["engines"].items():
            times = run["times_faiss"].get(name, {}).get("wall")
            table.add_row(
                str(run["threads"]),
                name,
                f"{engine['queries_per_s']:,}",
                f"{times:.2f} x" if times else "",
                f"{engine['cpu_us_per_query']:,}",
                str(engine["wrong_places"]),
            )
    return table


def _rates(cells: list[Mapping[str, Any]]) -> Table:
    table = console_table(
        "examples per second (spread over repeats), batch and precision a row",
        ("batch", "precision", OURS, "of the floor", "of the hard floor", "over best peer"),
    )
    names = list(
        dict.fromkeys(n for c in cells for p in PRECISIONS for n in c.get(p, {}).get("peers", {}))
    )
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("others used", justify="right")
    for cell in cells:
        for precision in PRECISIONS:
            if entry := cell.get(precision):
                ratio = entry["ratio_to_best_peer"]
                table.add_row(
                    cell["cell"].replace("_ssl", " SSL"),
                    precision,
                    _rate(entry),
                    f"{entry['floor_share']:.0%}",
                    f"{entry['hard_floor_share']:.0%}",
                    f"{ratio:.2f} x" if ratio else "",
                    *(_rate(entry["peers"].get(name, {})) for name in names),
                    f"{entry['others_share']:.0%}",
                )
    return table


def _phases(cells: list[Mapping[str, Any]]) -> Table:
    table = console_table(
        "share of our step's time",
        ("batch", "precision", *(phase.replace("_", " ") for phase in PHASES)),
    )
    for cell in cells:
        for precision in PRECISIONS:
            if shares := cell.get(precision, {}).get("shares"):
                table.add_row(
                    cell["cell"].replace("_ssl", " SSL"),
                    precision,
                    *(f"{shares[phase]:.1%}" for phase in PHASES),
                )
    return table


def _under_ray(cells: list[Mapping[str, Any]]) -> Table:
    table = console_table(
        "under Ray Train, float32, examples per second",
        (
            "batch",
            "1 worker",
            "of without Ray",
            "Ray's own CPU off",
            "data wait",
            "2 workers, same threads",
            "of 1 worker",
            "of 1 worker less the all-reduce",
        ),
    )
    for cell in cells:
        if "ray" in cell:
            one, two = (cell["ray"].get(name, {}) for name in (ONE_WORKER, TWO_WORKERS))
            table.add_row(
                cell["cell"].replace("_ssl", " SSL"),
                _rate(one),
                f"{cell['ray_share']:.1%}",
                f"{cell['ray_share_net']:.1%}",
                f"{one['data_wait_share']:.2%}",
                _rate(two),
                _ratio(two.get("over_one_worker")),
                _ratio(two.get("over_one_worker_less_all_reduce")),
            )
    return table


def _vocabulary(lines: list[Mapping[str, Any]]) -> Table:
    table = console_table(
        "step against the catalogue, batch 4096 of different items, float32",
        (
            "items",
            "table GB",
            "ms a step",
            "spread",
            "fastest step ms",
            "lookup ms",
            "update ms",
            "peak MB",
        ),
    )
    for line in lines:
        if "skipped" in line:
            table.add_row(f"{line['items']:,}", f"skipped: {line['skipped']}")
            continue
        step_ms, shares = line["step_ms"], line["shares"]
        table.add_row(
            f"{line['items']:,}",
            f"{line['table_gb']:.2f}",
            f"{step_ms:.1f}",
            f"{line['spread']:.0%}",
            f"{line['least_step_ms']:.1f}",
            f"{step_ms * shares['lookup']:.1f}",
            f"{step_ms * shares['update']:.1f}",
            f"{line['peak_rss_mb']:,.0f}",
        )
    return table


def _batches(lines: list[Mapping[str, Any]]) -> Table:
    table = console_table(
        "step against the batch, float32",
        ("batch", "ms a step", "us an example", "us an example, softmax apart", "spread"),
    )
    for line in lines:
        table.add_row(
            f"{line['batch']:,}",
            f"{line['step_ms']:.1f}",
            f"{line['us_per_example']:.1f}",
            f"{line['us_per_example_without_softmax']:.1f}",
            f"{line['spread']:.0%}",
        )
    return table


def _exchange(lines: list[Mapping[str, Any]]) -> Table:
    table = console_table(
        "exchanged per step and worker",
        ("batch", "items", "workers", "given MB", "sent MB", "sent if dense MB", "collectives ms"),
    )
    for line in lines:
        table.add_row(
            line["cell"].replace("_ssl", " SSL"),
            f"{line['items']:,}",
            str(line["workers"]),
            *(f"{line[k] / 1e6:.2f}" for k in ("bytes", "wire_bytes", "dense_wire_bytes")),
            f"{line['collective_ms']:.1f}",
        )
    return table


def _checkpoint(found: Mapping[str, Any]) -> Table:
    table = console_table(
        f"checkpoints of {found['state_mb']} MB, one a minute: share of throughput lost",
        ("training stands still s", "writer's CPU s", "with a spare CPU", "without", "measured"),
    )
    lost = found["lost_share"]
    table.add_row(
        f"{found['save_s']['median']:.3f}",
        f"{found['writer']['cpu_s']:.2f}",
        *(f"{lost[name]:.2%}" for name in ("spare_cpu", "no_spare_cpu", "measured")),
    )
    return table


def console_table(title: str, columns: tuple[str, ...]) -> Table:
    """An empty table; names are on the left, numbers on the right."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="left" if name in _NAMES else "right")
    return table


def _rate(entry: Mapping[str, Any]) -> str:
    if "spread" not in entry:
        return "skipped" if "skipped" in entry else "failed" if "failed" in entry else ""
    return f"{entry['examples_per_s']:,} ({entry['spread']:.0%})"


def _ratio(value: float | None) -> str:
    return f"{value:.1%}" if value is not None else ""
