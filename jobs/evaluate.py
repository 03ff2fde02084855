"""Evaluate the best checkpoint of a run again: `python jobs/evaluate.py RUN [--part test]`.

As a job, from the repository's root:

    ray job submit --working-dir . --runtime-env-json '{"env_vars": {"PYTHONPATH": "platform"}}' \
        -- python jobs/evaluate.py /shared/runs/debian-1a2b3c4d --part validation
"""

from twotower.runtime import entry
from twotower.runtime.assess import evaluate


def main() -> None:
    """Evaluate and print the summary; the files of the run are written anew."""
    arguments = entry.parse("evaluate")
    document = evaluate(arguments.run, arguments.part)
    for name, found in document["summary"].items():
        if found["value"] is not None:
            print(f"{arguments.part} {name} {found['value']:.4f} (n = {found['n']})")
    print(f"{arguments.run}/evaluation/{arguments.part}.json")


if __name__ == "__main__":
    entry.run(main)
