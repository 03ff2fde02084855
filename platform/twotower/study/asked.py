"""Which runs of a study are asked for: all of them, or those of some methods, datasets, sweeps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from twotower.core.errors import InputError
from twotower.data.schema import nearest
from twotower.study.cells import Key, tuned_by
from twotower.study.load import Study

REFERENCES = "references"
"""Name of popularity, content and item-kNN together."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Some of a study's runs."""

    cells: frozenset[Key]
    """Cells whose runs are all asked for."""

    trials: frozenset[Key]
    """Cells whose trials are: the above, those that they take settings from, and those beside
    these, where methods exchange some."""

    references: frozenset[tuple[str, float]]
    """Datasets and fractions where popularity, content and item-kNN are measured."""

    @property
    def places(self) -> frozenset[tuple[str, float]]:
        """Datasets and fractions whose data the runs need."""
        return self.references | {key.place for key in self.cells | self.trials}


def whole(study: Study) -> Asked:
    """All of a study's runs."""
    cells = frozenset(cell.key for cell in study.cells)
    places = frozenset(study.places()) if study.plan.references else frozenset[tuple[str, float]]()
    return Asked(cells, cells, places)


def part_of(study: Study, names: Sequence[str]) -> Asked:
    """The runs that names stand for, with those that they need.

    Args:
        study: the plan.
        names: each a method, a sweep, `references`, or a dataset for all of its runs, or
            DATASET/NAME for those of one dataset; a name of several things stands for all of them.

    Raises:
        InputError: the study runs nothing of that name; the nearest name is told.
    """
    everything, known = whole(study), {cell.key: cell for cell in study.cells}
    cells: dict[str, set[Key]] = {}
    for cell in study.cells:
        for name in _names(cell.key.dataset, cell.sweep or cell.key.method):
            cells.setdefault(name, set()).add(cell.key)
    references: dict[str, set[tuple[str, float]]] = {}
    for place in everything.references:
        for name in _names(place[0], REFERENCES):
            references.setdefault(name, set()).add(place)
    for name in names:
        _require(study, name, [*cells, *references])
    asked = {key for name in names for key in cells.get(name, ())}
    tuned = [tuned_by(known, key) for key in asked]
    return Asked(
        frozenset(asked),
        frozenset(asked.union(*((cell.key, *cell.others) for cell in tuned))),
        frozenset(place for name in names for place in references.get(name, ())),
    )


def _names(dataset: str, label: str) -> Iterator[str]:
    yield from (label, dataset, f"{dataset}/{label}")


def _require(study: Study, name: str, known: Sequence[str]) -> None:
    if name in known:
        return
    plain = dict.fromkeys(one for one in known if "/" not in one)
    hint = nearest(name, known, told=plain)
    raise InputError(f"--only: {study.source} runs nothing named {name!r}; {hint}")
