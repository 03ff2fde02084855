"""The small package that a submitted job runs from: code and configs, never data, runs or secrets.

Made here and not by Ray, so that its size is known before anything is sent, and so that equal
trees give equal bytes, which a cluster that has them is not sent again.
"""

import os
import subprocess
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from twotower.core.errors import InputError

LEFT_OUT_AT_TOP = frozenset({"runs", "prepared", "tests", "docs", "build", "dist"})
"""Folders of these names are not sent from the top; deeper ones may be packages."""

LEFT_OUT = frozenset(
    {".git", ".hg", ".venv", "venv", "node_modules"}
    | {"__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis", ".mypy_cache"}
)
"""Folders of these names are never sent, whatever their depth."""

_SECRET_NAMES = (".env", "auth_token", ".netrc", "id_rsa", "id_ed25519")
_SECRET_ENDINGS = (".pem", ".key", ".token")
MAX_MB = 100
"""Largest package, before compression. Chosen: Ray itself refuses 512 MiB with a poor message."""

_TIME = (1980, 1, 1, 0, 0, 0)


def write_package(folder: Path, target: Path, max_mb: int = MAX_MB) -> list[str]:
    """Zip a working directory.

    Files that git ignores are left out where git knows the folder.

    Args:
        folder: the working directory.
        target: the zip file to write.
        max_mb: most MiB of files, before compression.

    Returns:
        The names inside, sorted.

    Raises:
        InputError: the files are more than that; the largest entries are named.
    """
    sizes = {name: (folder / name).stat().st_size for name in sorted(_files(folder))}
    total = sum(sizes.values())
    if total > max_mb << 20:
        raise InputError(
            f"{folder}: {total / 2**20:.0f} MiB to upload, more than {max_mb}; largest: "
            f"{_largest(sizes)}. Move them out of the folder or let .gitignore name them"
        )
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sizes:
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, (folder / name).read_bytes())
    return list(sizes)


def _files(folder: Path) -> Iterable[str]:
    listed = _listed_by_git(folder)
    names = listed if listed is not None else _walked(folder)
    for name in names:
        path = folder / name
        if is_sent(name) and path.is_file() and not path.is_symlink():
            yield name


def is_sent(name: str) -> bool:
    """Whether a relative POSIX path may go into a package."""
    *folders, leaf = name.split("/")
    if not LEFT_OUT.isdisjoint(folders) or not LEFT_OUT_AT_TOP.isdisjoint(folders[:1]):
        return False
    return leaf not in _SECRET_NAMES and not leaf.endswith((*_SECRET_ENDINGS, ".pyc"))


def _listed_by_git(folder: Path) -> list[str] | None:
    command = ["git", "-C", str(folder), "ls-files", "-z"]
    options = ["--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(
            [*command, *options], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return [name for name in done.stdout.split("\0") if name]


def _walked(folder: Path) -> Iterable[str]:
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - LEFT_OUT)
        for name in names:
            yield (Path(base) / name).relative_to(folder).as_posix()


def _largest(sizes: dict[str, int]) -> str:
    """The five largest entries one or two levels down."""
    grouped: Counter[str] = Counter()
    for name, size in sizes.items():
        grouped["/".join(name.split("/")[:2])] += size
    return ", ".join(f"{name} ({size / 2**20:.1f} MiB)" for name, size in grouped.most_common(5))
