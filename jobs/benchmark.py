"""Measure training on a node of a cluster: `python jobs/benchmark.py FOLDER [--repeats 3]`.

Every measurement under Ray Train starts a cluster of its own on the job's node, which should do
nothing else. As a job, from the repository's root:

    ray job submit --working-dir . --runtime-env-json '{"env_vars": {"PYTHONPATH": "platform"}}' \
        -- python jobs/benchmark.py /shared/bench
"""

from pathlib import Path

from twotower.bench.measures import Plan
from twotower.bench.summary import summary
from twotower.bench.train import FILE, bench
from twotower.core.console import show
from twotower.runtime import entry


def main() -> None:
    """Measure, print the tables and where the file is."""
    arguments = entry.parse("benchmark")
    folder = Path(arguments.folder)
    plan = Plan(folder=folder / "data", environments=folder / "envs", repeats=arguments.repeats)
    document = bench(plan, folder, lambda what: print(f"bench train: {what}", flush=True))
    for table in summary(document):
        show(table, "")
    show(str(folder / FILE))


if __name__ == "__main__":
    entry.run(main)
