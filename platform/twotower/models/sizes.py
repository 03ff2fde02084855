"""Bytes that a model is served with."""

from dataclasses import dataclass

from twotower.models.two_tower import TwoTower
from twotower.serving.tables import formula_bytes

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class TableSize:
    """One embedding table."""

    kind: str
    """As it is served: `full`, `hashed`, `low_rank`, `scalar` or `dpq`."""

    values: int
    bytes: int
    """Codes, centroids, rows: all that a lookup reads."""

    full_bytes: int
    """Of the same values, one float32 row each."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a model."""

    tables: dict[str, TableSize]
    table_bytes: int
    full_table_bytes: int
    """Of the tables if all were `full`."""

    dense_bytes: int
    """Towers and history encoder, float32."""


def sizes(model: TwoTower) -> Sizes:
    """Measure the tables as they would be exported; full ones are counted, not copied."""
    store, tables = model.store, dict[str, TableSize]()
    for name, values in store.tables.items():
        full = formula_bytes("full", {}, values, store.width)
        tables[name] = TableSize("full", values, full, full)
        if store.is_compressed(name):
            served = store.served(name).table
            tables[name] = TableSize(served.kind, values, served.payload_bytes(), full)
    dense = sum(
        weight.numel() for name, weight in model.named_parameters() if not name.startswith("store.")
    )
    return Sizes(
        tables,
        sum(table.bytes for table in tables.values()),
        sum(table.full_bytes for table in tables.values()),
        _FLOAT_BYTES * dense,
    )
