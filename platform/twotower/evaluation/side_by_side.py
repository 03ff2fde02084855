"""Independent parts of a work, each on one thread of torch's.

Sharing each operation between threads makes them wait for each other after every one of thousands;
where other processes use the machine too, each wait lasts until the slowest is scheduled again
(measured: a search 20 times slower). Parts wait once, at the end.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Done = TypeVar("Done")


def threads_of(device: torch.device) -> int:
    """How many parts run at once: torch's threads on a processor, 1 on an accelerator."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def side_by_side(work: Callable[[Part], Done], parts: Sequence[Part], at_once: int) -> list[Done]:
    """Do all parts, ``at_once`` at a time, without gradients; what they gave, in their order.

    Raises:
        Exception: what the first part that failed raised, after those begun have ended.
    """

    def alone(part: Part) -> Done:
        with torch.inference_mode():  # holds for one thread
            return work(part)

    if at_once == 1:
        return [alone(part) for part in parts]
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(alone, parts))
    finally:
        torch.set_num_threads(threads)  # some libraries take a thread's number for everybody's
