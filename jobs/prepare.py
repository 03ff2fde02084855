"""Prepare a dataset on a cluster: `python jobs/prepare.py CONFIG [--set PATH=VALUE]`.

As a job, from the repository's root:

    ray job submit --working-dir . --runtime-env-json '{"env_vars": {"PYTHONPATH": "platform"}}' \
        -- python jobs/prepare.py configs/debian.yaml --set storage.prepared=/shared/prepared
"""

from twotower.core.console import show
from twotower.core.loading import load_config
from twotower.report.console import Display
from twotower.runtime import entry
from twotower.runtime.prepare import prepare


def main() -> None:
    """Prepare, or find it prepared, and print where."""
    arguments = entry.parse("prepare")
    config = load_config(arguments.config, arguments.set).config
    with Display() as display:
        result = prepare(config, on_progress=display.on_prepare)
    if result.reused:
        show("nothing changed, nothing done")
    show(result.path)


if __name__ == "__main__":
    entry.run(main)
