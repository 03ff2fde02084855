"""Freed memory that stays: page faults of a process that takes and frees the same blocks."""

import os
import platform
import subprocess
import sys

import pytest

from twotower.kernels.memory import ENVIRONMENT

CODE = """
import resource, sys, threading
from twotower.kernels.memory import keep_freed_memory

def work():
    for _ in range(40):
        blocks = [bytearray(8 << 20) for _ in range(6)]
        del blocks

if "keep" in sys.argv:
    keep_freed_memory()
if "thread" in sys.argv:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
else:
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""
GLIBC = platform.libc_ver()[0] == "glibc"


def faults(*arguments: str, **variables: str) -> int:
    own = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        env={**own, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(not GLIBC, reason="other C libraries are left as they are")
def test_blocks_are_mapped_once_not_at_every_round() -> None:
    plain, kept = faults(), faults("keep")
    assert kept < plain / 4


@pytest.mark.skipif(not GLIBC, reason="other C libraries are left as they are")
def test_the_environment_reaches_threads_too() -> None:
    plain, kept = faults("thread"), faults("thread", **ENVIRONMENT)
    assert kept < plain / 4


def test_settings_of_the_user_win() -> None:
    own = faults("keep", MALLOC_TRIM_THRESHOLD_="1000", MALLOC_MMAP_THRESHOLD_="1000")
    assert own > 4 * faults("keep") if GLIBC else own > 0
