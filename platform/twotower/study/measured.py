"""Per-query values of a study's runs, unpacked from the ledger.

Shape letters:
    S seeds    Q queries    P pairs (a query and one of its true items)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower.core.config import Eval, ExperimentConfig
from twotower.core.errors import DataError, InputError
from twotower.core.types import Float64
from twotower.data.locate import find_committed, find_inputs
from twotower.data.prepared import Prepared
from twotower.evaluation.evaluate import accuracy, findable
from twotower.evaluation.metrics import Truth
from twotower.evaluation.protocol import Certificate, require_equal
from twotower.evaluation.slices import Mask
from twotower.runtime.run_folder import data_identity
from twotower.study.ledger import Ledger, Line, unpack
from twotower.training.questions import questions


@dataclass(frozen=True, slots=True)
class Place:
    """What was asked on one dataset at one fraction."""

    prepared: Prepared
    rules: Eval
    truth: Truth
    masks: dict[str, Mask]
    groups: NDArray[Any] | None
    """``(Q,)`` labels where the split is by group."""

    queries: NDArray[Any]
    """``(Q,)`` ids."""

    def values(self, packed: Sequence[str]) -> dict[str, Float64]:
        """Metric -> float64 ``(S, Q)``, a row for each packed run.

        Raises:
            InputError: the ranks are of other pairs than the data's.
        """
        runs: list[dict[str, Float64]] = []
        for text in packed:
            ranks_P = unpack(text)
            if len(ranks_P) != len(self.truth.items.values):
                raise InputError(
                    f"{self.prepared.store.uri}: has {len(self.truth.items.values)} test pairs, a "
                    f"run of the ledger was measured on {len(ranks_P)}; other data was prepared"
                )
            runs.append(accuracy(ranks_P, self.truth.items, self.masks, self.rules.k))
        return {name: np.stack([run[name] for run in runs]) for name in (runs[0] if runs else ())}


def open_data(config: ExperimentConfig, ledger: Ledger, lines: Sequence[Line]) -> Prepared:
    """A dataset, if all these runs were made on it.

    Raises:
        DataError: the data is not prepared, or other data than the runs had.
    """
    committed = find_committed(config, find_inputs(config.data))
    if committed is None:
        raise DataError(f"{config.name}: its data is not prepared; run the study once more")
    prepared = Prepared.open(committed.path)
    mine = data_identity(prepared)
    for line in lines:
        theirs = ledger.noted(line["data"])
        if theirs != mine:
            raise DataError(
                f"{prepared.store.uri}: is other data than run {line['id']} of the ledger had; "
                "put the sources back, or start a new ledger"
            )
    return prepared


def open_place(config: ExperimentConfig, ledger: Ledger, lines: Sequence[Line]) -> Place:
    """The questions of a dataset, if all these runs were measured on it in one way.

    Raises:
        DataError: as `open_data`.
        InputError: their protocols differ; the field is named.
    """
    prepared = open_data(config, ledger, lines)
    protocols: Mapping[str, Certificate] = {
        line["id"]: Certificate(ledger.noted(line["protocol"]), {})
        for line in lines
        if "protocol" in line
    }
    require_equal(protocols)
    asked = questions(config, prepared, "test")
    truth, masks = findable(asked.task, config.eval)
    queries = prepared.query_ids()[asked.rows]
    return Place(prepared, config.eval, truth, masks, asked.task.groups, queries)
