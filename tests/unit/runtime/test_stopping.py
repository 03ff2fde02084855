"""Signals while work goes on: the first asks, a second Ctrl-C interrupts, a third changes nothing."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from twotower.core.errors import StoppedError
from twotower.runtime.stopping import stop_requests, stopped_at_once


def send(number: signal.Signals) -> None:
    """A signal to this process; Python handles it before the next line."""
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def python_s_own_handler() -> Iterator[None]:
    """A shell starts what runs in its background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_requests() as should_stop:
        assert not should_stop()
        send(number)
        assert should_stop()
        send(signal.SIGTERM)
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_interrupts_and_a_third_changes_nothing() -> None:
    written = False
    with stop_requests():
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        send(signal.SIGINT)
        written = True
    assert written
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_work_that_can_not_be_asked_is_stopped_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError, match="goes on"), stopped_at_once("the same command goes on"):
        send(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_code_that_takes_every_exception_lets_a_stop_through() -> None:
    def work() -> None:
        with suppress(Exception):  # as Ray Data does, which prints it as a bug of its own
            send(signal.SIGTERM)
        pytest.fail("the work went on")

    with pytest.raises(StoppedError, match="goes on"), stopped_at_once("the same command goes on"):
        work()


def test_a_thread_hears_nothing() -> None:
    heard: list[bool] = []

    def work() -> None:
        with stopped_at_once("never"), stop_requests() as should_stop:
            heard.append(should_stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [False]
