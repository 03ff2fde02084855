"""The main job on the bundled Debian graph: prepare, train, search, retrain the winner, report."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twotower.core.config import ExperimentConfig
from twotower.core.loading import load_config, with_overrides
from twotower.core.space_loading import load_space
from twotower.report.collect import Report, collect
from twotower.report.console import Display
from twotower.report.page import write_report
from twotower.report.summary import write_summary
from twotower.runtime.cluster import connect
from twotower.runtime.launch import train
from twotower.runtime.search import SearchPlan, search

CFM: Mapping[str, Any] = {"ssl.weight": 0.3, "ssl.masking": "cfm"}
"""What makes the `cfm` row of the baseline's config; the rest are the schema's defaults."""

NOTES = (
    "One seed: intervals are over test queries only, another seed moves every row.",
    "The baseline was not searched: its settings are the config's own. "
    "A fair contest gives every method the same trials.",
)


@dataclass(frozen=True)
class Plan:
    """What the demo runs."""

    config: Path
    space: Path
    trials: int = 8
    overrides: tuple[str, ...] = ()
    """`dotted.path=value` changes of the config, for every row."""


def demo(plan: Plan, display: Display, *, verbose: bool = False) -> tuple[Report, Path]:
    """Run what is not done yet of the main job and write its page.

    Returns:
        The report and its folder, which holds `report.html` and `summary.json`.
    """
    base = load_config(plan.config, plan.overrides).config
    with connect(base.cluster, verbose=verbose) as cluster:
        workers = {"train.num_workers": min(2, int(cluster.cpus))}
        baseline, cfm = with_overrides(base, workers), with_overrides(base, {**workers, **CFM})
        runs = {
            "baseline": _train("baseline", baseline, display, verbose),
            "cfm": _train("cfm", cfm, display, verbose),
        }
        display.about("")
        seeker = with_overrides(cfm, {"train.num_workers": 1})
        found = search(
            seeker,
            load_space(plan.space, seeker),
            SearchPlan(trials=plan.trials),
            display.on_search,
            verbose=verbose,
        )
        winner = with_overrides(load_config(found.winner).config, workers)
        runs["cfm_tuned"] = _train("cfm_tuned", winner, display, verbose)
    folder = Path(base.storage.runs) / ("demo" if base.name == "debian" else f"demo-{base.name}")
    report = collect(
        runs,
        part="test",
        title=folder.name,
        search=Path(found.directory),
        notes=list(NOTES),
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_report(report, folder / "report.html")
    write_summary(report, folder / "summary.json")
    return report, folder


def _train(label: str, config: ExperimentConfig, display: Display, verbose: bool) -> str:
    display.about(label)
    return train(config, on_progress=display.on_event, verbose=verbose).path
