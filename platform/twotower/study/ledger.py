"""The ledger of a study: one line a finished run, committed with the repository.

What many runs share (config, protocol, environment, data) stands once, in a line of its own that
the runs' lines name by the digits of its fingerprint. Lines only grow in number, so a study goes on
after weeks and on another machine, and two ledgers of one study can be put one after the other.
"""

import base64
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from twotower.core.errors import DataError
from twotower.core.records import fingerprint
from twotower.core.storage import Store
from twotower.evaluation.metrics import Int32
from twotower.runtime.json_lines import JsonLines

FILE = "runs.jsonl"

Line = dict[str, Any]

_RESULTS = (
    *("status", "value", "best", "steps", "curve", "weights"),
    *("protocol", "ranks", "test", "references"),
)
"""What a run finds whenever and wherever it is made; where it is made, and for which of the cells
that share it, may differ."""


class _Kept(Line):
    """A line of the file, or a part of one: what it lacks is told with its place."""

    def __init__(self, line: Line, where: str) -> None:
        super().__init__(line)
        self._where = where

    def __missing__(self, key: str) -> NoReturn:
        raise DataError(
            f"{self._where} has no {key!r}; put the line back from version control, or delete it, "
            "so that it is made again"
        )


class Ledger:
    """The runs of one study's folder; one writer."""

    def __init__(self, store: Store) -> None:
        """Read what is there; nothing is written.

        Raises:
            DataError: two lines give one run different results, or a line lacks its name.
        """
        self._file = JsonLines(store, FILE)
        self._name = f"{store.uri}/{FILE}"
        self._noted: dict[str, Any] = {}
        self._runs: dict[str, Line] = {}
        self._read()

    def take_over(self) -> None:
        """Read once more, and drop what a crash left of a line at the end; before writing."""
        self._file.keep(lambda _: True)
        self._read()

    def _read(self) -> None:
        self._noted, self._runs = {}, {}
        places: dict[str, int] = {}
        for place, found in self._file.numbered():
            where = f"{self._name}, line {place}"
            line = _Kept(found, where)
            if "note" in line:
                self._noted[line["note"]] = line["value"]
                continue
            for name, one in line.get("references", {}).items():
                line["references"][name] = _Kept(one, f"{where}, {name}")
            # Of two ledgers put together the first one counts.
            first = self._runs.setdefault(line["id"], line)
            at = places.setdefault(line["id"], place)
            if unlike := _unlike(first, line):
                raise DataError(
                    f"{self._name}: lines {at} and {place} are both of run {line['id']}, and "
                    f"differ in {unlike}; delete the wrong one, or both, so that it is made again"
                )

    def run(self, run_id: str) -> Line | None:
        """One run's line, None where it has not ended yet."""
        return self._runs.get(run_id)

    def runs(self) -> list[Line]:
        """All runs, in the order in which they ended."""
        return list(self._runs.values())

    def noted(self, digits: str) -> Any:
        """A document that runs share; DataError where the ledger lacks it."""
        if digits not in self._noted:
            raise DataError(
                f"{self._name}: note {digits} is missing, a line was lost; put it back from "
                f"version control, or delete the lines that name {digits}, so that their runs are "
                "made again"
            )
        return self._noted[digits]

    def note(self, value: Any) -> str:
        """Write a document down unless it stands already; its digits."""
        digits = fingerprint(value)[:12]
        if digits not in self._noted:
            self._file.append({"note": digits, "value": value})
            self._noted[digits] = value
        return digits

    def add(self, line: Mapping[str, Any]) -> None:
        """Write a finished run down, durably."""
        self._file.append(dict(line))
        self._file.sync()
        self._runs[line["id"]] = dict(line)


def _unlike(one: Line, other: Line) -> str | None:
    """The first result in which two lines of a run differ; older lines may lack some."""
    both = [key for key in _RESULTS if key in one and key in other]
    return next((key for key in both if one[key] != other[key]), None)


def pack(ranks_P: Int32) -> str:
    """Ranks as text: 16 bits each, zlib, base85; most are 0 and take next to nothing."""
    return base64.b85encode(zlib.compress(ranks_P.astype("<u2").tobytes(), 9)).decode()


def unpack(text: str) -> Int32:
    """Inverse of `pack`.

    Raises:
        DataError: the text is damaged.
    """
    try:
        data = zlib.decompress(base64.b85decode(text))
    except (ValueError, zlib.error) as error:
        raise DataError(f"{FILE}: the ranks of a run are damaged: {error}") from None
    return np.frombuffer(data, dtype="<u2").astype(np.int32)
