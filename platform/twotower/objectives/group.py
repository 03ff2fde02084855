"""What losses need from the other workers, as one argument; a single process is the identity."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

from torch import Tensor


class Group(Protocol):
    """The workers of one synchronous step.

    Every method is a collective: all ranks call the same ones in the same order.
    """

    @property
    def rank(self) -> int:
        """This worker, in [0, size)."""
        ...

    @property
    def size(self) -> int:
        """Number of workers W."""
        ...

    def exchange(self, *numbers: float) -> list[tuple[float, ...]]:
        """Every rank's few numbers, in rank order, on the host."""
        ...

    def gather(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        """Concatenate over ranks, in rank order.

        Differentiable: the backward pass **sums** the gradient over ranks, then takes this
        rank's rows.

        Args:
            x: ``(n, ...)``, this rank's rows; n may differ between ranks and may be 0.
            sizes: n of every rank.
        """
        ...

    def sum_(self, x: Tensor) -> None:
        """Sum over ranks, in place, without gradient."""
        ...


class SingleGroup:
    """One process: nothing to sum or gather."""

    rank = 0
    size = 1

    def exchange(self, *numbers: float) -> list[tuple[float, ...]]:
        """The numbers themselves."""
        return [numbers]

    def gather(self, x: Tensor, sizes: Sequence[int]) -> Tensor:  # noqa: ARG002 - the protocol's
        """The tensor itself."""
        return x

    def sum_(self, x: Tensor) -> None:
        """Nothing to add."""


SINGLE = SingleGroup()


def parts(total: int, size: int) -> list[int]:
    """Sizes of the contiguous parts that ``total`` positions are divided in over ``size`` ranks."""
    bounds = [total * rank // size for rank in range(size + 1)]
    return [high - low for low, high in pairwise(bounds)]
