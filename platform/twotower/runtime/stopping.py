"""Being asked to stop: by `ray job stop` and schedulers (SIGTERM), or by Ctrl-C (SIGINT)."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Whether a stop was asked for inside the block.

    The first signal asks, so that work can end in order; a second SIGINT raises KeyboardInterrupt
    at once. Outside the main thread, where Python hears no signals, nothing is ever asked for.
    """
    asked = threading.Event()

    def hear(number: int, frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, hear) for number in signals}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
