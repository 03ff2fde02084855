"""Run a study on a cluster: `python jobs/study.py STUDY [--only NAME] [--home FOLDER]`.

Runs what its ledger lacks, as many runs at once as fit, and writes tables, claims and page beside
it; relative places in it count from `--home`, which `twotower submit` sets where it can. As a job,
from the repository's root, with the study's folder on storage that all nodes share:

    ray job submit --working-dir . --runtime-env-json '{"env_vars": {"PYTHONPATH": "platform"}}' \
        -- python jobs/study.py configs/studies/paper.yaml
"""

import os
from pathlib import Path

from twotower.report.console import Display
from twotower.runtime import entry
from twotower.study.complete import complete
from twotower.study.console import print_study


def main() -> None:
    """Run the study, print its tables and where the page is."""
    arguments = entry.parse("study")
    if arguments.home:
        os.chdir(arguments.home)
    with Display() as display:
        found = complete(Path(arguments.study), display.on_study, only=arguments.only)
    print_study(found)


if __name__ == "__main__":
    entry.run(main)
