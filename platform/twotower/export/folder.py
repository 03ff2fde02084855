"""The folder that is written to: what stands there, and only what is ours is replaced."""

import pyarrow.fs as pafs

from twotower.core.errors import InputError
from twotower.core.storage import Store

MEND = "delete the folder, or choose another with -o"


def file_sizes(target: Store) -> dict[str, int]:
    """Bytes of the files in a folder by name; empty where it is missing.

    Raises:
        InputError: it is no folder, or holds one.
    """
    (own,) = target.filesystem.get_file_info([target.full_path()])
    if own.type == pafs.FileType.NotFound:
        return {}
    if own.type != pafs.FileType.Directory:
        raise InputError(f"{target.uri}: is no folder; choose another name with -o")
    names = target.list()
    found = target.filesystem.get_file_info([target.full_path(name) for name in names])
    if other := [info.base_name for info in found if info.type != pafs.FileType.File]:
        raise InputError(f"{target.uri}: holds something else (the folder {other[0]!r}); {MEND}")
    return {name: info.size or 0 for name, info in zip(names, found, strict=True)}
