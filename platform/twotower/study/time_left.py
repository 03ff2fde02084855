"""How long the rest of a study takes, by what its finished runs took."""

from collections.abc import Hashable, Iterable, Iterator

from twotower.study.book import Left
from twotower.study.cells import Key, Kind
from twotower.study.ledger import Line


def time_left(left: Iterable[Left], lines: Iterable[Line], slots: int) -> float | None:
    """Seconds to the end, if the runs that are left take what like runs took.

    All that is left shared by the slots, but no less than the longest chain: trials of a cell run
    one after the other however many slots are free, and final runs after them.

    Args:
        left: what is left, by cell and kind.
        lines: the finished runs.
        slots: runs at once.

    Returns:
        None where nothing has ended that a run which is left is like.
    """
    taken = _Taken(lines)
    work = 0.0
    trials: dict[Key | None, float] = {}
    finals: list[tuple[Key | None, float]] = []
    for one in left:
        each = taken.by(one.key, one.kind) if one.count else 0.0
        if each is None:
            return None
        work += one.count * each
        if one.kind == "trial":
            trials[one.key] = one.count * each
        else:
            finals.append((one.after, each))
    chains = [trials.get(after, 0.0) + each for after, each in finals]
    return max([work / slots, *trials.values(), *chains])


class _Taken:
    """Mean seconds of finished runs."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._all: dict[Hashable, list[float]] = {}
        for line in lines:
            key = Key(line["dataset"], line["fraction"], line["method"])
            for like in _alike(key, line["kind"]):
                self._all.setdefault(like, []).append(line["seconds"])

    def by(self, key: Key, kind: Kind) -> float | None:
        """Of the runs that are most like one; None where there are none."""
        for like in _alike(key, kind):
            if like in self._all:
                return sum(self._all[like]) / len(self._all[like])
        return None


def _alike(key: Key, kind: Kind) -> Iterator[Hashable]:
    """What a run has in common with others, the closest first.

    Trials and final runs train alike, so that each may stand for the other.
    """
    if kind == "reference":
        yield from ((kind, *key.place), (kind,))
        return
    yield "trained", *key, kind
    yield "trained", *key
    yield "trained", *key.place
    yield "trained", key.dataset
    yield ("trained",)
