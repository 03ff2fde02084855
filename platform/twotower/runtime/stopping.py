"""Being asked to stop: by `ray job stop` and schedulers (SIGTERM), or by Ctrl-C (SIGINT)."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from twotower.core.errors import StoppedError


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Whether a stop was asked for inside the block.

    The first signal asks, so that work can end in order; a second SIGINT raises KeyboardInterrupt
    at once, and a third changes nothing inside the block: what is written down then must be whole.
    Outside the main thread, where Python hears no signals, nothing is ever asked for.
    """
    asked = threading.Event()

    def hear(number: int, frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.default_int_handler(number, frame)
        asked.set()

    with _handled(hear, signal.SIGTERM, signal.SIGINT):
        yield asked.is_set


@contextmanager
def stopped_at_once(message: str) -> Iterator[None]:
    """Let SIGTERM end the block with StoppedError: for work that nobody asks to end."""

    def hear(_: int, __: FrameType | None) -> None:
        raise _Stop

    try:
        with _handled(hear, signal.SIGTERM):
            yield
    except _Stop:
        raise StoppedError(message) from None


class _Stop(BaseException):
    """Unwinds the block; no Exception, which Ray Data would print as a bug of its own."""


@contextmanager
def _handled(
    hear: Callable[[int, FrameType | None], None], *numbers: signal.Signals
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, hear) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
