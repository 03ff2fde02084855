"""Evaluate the best checkpoint of a run again: `python jobs/evaluate.py RUN [--part test]`.

As a job, from the repository's root:

    ray job submit --working-dir . --runtime-env-json '{"env_vars": {"PYTHONPATH": "platform"}}' \
        -- python jobs/evaluate.py /shared/runs/debian-1a2b3c4d --part validation
"""

from twotower.core.console import show
from twotower.report import tables
from twotower.runtime import entry
from twotower.runtime.assess import evaluate


def main() -> None:
    """Evaluate and print the summary; the files of the run are written anew."""
    arguments = entry.parse("evaluate")
    document = evaluate(arguments.run, arguments.part)
    place = f"{arguments.run}/evaluation/{arguments.part}.json"
    show(tables.slices_table(document["summary"]), place)


if __name__ == "__main__":
    entry.run(main)
