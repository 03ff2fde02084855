"""Search a space on a cluster: `python tune/search.py CONFIG --space SPACE [--trials N]`.

The same call again goes on: trials that ended are never run again. As a job, from the root:

    ray job submit --working-dir . --runtime-env-json '{"env_vars": {"PYTHONPATH": "platform"}}' \
        -- python tune/search.py configs/debian.yaml --space configs/spaces/ssl.yaml --trials 32 \
           --set storage.runs=/shared/runs --set storage.prepared=/shared/prepared
"""

from twotower.core.loading import load_config
from twotower.core.space_loading import load_space
from twotower.report.console import Display
from twotower.runtime import entry
from twotower.runtime.search import SearchPlan, search


def main() -> None:
    """Search and print the winner's file."""
    arguments = entry.parse("search")
    config = load_config(arguments.config, arguments.set).config
    space = load_space(arguments.space, config)
    plan = SearchPlan(
        arguments.trials,
        name=arguments.name,
        max_concurrent=arguments.max_concurrent,
        prune=not arguments.no_prune,
    )
    with Display() as display:
        result = search(config, space, plan, display.on_search)
    best, progress = result.best, result.progress
    print(", ".join(f"{count} {state}" for state, count in progress.counts.items() if count))
    print(f"validation {progress.metric} {best.value:.4f} in trial {best.number}: {best.params}")
    print(result.winner)


if __name__ == "__main__":
    entry.run(main)
