"""Train a config on a cluster: `python jobs/train.py CONFIG [--set PATH=VALUE]`.

Prepares the data where that isn't done, goes on with a run that was cut off, writes the report.
As a job, from the repository's root:

    ray job submit --working-dir . --runtime-env-json '{"env_vars": {"PYTHONPATH": "platform"}}' \
        -- python jobs/train.py configs/debian.yaml --set train.num_workers=2 \
           --set storage.runs=/shared/runs --set storage.prepared=/shared/prepared
"""

from pathlib import Path

from twotower.cli import train_and_report
from twotower.core.console import show
from twotower.core.loading import load_config
from twotower.report import tables
from twotower.report.console import Display
from twotower.runtime import entry


def main() -> None:
    """Train and print where the run is and what it reached on test."""
    arguments = entry.parse("train")
    loaded = load_config(arguments.config, arguments.set)
    with Display() as display:
        result = train_and_report(loaded, display, Path(arguments.config), verbose=False)
    show(tables.run_table(result.path), result.path)


if __name__ == "__main__":
    entry.run(main)
