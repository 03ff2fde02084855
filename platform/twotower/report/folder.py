"""Reads files of a directory for the page: a missing one is named, a broken one is an error."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from twotower.core.errors import DataError
from twotower.core.storage import Store


class Folder:
    """One directory; what was asked for and isn't there is added to ``missing``."""

    def __init__(self, store: Store, missing: list[str]) -> None:
        self.store = store
        self.missing = missing

    def json(self, name: str, shows: str) -> dict[str, Any]:
        """A JSON object; empty, and named as missing, where the file isn't there.

        Args:
            name: File inside the directory.
            shows: What the page shows from it, in words.

        Raises:
            DataError: the file is no JSON object.
        """
        if not self._stands(name, shows):
            return {}
        return as_mapping(self.store.read_json(name), self.where(name))

    def lines(self, name: str, shows: str) -> list[dict[str, Any]]:
        """Objects of a JSON-lines file; a last line cut by a crash is left out."""
        if not self._stands(name, shows):
            return []
        text = self.store.read_bytes(name).decode("utf-8", errors="replace")
        found: list[dict[str, Any]] = []
        for number, line in enumerate(text.splitlines(keepends=True), start=1):
            if not line.endswith("\n") or not line.strip():
                continue
            where = f"{self.where(name)} line {number}"
            try:
                found.append(as_mapping(json.loads(line), where))
            except ValueError as error:
                raise DataError(f"{where}: not JSON: {error}") from error
        return found

    def text(self, name: str, shows: str) -> str:
        """A text file; empty, and named as missing, where it isn't there."""
        if not self._stands(name, shows):
            return ""
        return self.store.read_bytes(name).decode("utf-8", errors="replace")

    def table(self, name: str, columns: Sequence[str], shows: str) -> pa.Table | None:
        """Those of ``columns`` that a Parquet file has; None where it isn't there."""
        if not self._stands(name, shows):
            return None
        try:
            file = pq.ParquetFile(io.BytesIO(self.store.read_bytes(name)))
            return file.read([c for c in columns if c in file.schema_arrow.names])
        except pa.ArrowException as error:
            raise DataError(f"{self.where(name)}: can't be read: {error}") from error

    def where(self, name: str) -> str:
        """The file's place, for messages."""
        return f"{self.store.uri.rstrip('/')}/{name}"

    def _stands(self, name: str, shows: str) -> bool:
        if self.store.exists(name):
            return True
        self.missing.append(f"{shows}: no {self.where(name)}")
        return False


def as_mapping(value: Any, where: str) -> dict[str, Any]:
    """``value`` if it is a JSON object; DataError names ``where`` otherwise."""
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object, found {type(value).__name__}")
    return value


def as_rows(value: Any, where: str) -> list[dict[str, Any]]:
    """``value`` if it is a list of JSON objects (None is an empty one)."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise DataError(f"{where}: expected a list, found {type(value).__name__}")
    return [as_mapping(row, where) for row in value]


def as_number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a row, by key."""
    found = {key: as_number(value) for key, value in row.items()}
    return {key: value for key, value in found.items() if value is not None}
