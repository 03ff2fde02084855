"""Where the files of an export are read from: a local folder, or object storage by its URI."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from twotower.core.errors import InputError


class Stream(Protocol):
    """An opened file."""

    def read(self, size: int = ..., /) -> bytes:
        """So many bytes, or all; empty at the end."""
        ...


Opener = Callable[[str], AbstractContextManager[Stream]]
"""Opens a file by its name in the folder; OSError where that fails."""


def opener(folder: str | Path) -> Opener:
    """How files of a folder are opened.

    Raises:
        InputError: it is a URI that can't be opened, or pyarrow, which reads them, is not there.
    """
    text = str(folder)
    if "://" not in text:
        return lambda name: (Path(folder) / name).open("rb")
    try:
        # A service that reads a local folder has no pyarrow.
        from twotower.core.storage import Store  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            f"{text}: reading from object storage needs pyarrow, which is not installed; copy the "
            "export to a local folder first"
        ) from error
    store = Store(text)
    return lambda name: store.filesystem.open_input_stream(store.full_path(name))
