"""Codes of a table against the centroids that there are, by slices."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower.serving import checks
from twotower.serving.packing import pack
from twotower.serving.tables import ServedTable


def table_of(codes: list[list[list[int]]], centroids: list[list[int]]) -> ServedTable:
    """Tiers of codes ``(rows, columns)``, their bits those of the centroids."""
    columns, most = len(centroids[0]), max(map(max, centroids))
    tensors: dict[str, Any] = {"centroids": np.zeros((columns, most, 1), np.float32)}
    for n, (rows, limits) in enumerate(zip(codes, centroids, strict=True)):
        bits = [(k - 1).bit_length() for k in limits]
        tensors[f"codes.{n}"] = pack(np.array(rows).reshape(-1, columns), bits)
    tiers = [{"rows": len(r), "centroids": k} for r, k in zip(codes, centroids, strict=True)]
    rows = sum(map(len, codes))
    return ServedTable("dpq", rows, columns, {"tiers": tiers}, tensors)


@given(st.data())
def test_a_code_is_refused_where_it_names_no_centroid(data: st.DataObject) -> None:
    columns = data.draw(st.integers(1, 4))
    limits = st.lists(st.integers(1, 300), min_size=columns, max_size=columns)
    centroids = data.draw(st.lists(limits, min_size=1, max_size=3))
    codes: list[list[list[int]]] = []
    for tier in centroids:
        # Any code that fits the bits; above the limit now and then.
        row = st.tuples(*(st.integers(0, (1 << (k - 1).bit_length()) - 1) for k in tier))
        codes.append([list(one) for one in data.draw(st.lists(row, max_size=20))])
    codes[0] = codes[0] or [[0] * columns]
    table = table_of(codes, centroids)
    sound = all(
        code < limit
        for rows, tier in zip(codes, centroids, strict=True)
        for row in rows
        for code, limit in zip(row, tier, strict=True)
    )
    if sound:
        checks.check_tables({"a": table})
    else:
        with pytest.raises(ValueError, match=r"tables\.safetensors: 'a/codes\.\d' names centroid"):
            checks.check_tables({"a": table})


@pytest.mark.parametrize("place", [0, 1, 6, 7, 19])
def test_every_slice_is_looked_at(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_CHUNK_CODES", 21)  # 7 rows of 3 columns
    codes = [[1, 2, 3]] * 20
    checks.check_tables({"a": table_of([codes], [[4, 3, 5]])})
    codes[place] = [1, 3, 3]
    with pytest.raises(ValueError, match=r"'a/codes\.0' names centroid 3 of column 1, which has 3"):
        checks.check_tables({"a": table_of([codes], [[4, 3, 5]])})
