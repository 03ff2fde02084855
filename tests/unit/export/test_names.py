from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prepare_serial import make_config
from twotower.core.data_config import Data
from twotower.core.errors import DataError, InputError
from twotower.export.names import item_names


def catalogue(folder: Path) -> Data:
    items = {
        "item_id": ["b", "a", "c"],
        "title": ["Bee", None, "Sea"],
        "year": [1, 2, None],
        "tags": [["x"], [], None],
    }
    pq.write_table(pa.table(items), folder / "items.parquet")
    return make_config(folder).data


def test_names_follow_the_items_and_ids_stand_in(tmp_path: Path) -> None:
    data = catalogue(tmp_path)
    assert item_names(data, "title", ["a", "b", "c", "gone"]) == ["a", "Bee", "Sea", "gone"]
    assert item_names(data, "year", ["c", "b"]) == ["c", "1"]


def test_columns_and_catalogues_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    data = catalogue(tmp_path)
    with pytest.raises(InputError, match=r"no column 'titles' \(--names\); did you mean 'title'"):
        item_names(data, "titles", ["a"])
    with pytest.raises(InputError, match="is list of text, not text"):
        item_names(data, "tags", ["a"])
    (tmp_path / "items.parquet").write_bytes(b"no Parquet")
    with pytest.raises(InputError, match=r"items\.parquet: not a readable parquet file"):
        item_names(data, "title", ["a"])
    (tmp_path / "items.parquet").unlink()
    with pytest.raises(DataError, match=r"data\.items\.path"):
        item_names(data, "title", ["a"])
