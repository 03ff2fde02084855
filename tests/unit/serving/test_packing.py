import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower.serving.packing import pack, packed_bytes, unpack


def slow_pack(codes: list[list[int]], bits: list[int]) -> bytes:
    """One number of all codes, the first in its lowest bits."""
    number, at = 0, 0
    for row in codes:
        for code, width in zip(row, bits, strict=True):
            number |= code << at
            at += width
    return number.to_bytes((at + 7) // 8, "little")


@st.composite
def codes_and_bits(draw: st.DrawFn) -> tuple[list[list[int]], list[int]]:
    equal = st.builds(
        lambda bits, n: [bits] * n, st.sampled_from([0, 1, 2, 4, 8, 16]), st.integers(1, 9)
    )
    bits = draw(st.one_of(equal, st.lists(st.integers(0, 16), min_size=1, max_size=9)))
    row = st.tuples(*(st.integers(0, (1 << width) - 1) for width in bits)).map(list)
    return draw(st.lists(row, max_size=20)), bits


@given(codes_and_bits(), st.data())
def test_packing_equals_one_large_number_and_comes_back(
    given_codes: tuple[list[list[int]], list[int]], data: st.DataObject
) -> None:
    codes, bits = given_codes
    array = np.array(codes, dtype=np.uint16).reshape(len(codes), len(bits))
    packed = pack(array, bits)
    assert packed.tobytes() == slow_pack(codes, bits)
    assert len(packed) == packed_bytes(len(codes), bits)
    asked = data.draw(
        st.lists(st.integers(0, len(codes) - 1), max_size=30) if codes else st.just([])
    )
    found = unpack(packed, np.array(asked, dtype=np.int64), bits)
    assert found.shape == (len(asked), len(bits))
    assert found.tolist() == [codes[row] for row in asked]


@pytest.mark.parametrize("bits", [[3, 11, 8], [8, 8], [5] * 3, [16]])
def test_more_rows_than_a_chunk(bits: list[int]) -> None:
    limits = np.left_shift(1, np.array(bits))
    codes = np.random.default_rng(0).integers(0, limits, size=(10_001, len(bits)))
    packed = pack(codes, bits)
    ids = np.arange(len(codes) - 1, -1, -1)
    assert np.array_equal(unpack(packed, ids, bits), codes[::-1])
    assert packed.tobytes() == slow_pack(codes.tolist(), bits)


def test_codes_and_bits_that_cannot_be_are_refused() -> None:
    for codes in ([[4]], [[-1]]):
        with pytest.raises(ValueError, match="does not fit"):
            pack(np.array(codes), [2])
    with pytest.raises(ValueError, match="0 to 16"):
        pack(np.array([[1]]), [17])
    with pytest.raises(ValueError, match="2 columns"):
        pack(np.array([[1]]), [2, 2])


@pytest.mark.parametrize("rows", [1, 2, 3, 50])
@pytest.mark.parametrize(
    "bits",
    [[6] * 8, [6] * 9, [6] * 10, [7] * 8, [10] * 8, [16, 16, 16, 9, 1], [0, 16, 16, 16, 9, 0, 3]],
)
def test_codes_that_fill_a_word_and_more(bits: list[int], rows: int) -> None:
    limits = np.left_shift(1, np.array(bits))
    codes = np.random.default_rng(rows).integers(0, limits, size=(rows, len(bits)))
    ids = np.arange(rows - 1, -1, -1)
    assert np.array_equal(unpack(pack(codes, bits), ids, bits), codes[::-1])
    full = np.broadcast_to(limits - 1, codes.shape)
    assert np.array_equal(unpack(pack(full, bits), ids, bits), full)
