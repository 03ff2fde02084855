from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prepare_slow import mix as slow_mix
from twotower.serving.packing import pack
from twotower.serving.tables import ServedTable, buckets, formula_bytes

GOLDEN = 0x9E3779B97F4A7C15


def floats(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def slow_buckets(value: int, hashes: int, number: int) -> list[int]:
    words = [slow_mix((value + GOLDEN * (h + 1)) % 2**64) for h in range(hashes)]
    return [((word >> 32) * number) >> 32 for word in words]


def full() -> tuple[ServedTable, Any]:
    rows = floats(0, 37, 6)
    return ServedTable("full", 37, 6, {}, {"rows": rows}), rows


def hashed(hashes: int = 2) -> tuple[ServedTable, Any]:
    rows = floats(1, 2 + 11, 6)
    table = ServedTable("hashed", 37, 6, {"hashes": hashes, "buckets": 11}, {"rows": rows})
    expected = rows[np.minimum(np.arange(37), 1)].copy()
    for value in range(2, 37):
        first, *rest = slow_buckets(value, hashes, 11)
        expected[value] = rows[2 + first]
        for bucket in rest:
            expected[value] = expected[value] + rows[2 + bucket]
    return table, expected


def low_rank() -> tuple[ServedTable, Any]:
    rows, projection = floats(2, 37, 3), floats(3, 3, 6)
    tensors = {"rows": rows, "projection": projection}
    expected = np.zeros((37, 6), np.float32)
    for value in range(37):
        for column in range(6):
            total = rows[value, 0] * projection[0, column]
            for j in (1, 2):
                total = np.float32(total + np.float32(rows[value, j] * projection[j, column]))
            expected[value, column] = total
    return ServedTable("low_rank", 37, 6, {"rank": 3}, tensors), expected


def scalar(bits: int, width: int = 6) -> tuple[ServedTable, Any]:
    codes = np.random.default_rng(4).integers(0, 1 << bits, size=(37, width))
    step = np.abs(floats(5, width))
    tensors = {"codes": pack(codes, [bits] * width), "step": step}
    expected = (codes - (1 << (bits - 1))).astype(np.float32) * step
    return ServedTable("scalar", 37, width, {"bits": bits}, tensors), expected


def dpq(tiers: list[tuple[int, list[int]]]) -> tuple[ServedTable, Any]:
    """A table of 37 values and width 6; every code of a tier is below its centroids."""
    columns = len(tiers[0][1])
    most = max(max(centroids) for _, centroids in tiers)
    tensors: dict[str, Any] = {"centroids": floats(6, columns, most, 6 // columns)}
    expected, rng = [], np.random.default_rng(7)
    for n, (rows, centroids) in enumerate(tiers):
        codes = rng.integers(0, centroids, size=(rows, columns))
        tensors[f"codes.{n}"] = pack(codes, [(c - 1).bit_length() for c in centroids])
        expected += [
            np.concatenate([tensors["centroids"][d, code] for d, code in enumerate(row)])
            for row in codes
        ]
    settings = {"tiers": [{"rows": rows, "centroids": c} for rows, c in tiers]}
    return ServedTable("dpq", 37, 6, settings, tensors), np.array(expected)


MADE = {
    "full": full,
    "hashed one": lambda: hashed(1),
    "hashed two": lambda: hashed(2),
    "hashed three": lambda: hashed(3),
    "low rank": low_rank,
    "scalar 8": lambda: scalar(8),
    "scalar 4": lambda: scalar(4),
    "scalar 4 odd": lambda: scalar(4, 5),
    "dpq bytes": lambda: dpq([(37, [256, 256])]),
    "dpq words": lambda: dpq([(37, [65536])]),
    "dpq nibbles": lambda: dpq([(37, [16, 16])]),
    "dpq odd": lambda: dpq([(37, [5, 33, 1])]),
    "dpq tiers": lambda: dpq([(4, [256, 256]), (0, [64, 64]), (20, [16, 32]), (13, [4, 3])]),
}


@pytest.mark.parametrize("name", MADE)
def test_rows_are_bitwise_those_of_plain_loops(name: str) -> None:
    table, expected = MADE[name]()
    rng = np.random.default_rng(8)
    for ids in (np.arange(37), np.arange(2, 30), rng.integers(0, 37, 100), np.empty(0, np.int64)):
        found = table.rows(ids)
        assert found.dtype == np.float32
        assert found.tobytes() == expected[ids].tobytes()
    found = table.rows(np.arange(37))
    found += 1  # the caller's own
    assert table.rows(np.arange(37)).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", MADE)
def test_payload_equals_the_formula(name: str) -> None:
    table, _ = MADE[name]()
    expected = formula_bytes(table.kind, table.settings, table.num_values, table.width)
    assert table.payload_bytes() == expected


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("full", {}, 4 * 1000 * 64),
        ("hashed", {"hashes": 2, "buckets": 100}, 4 * 102 * 64),
        ("low_rank", {"rank": 16}, 4 * 16 * (1000 + 64)),
        ("scalar", {"bits": 4}, 1000 * 32 + 4 * 64),
        # 1000 values of 8 codes of 5 bits; 8 columns of 32 centroids of 8 floats.
        ("dpq", {"tiers": [{"rows": 1000, "centroids": [32] * 8}]}, 5000 + 4 * 8 * 32 * 8),
    ],
)
def test_formula_in_figures(kind: Any, settings: dict[str, Any], expected: int) -> None:
    assert formula_bytes(kind, settings, 1000, 64) == expected


@given(st.lists(st.integers(0, 2**40), max_size=20), st.integers(1, 4), st.integers(1, 2**31 - 1))
def test_buckets_equal_python_integers(ids: list[int], hashes: int, number: int) -> None:
    found = buckets(np.array(ids, dtype=np.int64), hashes, number)
    assert found.tolist() == [slow_buckets(value, hashes, number) for value in ids]


@pytest.mark.parametrize("ids", [[-1], [0, 37]])
def test_ids_outside_the_table_are_refused(ids: list[int]) -> None:
    for make in MADE.values():
        with pytest.raises(IndexError, match=r"\[0, 37\)"):
            make()[0].rows(np.array(ids))


def test_tensors_that_do_not_belong_together_are_refused() -> None:
    rows = floats(0, 37, 6)
    with pytest.raises(ValueError, match="was expected"):
        ServedTable("full", 36, 6, {}, {"rows": rows})
    with pytest.raises(ValueError, match="float64"):
        ServedTable("full", 37, 6, {}, {"rows": rows.astype(np.float64)})
    with pytest.raises(ValueError, match="4 or 8 bits"):
        ServedTable("scalar", 37, 6, {"bits": 5}, {})
    with pytest.raises(ValueError, match="37 rows"):
        ServedTable("dpq", 37, 6, {"tiers": [{"rows": 36, "centroids": [2]}]}, {})
