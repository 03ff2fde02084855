"""Views of a safetensors file against the library's own reader, and headers that lie."""

import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from twotower.serving.arrays import views

DTYPES = st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8, np.int16, np.bool_])


@given(
    st.dictionaries(
        st.text("abc./@ü", min_size=1, max_size=6),
        DTYPES.flatmap(
            lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, min_side=0))
        ),
        max_size=5,
    )
)
def test_views_equal_what_the_library_reads(tensors: dict[str, Any]) -> None:
    data = safetensors.numpy.save(tensors)
    expected, found = safetensors.numpy.load(data), views(data)
    assert found.keys() == expected.keys()
    for name, one in found.items():
        assert one.dtype == expected[name].dtype
        assert one.shape == expected[name].shape
        assert one.tobytes() == expected[name].tobytes()
        assert one.flags.aligned
        assert not one.flags.writeable


def test_they_are_views() -> None:
    data = safetensors.numpy.save({"a": np.zeros(1000, np.float32)})
    assert np.shares_memory(views(data)["a"], np.frombuffer(data, np.uint8))


def packed(header: Any, body: bytes = b"\0" * 8, size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + body


GOOD: dict[str, Any] = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "data",
    [
        b"", b"1234567", packed({}, b"", 2**60), packed({}, b"x"), packed([]), packed(b"[" * 100_000),
        packed(b"\xff"), packed({"a": 1}), packed({"a": {"dtype": "F32"}}),
        *(packed({"a": GOOD | change}) for change in (
            {"dtype": "F99"}, {"dtype": 1}, {"shape": [3]}, {"shape": [-2]}, {"shape": [True, 2]},
            {"shape": 2}, {"shape": [2.0]}, {"shape": [2**70]}, {"shape": [0, 2**47] * 2},
            {"data_offsets": [0, 4]}, {"data_offsets": [8, 0]}, {"data_offsets": [0, 8, 8]},
            {"data_offsets": [4, 12]}, {"data_offsets": ["0", "8"]}, {"more": 1},
        )),
        packed({"a": GOOD, "b": GOOD}),
        packed({"a": GOOD}, b"\0" * 9),
        packed(b'{"a":%(a)s,"a":%(a)s}' % {b"a": json.dumps(GOOD).encode()}),
    ],
)  # fmt: skip
def test_a_header_that_lies_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        views(data)
    assert views(packed({"a": GOOD}))["a"].tolist() == [0, 0]


def test_what_is_not_aligned_is_copied() -> None:
    header = {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
              "b": {"dtype": "F32", "shape": [1], "data_offsets": [1, 5]}}  # fmt: skip
    found = views(packed(header, b"\7" + np.float32(1.5).tobytes()))
    assert found["b"].flags.aligned
    assert found["b"].tolist() == [1.5]
