"""The command line: each command reads its input, calls one function below and shows the result."""

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from twotower.bench.command import bench_app
from twotower.core.command_line import AsJson, Commands, Verbose, emit, run_to_exit
from twotower.core.console import plain, show
from twotower.core.errors import TwotowerError
from twotower.core.loading import Loaded, build_config, load_config, parse_yaml
from twotower.core.storage import Store
from twotower.export.command import export, recommend, vectors
from twotower.report import tables
from twotower.report.console import Display
from twotower.study.command import read_study, reproduce, study

app = typer.Typer(
    cls=Commands,
    help="Find out which self-supervised two-tower retrieval model is best, and ship it. "
    "Add --debug to any command for the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="Show, check or describe configs.", no_args_is_help=True)
jobs_app = typer.Typer(help="Look after submitted jobs.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(jobs_app, name="jobs")
app.add_typer(bench_app, name="bench")
app.command()(study)
app.command()(reproduce)
app.command()(export)
app.command()(recommend)
app.command()(vectors)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the experiment.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change one value, e.g. ssl.weight=0.3; repeatable."
    ),
]
Address = Annotated[
    str | None, typer.Option(help="Job server; else RAY_API_SERVER_ADDRESS, else 127.0.0.1:8265.")
]
Token = Annotated[Path | None, typer.Option(help="File that holds the cluster's token.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name that `submit` printed.")]
Part = Annotated[Literal["validation", "test"], typer.Option(help="Which held-out part.")]


@app.command()
def init(
    log: Annotated[
        str, typer.Argument(metavar="LOG", help="Interaction shards: file, folder or glob.")
    ],
    catalogue: Annotated[
        str, typer.Argument(metavar="CATALOGUE", help="Items: file, folder or glob.")
    ],
    queries: Annotated[str | None, typer.Option(help="Table of query features.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the experiment.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the config goes.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """Write a config from your own files, with a profile of the data and warnings."""
    from twotower.core.errors import InputError  # here and below: a command imports what it runs
    from twotower.data.raw_profile import profile
    from twotower.data.raw_warnings import warnings
    from twotower.data.scaffold import guess_config, guess_name

    name = name or guess_name(output.stem if output else log)
    path = output or Path(f"{name}.yaml")
    if path.exists() and not force:
        raise InputError(f"{path}: stands already; choose another with -o, or --force")
    found = profile(log, catalogue, queries)
    text = guess_config(found, name)
    build_config(parse_yaml(text, str(path)), str(path))  # what is refused leaves no file behind
    Store(path.parent).write_bytes(path.name, text.encode())
    show(tables.profile_table(found))
    for warning in warnings(found):
        show(Text.assemble(("warning", "yellow"), "  ", plain(warning)))
    show("", str(path), _next("prepare", path))


@config_app.command("show")
def config_show(config: ConfigPath, set_: Overrides = None, as_json: AsJson = False) -> None:
    """Print the resolved config, each value with where it came from."""
    loaded = load_config(config, set_ or ())
    if as_json:
        emit({"config": loaded.config.model_dump(mode="json"), "provenance": loaded.provenance})
        return
    table = Table("key", "value", "from", box=None, pad_edge=False, header_style="bold")
    values = loaded.config.model_dump(mode="json")
    for path, source in loaded.provenance.items():
        cells = (path, json.dumps(tables.value_at(values, path)), source)
        table.add_row(*map(plain, cells), style="" if source != "default" else "dim")
    show(table)


@config_app.command("check")
def config_check(
    configs: Annotated[
        list[Path], typer.Argument(metavar="CONFIG", help="YAML files of experiments.")
    ],
) -> None:
    """Check configs without running anything."""
    wrong = 0
    for path in configs:
        try:
            load_config(path)
            show(f"{path}: fine")
        except TwotowerError as error:
            wrong += 1
            sys.stderr.write(f"twotower: {error}\n")
    if wrong:
        raise typer.Exit(2)


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON schema of a config, for editors."""
    from twotower.core.config import ExperimentConfig

    emit(ExperimentConfig.model_json_schema())


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check this machine: versions, Ray, disk, memory, settings that open doors."""
    from twotower.runtime.doctor import checks

    found = checks()
    if as_json:
        emit([asdict(check) for check in found])
    else:
        show(tables.checks_table(found))
    if any(check.status == "fail" for check in found):
        raise typer.Exit(3)


@app.command()
def prepare(
    config: ConfigPath, set_: Overrides = None, as_json: AsJson = False, verbose: Verbose = False
) -> None:
    """Encode, split, count and shuffle the raw shards with Ray Data."""
    from twotower.runtime.prepare import prepare as run

    loaded = load_config(config, set_ or ())
    with Display() as display:
        result = run(loaded.config, on_progress=display.on_prepare, verbose=verbose)
    if as_json:
        emit({"path": result.path, "reused": result.reused, "record": result.record})
        return
    show(tables.prepared_table(result.path))
    if result.reused:
        show("nothing changed, nothing done")
    show(result.path)


@app.command()
def train(
    config: ConfigPath, set_: Overrides = None, as_json: AsJson = False, verbose: Verbose = False
) -> None:
    """Train one model with Ray Train and evaluate it; a run that was cut off goes on."""
    loaded = load_config(config, set_ or ())
    with Display() as display:
        result = train_and_report(loaded, display, config, verbose=verbose)
    if as_json:
        emit(
            {
                "name": result.name,
                "path": result.path,
                "reused": result.reused,
                "summaries": result.summaries,
            }
        )
        return
    show(tables.run_table(result.path))
    if result.reused:
        show("the run was done already, nothing was trained")
    show(f"{result.path}/report.html")


def train_and_report(loaded: Loaded, display: Display, source: Path, *, verbose: bool) -> Any:
    """Train a config and write its page; the page shows the search that the config came from."""
    from twotower.report.collect import collect
    from twotower.report.page import write_report
    from twotower.report.summary import write_summary
    from twotower.runtime.launch import train as run

    result = run(
        loaded.config, provenance=loaded.provenance, on_progress=display.on_event, verbose=verbose
    )
    folder = Store(result.path)
    search = source.parent if (source.parent / "search.json").exists() else None
    if not (result.reused and folder.exists("report.html")):
        report = collect({result.name: result.path}, search=search)
        write_report(report, f"{result.path}/report.html")
        write_summary(report, f"{result.path}/summary.json")
    return result


@app.command()
def tune(
    config: ConfigPath,
    space: Annotated[Path, typer.Option(help="YAML of the search space.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all.")] = 16,
    set_: Overrides = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Search with Ray Tune and Optuna; selection on validation, the winner is a config."""
    from twotower.core.space_loading import load_space
    from twotower.runtime.search import SearchPlan, search

    loaded = load_config(config, set_ or ())
    checked = load_space(space, loaded.config)
    with Display() as display:
        result = search(
            loaded.config, checked, SearchPlan(trials=trials), display.on_search, verbose=verbose
        )
    if as_json:
        emit(json.loads((Path(result.directory) / "search.json").read_text(encoding="utf-8")))
        return
    show(tables.trials_table(result.directory))
    if result.reused >= trials:
        show("every trial had ended before, nothing was run")
    show(result.winner, _next("train", result.winner))


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run directory.")],
    part: Part = "test",
    as_json: AsJson = False,
) -> None:
    """Evaluate the best checkpoint of a run again, exactly, over the whole catalogue."""
    from twotower.runtime.assess import evaluate as measure

    document = measure(run, part)
    if as_json:
        emit(document)
        return
    show(tables.slices_table(document["summary"]), f"{run}/evaluation/{part}.json")


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN", help="Run directories; the first is the reference."),
    ],
    part: Part = "test",
    metric: Annotated[list[str] | None, typer.Option(help="Metric; repeatable.")] = None,
    as_json: AsJson = False,
) -> None:
    """Differences between runs, with intervals over queries; unlike protocols are refused."""
    from twotower.runtime.assess import compare as measure

    found = measure(runs, part, metrics=metric)
    if as_json:
        emit(found.document())
        return
    show(tables.comparison_table(found))


@app.command(context_settings={"ignore_unknown_options": True})
def submit(
    action: Annotated[str, typer.Argument(help="prepare, train, evaluate, search, ...")],
    arguments: Annotated[list[str], typer.Argument(help="Of that command: a config, --set ...")],
    cluster: Annotated[Path | None, typer.Option(help="A file of configs/cluster/.")] = None,
    address: Address = None,
    token: Token = None,
    wait: Annotated[bool, typer.Option(help="Follow the output until the job ends.")] = True,
) -> None:
    """Submit a command to a Ray cluster as a job and follow it."""
    from twotower.runtime import submit as jobs
    from twotower.runtime.job_options import load_options

    options = load_options(cluster) if cluster else jobs.Options()
    given = {"address": address, "token_path": token}
    options = options.model_copy(update={k: v for k, v in given.items() if v is not None})
    job = jobs.submit(action, arguments, options, read_study=read_study)
    show(f"{'attached to' if job.attached else 'submitted'} {job.id}")
    if wait:
        raise typer.Exit(jobs.exit_code(jobs.follow(job, sys.stdout.write)))


def _attached(job: str, address: str | None, token: Path | None) -> Any:
    from twotower.runtime import submit as jobs

    return jobs.attach(job, jobs.Options(address=address, token_path=token))


@jobs_app.command("status")
def jobs_status(job: JobName, address: Address = None, token: Token = None) -> None:
    """Say how a job stands."""
    from twotower.runtime import submit as jobs

    state = jobs.status(_attached(job, address, token))
    show(f"{state.id}  {state.status}  {state.message}")


@jobs_app.command("logs")
def jobs_logs(job: JobName, address: Address = None, token: Token = None) -> None:
    """Follow a job's output until it ends."""
    from twotower.runtime import submit as jobs

    state = jobs.follow(_attached(job, address, token), sys.stdout.write)
    raise typer.Exit(jobs.exit_code(state))


@jobs_app.command("stop")
def jobs_stop(job: JobName, address: Address = None, token: Token = None) -> None:
    """Stop a job; it writes a checkpoint first and can be resumed."""
    from twotower.runtime import submit as jobs

    state = jobs.stop(_attached(job, address, token))
    show(f"{state.id}  {state.status}  {state.message}")


@app.command("demo")
def demo_command(
    config: Annotated[Path, typer.Option(help="Config of the baseline.")] = Path(
        "configs/debian.yaml"
    ),
    space: Annotated[Path, typer.Option(help="Space of the search.")] = Path(
        "configs/spaces/ssl.yaml"
    ),
    trials: Annotated[int, typer.Option(min=1, help="Trials of the search.")] = 8,
    set_: Overrides = None,
    verbose: Verbose = False,
) -> None:
    """Run the main job, on the Debian graph by default: baseline, CFM, search, winner, report."""
    from twotower.demo import Plan, demo

    plan = Plan(config, space, trials, overrides=tuple(set_ or ()))
    with Display() as display:
        report, folder = demo(plan, display, verbose=verbose)
    metrics = ["recall@10", "recall@50", "map@10", "map@50", "tail_recall@50"]
    show(tables.methods_table(report, metrics), report.headline.sentence)
    show(*(plain(note, "dim") for note in report.notes))
    show("", f"{folder}/summary.json", f"{folder}/report.html")


def _next(*command: object) -> str:
    """The command that comes after this one, as a shell takes it."""
    return f"next: {shlex.join(['twotower', *map(str, command)])}"


def main() -> None:
    """Run the command line; errors a user can mend are one line on stderr and an exit code."""
    run_to_exit("twotower", app)


if __name__ == "__main__":
    main()
