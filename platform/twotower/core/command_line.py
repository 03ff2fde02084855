"""What commands take alike, and how every process that a person starts ends."""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typing_extensions import override

from twotower.core.errors import RunError, TwotowerError

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Ray's own messages too.")]

INTERRUPTED = 128 + signal.SIGINT
_DEBUG = "--debug"


class _CarriedError(Exception):
    """Holds what Typer would end the process for in a way of its own."""


class Commands(TyperGroup):
    """Typer's commands, for `run_to_exit`: Ctrl-C and a closed pipe get past Typer."""

    @override
    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, BrokenPipeError) as error:
            raise _CarriedError(error) from error


def emit(document: Any) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=False, default=str) + "\n")


def run_to_exit(program: str, main: Callable[[], object]) -> NoReturn:
    """Run a command and end the process: 0 done, 2 bad input, 3 failed, 4 resumable, 130.

    What a user can mend is one line on stderr. `--debug`, anywhere among the arguments, is taken
    from them and puts the traceback before that line.
    """
    debug = _DEBUG in sys.argv
    sys.argv[1:] = [word for word in sys.argv[1:] if word != _DEBUG]
    code: Any = 0
    try:
        try:
            main()
        except SystemExit as ended:  # how Typer and argparse end, after --help too
            code = ended.code
        sys.stdout.flush()  # a full disk and a reader that left are found here, not past the end
    except (TwotowerError, OSError, KeyboardInterrupt, _CarriedError) as error:
        code, told = _ending(error)
        if debug:
            traceback.print_exc()
        if told:
            sys.stderr.write(f"{program}: {told}\n")
    _forget_unwritten()
    sys.exit(code)


def _ending(error: BaseException) -> tuple[int, str]:
    """Exit code and line of what ended a command."""
    match error:
        case _CarriedError():
            return _ending(error.args[0])
        case TwotowerError():
            return error.exit_code, str(error)
        case KeyboardInterrupt():
            return INTERRUPTED, "interrupted"
        case BrokenPipeError():  # `| head` has read enough, as of any program
            return 128 + signal.SIGPIPE, ""
    return RunError.exit_code, f"{error}; run with {_DEBUG} for the traceback"


def _forget_unwritten() -> None:
    """Drop output that can't be written: Python would try again and make the exit code 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
