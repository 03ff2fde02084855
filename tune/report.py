"""Show a search, also one that runs: `python tune/report.py SEARCH`.

As a job, from the repository's root:

    ray job submit --working-dir . --runtime-env-json '{"env_vars": {"PYTHONPATH": "platform"}}' \
        -- python tune/report.py /shared/runs/debian-search-1a2b3c4d
"""

from twotower.core.errors import InputError
from twotower.core.storage import Store
from twotower.runtime import entry
from twotower.runtime.journal import Journal, best_of, counts
from twotower.runtime.proposals import importances
from twotower.runtime.search_files import read_subject


def main() -> None:
    """Print each trial, the best one, and what each parameter matters."""
    arguments = entry.parse("report")
    store = Store(arguments.search)
    subject, total = read_subject(store)
    trials = Journal(store).trials()
    if not trials:
        raise InputError(f"{arguments.search}: has no trial yet")
    for trial in trials:
        value = "-" if trial.value is None else f"{trial.value:.4f}"
        params = ", ".join(f"{path} {setting}" for path, setting in trial.params.items())
        told = f"  {trial.error}" if trial.error else ""
        print(
            f"{trial.number:4}  {trial.state:9} {value:>7}  {trial.seconds:7.1f} s  {params}{told}"
        )
    ended = [trial for trial in trials if trial.ended]
    print(f"{len(ended)} of {total}: {counts(ended)}")
    for path, share in importances(subject.space, ended).items():
        print(f"importance {path} {share:.3f}")
    if (best := best_of(ended)) is not None:
        print(
            f"best: trial {best.number}, validation {subject.config.eval.select} {best.value:.4f}"
        )


if __name__ == "__main__":
    entry.run(main)
