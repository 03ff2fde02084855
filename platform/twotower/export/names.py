"""What people call the items: a column of the raw catalogue, which prepared data doesn't keep."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from twotower.core.data_config import Data
from twotower.core.errors import InputError
from twotower.data.catalogue import build_catalogue
from twotower.data.columns import factorize
from twotower.data.hashing import hash_strings
from twotower.data.schema import family, nearest
from twotower.data.shards import list_shards
from twotower.data.sources import inspect, read_column


def item_names(data: Data, column: str, item_ids: Sequence[str]) -> list[str]:
    """Name of each item; its id where the catalogue has none.

    Args:
        data: where the catalogue is.
        column: its column of names, of text or integers.
        item_ids: the items.

    Raises:
        InputError: the catalogue is gone or damaged, or has no such column.
    """
    table = data.items
    listed = list_shards(table.path, table.format, frozenset({table.id, column}), "data.items.path")
    shards = [inspect(shard) for shard in listed]
    for one in shards:
        if one.error:
            raise InputError(f"{one.shard.path}: {one.error}")
        if column not in one.schema.names:
            hint = nearest(column, one.schema.names)
            raise InputError(f"{one.shard.path}: no column {column!r} (--names); {hint}")
        if (found := family(one.schema.field(column).type)) not in {"text", "integer"}:
            raise InputError(f"{one.shard.path}: column {column!r} (--names) is {found}, not text")
    catalogue = build_catalogue(read_column(shards, table.id), f"{table.path}: {table.id}")
    names = factorize(read_column(shards, column))
    ids = pa.array(item_ids, pa.string())
    rows = catalogue.lookup(ids, hash_strings(ids))
    codes = np.append(names.codes, np.int32(-1))[np.append(catalogue.source_rows, -1)[rows]]
    values = names.values.to_pylist()
    return [
        values[code] if code >= 0 else item
        for item, code in zip(item_ids, codes.tolist(), strict=True)
    ]
