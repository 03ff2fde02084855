"""Identity of a run and what is written down about it."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from twotower.core.config import ADDED, RESUME_SAFE, ExperimentConfig

_PACKAGES = ("twotower", "ray", "torch", "pyarrow", "optuna", "polars", "numpy", "pydantic")
_ENTRIES = ("jobs", "tune")
"""Folders of the entry files, at the root of a checkout."""


def identity(config: ExperimentConfig) -> dict[str, Any]:
    """What makes a run the run it is.

    The resolved config less the keys in `RESUME_SAFE`, and those in `ADDED` at their default.
    """
    document = config.model_dump(mode="json")
    for path in RESUME_SAFE:
        _drop(document, path)
    drop_added(document, config)
    return document


def drop_added(document: dict[str, Any], section: BaseModel, prefix: str = "") -> None:
    """Remove the keys in `ADDED` that are at their default from a section's document.

    Args:
        document: the section as JSON values; changed in place.
        section: the section.
        prefix: its dotted path with a dot at the end; empty for the whole config.
    """
    for path in ADDED:
        own = path.removeprefix(prefix)
        if path.startswith(prefix) and _is_default(section, own):
            _drop(document, own)


def _drop(document: dict[str, Any], path: str) -> None:
    *parents, leaf = path.split(".")
    for name in parents:
        document = document[name]
    document.pop(leaf)


def _is_default(section: Any, path: str) -> bool:
    *parents, leaf = path.split(".")
    for name in parents:
        section = getattr(section, name)
    field = type(section).model_fields[leaf]
    return getattr(section, leaf) == field.get_default(call_default_factory=True)


def fingerprint(value: Any) -> str:
    """SHA-256 (hex) of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def run_name(config: ExperimentConfig) -> str:
    """Name of a run: the config's stem and 8 digits of its fingerprint."""
    return f"{config.name}-{fingerprint(identity(config))[:8]}"


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Dotted paths where two resolved configs differ, each with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        for key in sorted({*old, *new}, key=str):
            below = f"{path}.{key}" if path else str(key)
            found += differences(old.get(key), new.get(key), below)
        return found
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]


def environment() -> dict[str, Any]:
    """Versions, hardware and commit of this process, for a run's record."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "versions": versions,
        "commit": _commit(),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "command": command(),
    }


def command() -> str:
    """This process's command as a shell at the root of a checkout takes it."""
    return shlex.join([*_program(Path(sys.argv[0]).absolute()), *sys.argv[1:]])


def _program(path: Path) -> list[str]:
    """What starts a program, without the folders of this machine."""
    package = Path(__file__).parents[1]
    if path == package / "cli.py":
        return [package.name]
    if path.is_relative_to(package):
        return ["python", "-m", ".".join(path.relative_to(package.parent).with_suffix("").parts)]
    if path.suffix != ".py":
        return [path.name]
    return ["python", "/".join(path.parts[-2 if path.parent.name in _ENTRIES else -1 :])]


def _commit() -> str | None:
    """Commit of the source tree this package runs from, with `+` when it has changes."""
    folder = Path(__file__).parents[1]
    try:
        head = _git(folder, "rev-parse", "HEAD")
        dirty = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if dirty else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [
        line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")
    ]
    return names[0] if names else platform.machine()
