import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from twotower.core.types import FIRST_ID
from twotower.export.vocabularies import ordered
from twotower.serving.features import Vocabulary


@given(st.integers(0, 12), st.integers(0, 4), st.randoms())
def test_served_ids_are_those_of_the_table_for_every_value(
    num_values: int, hash_buckets: int, rng: np.random.Generator
) -> None:
    values = [f"value {n}" for n in range(num_values)]
    rest = list(range(FIRST_ID, FIRST_ID + num_values + hash_buckets))
    rng.shuffle(rest)
    order = np.array([0, 1, *rest])
    plain = ordered(values, hash_buckets, None)
    served = ordered(values, hash_buckets, order)
    again = Vocabulary.read(served.tensors("v"), "v", hash_buckets)
    asked = [*values, "another", "and another", "a third"]
    expected = order[plain.encode(asked)]
    assert served.encode(asked).tolist() == expected.tolist()
    assert again.encode(asked).tolist() == expected.tolist()
    if not hash_buckets:
        assert served.ids is None, "the order of the values says it all"
