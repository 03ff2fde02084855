"""Freed memory kept for the next step."""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT = 1 << 30
_LARGEST = 32 << 20
"""The largest block that glibc lets come out of its heap."""

ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(_KEPT),
    "MALLOC_MMAP_THRESHOLD_": str(_LARGEST),
}
"""The same for a process that is yet to start, and for all its threads: `mallopt` reaches the heap
of the first one alone."""


def keep_freed_memory() -> None:
    """Let this process keep up to 1 GiB that it frees, blocks up to 32 MiB.

    glibc gives memory back to the system as soon as a little is free at the end of its heap. Work
    that frees and takes the same megabytes step after step has them mapped and zeroed anew each
    time: a quarter of a float32 step of 4096 rows, half of a ranking (`docs/log.md`). Settings of
    the user's own (`MALLOC_TRIM_THRESHOLD_`) win; other C libraries are left as they are.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
