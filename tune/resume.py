"""Go on with a search from its directory alone: `python tune/resume.py SEARCH [--trials N]`.

Its config, space and plan are read from there; `--trials` makes it longer. As a job, from the root:

    ray job submit --working-dir . --runtime-env-json '{"env_vars": {"PYTHONPATH": "platform"}}' \
        -- python tune/resume.py /shared/runs/debian-search-1a2b3c4d --trials 64
"""

from dataclasses import replace
from pathlib import PurePosixPath

from twotower.core.loading import with_overrides
from twotower.core.storage import Store
from twotower.report.console import Display
from twotower.runtime import entry
from twotower.runtime.search import search
from twotower.runtime.search_files import read_subject
from twotower.runtime.search_plan import read_plan


def main() -> None:
    """Go on and print the winner's file."""
    arguments = entry.parse("resume")
    folder = arguments.search.rstrip("/")
    store = Store(folder)
    subject, _ = read_subject(store)
    runs, _, name = folder.rpartition("/")
    config = with_overrides(subject.config, {"storage.runs": runs or str(PurePosixPath())})
    plan = read_plan(store, name)
    if arguments.trials is not None:
        plan = replace(plan, trials=arguments.trials)
    with Display() as display:
        result = search(config, subject.space, plan, display.on_search)
    print(f"{result.progress.finished} trials, {result.reused} of them from before")
    print(result.winner)


if __name__ == "__main__":
    entry.run(main)
