"""What a session works with, wrapped so that somebody may look at its batches, sums and files."""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor
from typing_extensions import override

from twotower.core.files import Data
from twotower.core.storage import Store
from twotower.core.types import Batch
from twotower.data.reader import BatchReader
from twotower.objectives.group import Group


class WatchedReader(BatchReader):
    """Another reader; ``before`` sees each batch untrained, ``after`` sees it trained."""

    def __init__(
        self,
        reader: BatchReader,
        before: Callable[[Batch], object],
        after: Callable[[Batch], object],
    ) -> None:
        self._inner, self._before, self._after = reader, before, after
        self.steps_per_epoch = reader.steps_per_epoch

    @override
    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        for batch in self._inner.batches(epoch, first_step):
            self._before(batch)
            yield batch
            self._after(batch)


class WatchedGroup:
    """Another group; ``before_sum`` sees this rank's part of a sum, and may change it."""

    def __init__(
        self,
        group: Group,
        *,
        before_sum: Callable[[Tensor], object] | None = None,
        before_gather: Callable[[], object] | None = None,
    ) -> None:
        self._group, self._before_sum, self._before_gather = group, before_sum, before_gather
        self.rank, self.size = group.rank, group.size

    def exchange(self, *numbers: float) -> list[tuple[float, ...]]:
        """As the group."""
        return self._group.exchange(*numbers)

    def gather(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        """As the group."""
        if self._before_gather:
            self._before_gather()
        return self._group.gather(x, sizes)

    def sum_(self, x: Tensor) -> None:
        """As the group."""
        if self._before_sum:
            self._before_sum(x)
        self._group.sum_(x)


class WatchedStore(Store):
    """Another store; ``after`` sees folder and name of each file written to it or inside it."""

    def __init__(self, store: Store, after: Callable[[str, str], object]) -> None:
        vars(self).update(vars(store))
        self._after = after

    @override
    def child(self, name: str) -> Store:
        return WatchedStore(super().child(name), self._after)

    @override
    def write_bytes(self, name: str, data: Data) -> None:
        super().write_bytes(name, data)
        self._after(self.full_path(), name)
