"""Evaluate the best checkpoint of a run again: `python jobs/evaluate.py RUN [--part test]`.

As a job, from the repository's root:

    ray job submit --working-dir . --runtime-env-json '{"env_vars": {"PYTHONPATH": "platform"}}' \
        -- python jobs/evaluate.py /shared/runs/debian-1a2b3c4d --part validation
"""

from rich.console import Console

from twotower.report import tables
from twotower.runtime import entry
from twotower.runtime.assess import evaluate


def main() -> None:
    """Evaluate and print the summary; the files of the run are written anew."""
    arguments = entry.parse("evaluate")
    document = evaluate(arguments.run, arguments.part)
    Console(highlight=False).print(tables.slices_table(document["summary"]))
    print(f"{arguments.run}/evaluation/{arguments.part}.json")


if __name__ == "__main__":
    entry.run(main)
