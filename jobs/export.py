"""Write what serving needs of a run: `python jobs/export.py RUN [-o FOLDER] [--names COLUMN]`.

As a job, from the repository's root:

    ray job submit --working-dir . --runtime-env-json '{"env_vars": {"PYTHONPATH": "platform"}}' \
        -- python jobs/export.py /shared/runs/debian-1a2b3c4d -o /shared/exports/debian
"""

from twotower.export.command import show_export
from twotower.export.write import export
from twotower.runtime import entry


def main() -> None:
    """Export and print the sizes of the tables."""
    arguments = entry.parse("export")
    show_export(
        export(
            arguments.run,
            arguments.output,
            names=arguments.names,
            onnx=arguments.onnx,
            index=arguments.index,
        )
    )


if __name__ == "__main__":
    entry.run(main)
