"""What the entry files of jobs/ and tune/ share: their arguments, and how they end.

`submit` reads the same arguments before it sends a job, so that what would fail there fails here.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from typing_extensions import override

from twotower.core.command_line import run_to_exit
from twotower.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Action:
    """One entry file."""

    file: str
    """Inside the working directory."""

    help: str
    takes: tuple[str, ...]
    """Keys of `_ARGUMENTS`."""


ACTIONS = {
    "prepare": Action("jobs/prepare.py", "Encode, split and shuffle the data.", ("config", "set")),
    "train": Action("jobs/train.py", "Train a model and evaluate it.", ("config", "set")),
    "evaluate": Action("jobs/evaluate.py", "Evaluate a run again.", ("run", "part")),
    "export": Action(
        "jobs/export.py", "Write what serving needs.", ("run", "output", "names", "onnx", "index")
    ),
    "search": Action(
        "tune/search.py",
        "Search for the best settings.",
        ("config", "space", "trials", "name", "max_concurrent", "no_prune", "set"),
    ),
    "resume": Action("tune/resume.py", "Go on with a search.", ("search", "more_trials")),
    "report": Action("tune/report.py", "Show a search.", ("search",)),
    "study": Action("jobs/study.py", "Run a study.", ("study", "only", "home")),
    "benchmark": Action("jobs/benchmark.py", "Measure training.", ("folder", "repeats")),
}
"""What can be submitted, by name."""

FILES = ("config", "space", "study")
"""Arguments that are files of the working directory."""

PLACES = ("run", "search", "output", "folder", "home")
"""Arguments that are folders and have to outlive the job."""


def _count(text: str) -> int:
    """A count, as `min=1` makes it on the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be an integer of at least 1")
    return int(text)


_ARGUMENTS = {
    "config": (("config",), {"metavar": "CONFIG", "help": "YAML file of the experiment"}),
    "run": (("run",), {"metavar": "RUN", "help": "run directory"}),
    "search": (("search",), {"metavar": "SEARCH", "help": "search directory"}),
    "study": (("study",), {"metavar": "STUDY", "help": "YAML file of the study"}),
    "set": (
        ("--set",),
        {"metavar": "PATH=VALUE", "action": "append", "default": [], "help": "change one value"},
    ),
    "only": (
        ("--only",),
        {"metavar": "NAME", "action": "append", "default": [], "help": "run a part of it first"},
    ),
    "home": (("--home",), {"metavar": "FOLDER", "help": "where relative paths count from"}),
    "part": (("--part",), {"choices": ("validation", "test"), "default": "test"}),
    "output": (("-o", "--output"), {"metavar": "FOLDER", "help": "default: export in the run"}),
    "names": (("--names",), {"metavar": "COLUMN", "help": "column of the items' names"}),
    "onnx": (("--onnx",), {"action": "store_true", "help": "also write ONNX"}),
    "index": (("--index",), {"choices": ("flat", "ivf_pq", "hnsw"), "help": "FAISS index"}),
    "space": (("--space",), {"required": True, "metavar": "FILE", "help": "YAML of the space"}),
    "trials": (("--trials",), {"type": _count, "default": 16, "help": "trials in all"}),
    "more_trials": (
        ("--trials",),
        {"type": _count, "help": "trials in all; default: as before"},
    ),
    "name": (("--name",), {"help": "directory of the search under storage.runs"}),
    "max_concurrent": (
        ("--max-concurrent",),
        {"type": _count, "help": "most trials at once"},
    ),
    "folder": (("folder",), {"metavar": "FOLDER", "help": "where the result goes"}),
    "repeats": (("--repeats",), {"type": _count, "default": 3, "help": "runs of each cell"}),
    "no_prune": (("--no-prune",), {"action": "store_true", "help": "let weak trials run on"}),
}


class _Parser(argparse.ArgumentParser):
    """Raises what argparse would print and exit with."""

    @override
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}")


def parse(action: str, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of an action; None = those of this process.

    Raises:
        InputError: an argument is missing, unknown or malformed; it is named.
    """
    entry = ACTIONS[action]
    parser = _Parser(prog=entry.file, description=entry.help, allow_abbrev=False)
    for name in entry.takes:
        flags, options = _ARGUMENTS[name]
        parser.add_argument(*flags, **options)
    return parser.parse_args(arguments)


def written(action: str, found: argparse.Namespace) -> list[str]:
    """The shortest arguments that `parse` makes the same of, defaults left out."""
    words: list[str] = []
    for name in ACTIONS[action].takes:
        (*_, flag), options = _ARGUMENTS[name]
        value = getattr(found, flag.lstrip("-").replace("-", "_"))
        if value is True:
            words.append(flag)
        elif value not in (None, False, options.get("default")):
            values = value if isinstance(value, list) else [value]
            words += [f"{flag}={one}" if flag.startswith("-") else one for one in values]
    return words


def run(main: Callable[[], object]) -> NoReturn:
    """Run an entry and end the process as `run_to_exit`."""
    run_to_exit(sys.argv[0], main)
