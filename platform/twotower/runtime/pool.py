"""Plain functions on the cluster's CPUs, as many at once as fit; for many short runs.

Processes are kept, so that only the first run of each pays for its imports. A function that is
given here must be one that its module defines, and take and return what pickles.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from twotower.core.errors import RunError, TwotowerError
from twotower.runtime.cluster import require

_STARTS = 3
"""Times that a run whose process died is begun before it counts as failed. Chosen, not tuned."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A call that came back."""

    key: Hashable
    value: Any
    error: TwotowerError | None


class Pool:
    """Calls under way. A context manager: what still runs at its end is ended."""

    def __init__(self, what: str, *, cpus: int, most: int | None = None) -> None:
        """Use the connected cluster.

        Args:
            what: who asks, for messages.
            cpus: CPUs of one call.
            most: calls at once; null = as many as fit.

        Raises:
            ResourceError: the cluster can't hold one call.
        """
        require(what, cpus)
        fit = int(ray.cluster_resources().get("CPU", 0) // cpus)
        self.slots = min(fit, most) if most else fit
        self._cpus = cpus
        self._under_way: dict[Any, Hashable] = {}
        self._remote: dict[Callable[[Any], Any], Any] = {}

    def __enter__(self) -> "Pool":
        """Nothing runs yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End what still runs."""
        for reference in self._under_way:
            ray.cancel(reference, force=True)
        self._under_way.clear()

    @property
    def free(self) -> int:
        """Calls that may be started now."""
        return self.slots - len(self._under_way)

    def start(self, key: Hashable, function: Callable[[Any], Any], argument: Any) -> None:
        """Call ``function(argument)`` in another process."""
        if function not in self._remote:
            options = ray.remote(num_cpus=self._cpus, max_retries=_STARTS - 1)
            self._remote[function] = options(function)
        self._under_way[self._remote[function].remote(argument)] = key

    def ended(self, timeout_s: float) -> list[Ended]:
        """Calls that came back, after ``timeout_s`` seconds at most."""
        if not self._under_way:
            return []
        ready, _ = ray.wait(list(self._under_way), timeout=timeout_s)
        return [self._result(reference) for reference in ready]

    def _result(self, reference: Any) -> Ended:
        key = self._under_way.pop(reference)
        try:
            return Ended(key, ray.get(reference), None)
        except RayTaskError as error:
            cause = error.cause
            told = cause if isinstance(cause, TwotowerError) else RunError(_last_line(error))
            return Ended(key, None, told)
        except RayError as error:
            message = f"its process died {_STARTS} times: {_last_line(error)}"
            return Ended(key, None, RunError(message))


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
