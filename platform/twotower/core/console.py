"""What people read on stdout: text as it is, paths in one piece, tables as wide as fits."""

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text
from typing_extensions import override

_WIDTH = 140
"""Of tables in a file or a pipe, which says no width; eighty columns would break the widest."""


class _Console(Console):
    @override
    def on_broken_pipe(self) -> None:
        """Tell who ends the process (`run_to_exit`), where rich would end it with 1."""
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """A console that reads no markup and no emoji from text: names and paths are users' own."""
    found = _Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not found.is_terminal:
        found.width = _WIDTH
    return found


def show(*things: RenderableType) -> None:
    """Print results on stdout: tables laid out, each text a line of its own that is never broken.

    A script reads whole paths and commands from it, whatever the width; a name too long for its
    column goes on below rather than being cut.
    """
    out = console()
    for thing in things:
        line = plain(thing) if isinstance(thing, str) else thing
        for column in line.columns if isinstance(line, Table) else ():
            column.overflow = column.overflow if column.no_wrap else "fold"
        out.print(line, soft_wrap=isinstance(line, Text))


def plain(text: str, style: str = "", keep: str = "") -> Text:
    """Data as it is: no markup; what a terminal would obey is written out, but for ``keep``."""
    shown = (
        one if one.isprintable() or one in keep else one.encode("unicode_escape").decode()
        for one in text
    )
    return Text("".join(shown), style=style)
