"""The command of a job and its name, after everything that can be checked before sending was."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from twotower.core.errors import ConfigError, InputError
from twotower.core.loading import load_config
from twotower.core.records import fingerprint, identity
from twotower.core.space_loading import load_space
from twotower.runtime.entry import ACTIONS, FILES, PLACES, parse, written
from twotower.runtime.upload import is_sent


@dataclass(frozen=True, slots=True)
class Subject:
    """What a job works on."""

    name: str
    content: object = None
    """Tells it from others of its name; a JSON value."""

    places: tuple[tuple[str, str], ...] = ()
    """Keys and locations of what it writes, as its file gives them."""


ReadStudy = Callable[[Path], Subject]
"""Reads a study's file; ConfigError where it can't be run."""


def checked_command(
    action: str,
    arguments: Sequence[str],
    folder: Path,
    here: Path | None,
    read_study: ReadStudy | None = None,
) -> tuple[list[str], str]:
    """The job's command and its name.

    Args:
        action: a key of `entry.ACTIONS`.
        arguments: what its entry file takes.
        folder: the working directory that is sent.
        here: the same where the cluster sees it, None elsewhere.
        read_study: reads the file of the action `study`.

    Raises:
        InputError: an argument, a file or a place can't be used; it is named.
    """
    if action not in ACTIONS:
        raise InputError(f"{action!r}: can't be submitted; choose one of {', '.join(ACTIONS)}")
    found = parse(action, arguments)
    given = vars(found)
    _check_files([ACTIONS[action].file, *(given[n] for n in FILES if n in given)], folder)
    places = [name for name in PLACES if given.get(name)]
    for name in places:
        given[name] = _lasting(f"{name}: {given[name]!r}", given[name], here)
    if "config" in found:
        subject = _with_config(found, folder, here)
    elif "study" in found:
        if read_study is None:
            raise ValueError("submit: the action `study` needs `read_study`")
        subject = _with_study(found, read_study(folder / found.study), here)
    else:
        subject = Subject(Path(given[places[0]]).name)
    words = written(action, found)
    digest = fingerprint([action, words, subject.content])[:8]
    return ["python", ACTIONS[action].file, *words], f"{action}-{subject.name}-{digest}"


def _with_config(found: argparse.Namespace, folder: Path, here: Path | None) -> Subject:
    """A config's subject; where it says a relative storage, `--set` says ours."""
    config = load_config(folder / found.config, found.set).config
    if "space" in found:
        load_space(folder / found.space, config)
    for key in ("storage.runs", "storage.prepared"):
        place = getattr(config.storage, key.removeprefix("storage."))
        lasting = _lasting(f"{key}: {place!r}", place, here)
        if lasting != place:
            found.set = [*found.set, f"{key}={lasting}"]
    return Subject(config.name, identity(config))


def _with_study(found: argparse.Namespace, subject: Subject, here: Path | None) -> Subject:
    """A study's subject; where it says relative places, `--home` says what they count from."""
    home = Path(found.home) if found.home else here
    for key, place in subject.places:
        if _lasting(f"{found.study}: {key}: {place!r}", place, home) != place:
            found.home = str(home)
    return subject


def _check_files(names: Sequence[str], folder: Path) -> None:
    for name in names:
        path = Path(name)
        inside = not path.is_absolute() and ".." not in path.parts
        if not inside or not (folder / path).is_file() or not is_sent(path.as_posix()):
            raise InputError(
                f"{name}: has to be a file inside the working directory {folder}, and in no "
                "folder that is never uploaded"
            )


def _lasting(what: str, location: str, here: Path | None) -> str:
    """A location that outlives the job's own folder, which Ray deletes; `here` is ours, if seen."""
    if "://" in location or Path(location).is_absolute():
        return location
    if here is None:
        raise ConfigError(
            f"{what}: is relative, so it would lie in the job's own folder, which the cluster "
            "deletes; give an absolute path that all nodes share, or a URI"
        )
    return str((here / location).absolute())
