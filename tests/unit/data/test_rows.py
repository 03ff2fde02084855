import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from twotower.data.divide import history_from
from twotower.data.rows import Rows, concatenate, lexical_order, merge_repeats, newest_first

ROW = st.tuples(
    st.integers(0, 4),
    st.integers(0, 5),
    st.integers(1, 3),
    st.integers(0, 2**64 - 1),
    st.integers(-3, 3),
)


def rows_of(rows: list[tuple[int, int, int, int, int]], timed: bool = True) -> Rows:
    query, item, weight, key, time = zip(*rows, strict=True) if rows else ([],) * 5
    return Rows(
        np.array(query, np.int32),
        np.array(item, np.int32),
        np.array(weight, np.int32),
        np.array(key, np.uint64),
        np.array(time, np.int64) if timed else None,
        {"c": np.array([k % 100 for k in key], np.int32)},
    )


@given(st.lists(ROW, unique_by=lambda row: row[3]), st.booleans())
def test_repeats_are_merged_as_by_a_dict(
    raw: list[tuple[int, int, int, int, int]], timed: bool
) -> None:
    expected: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for query, item, weight, key, time in raw:
        expected.setdefault((query, item), []).append((time if timed else 0, key, weight))
    merged = merge_repeats(rows_of(raw, timed))
    assert list(zip(merged.query, merged.item, strict=True)) == sorted(expected)
    for n, own in enumerate(expected[pair] for pair in sorted(expected)):
        time, key, _ = min(own)
        assert merged.weight[n] == sum(weight for _, _, weight in own)
        assert merged.key[n] == key
        assert merged.context["c"][n] == key % 100
        if merged.time is not None:
            assert merged.time[n] == time
    assert merged.weight.dtype == np.int32


@given(st.lists(ROW, unique_by=lambda row: row[3], min_size=2), st.integers(0, 20))
def test_merging_in_pieces_is_merging_at_once(
    raw: list[tuple[int, int, int, int, int]], cut: int
) -> None:
    whole = merge_repeats(rows_of(raw))
    first, second = merge_repeats(rows_of(raw[:cut])), rows_of(raw[cut:])
    pieces = merge_repeats(concatenate([second, first]))
    for name in ("query", "item", "weight", "key", "time"):
        assert (getattr(whole, name) == getattr(pieces, name)).all()


@given(st.data())
def test_lexical_order_equals_lexsort(data: st.DataObject) -> None:
    number = data.draw(st.integers(0, 30))
    columns = [
        np.array(
            data.draw(st.lists(st.integers(0, top), min_size=number, max_size=number)), np.uint64
        )
        for top in data.draw(st.lists(st.sampled_from([1, 5, 2**20, 2**63, 2**64 - 1]), min_size=1))
    ]
    order = lexical_order(*columns)
    expected = np.lexsort(columns[::-1])
    for column in columns:  # rows that are equal in all columns may change places
        assert (column[order] == column[expected]).all()


def test_newest_first_of_times_at_both_ends_of_int64() -> None:
    times = [-(2**63), 2**63 - 1, 0, 5]
    rows = rows_of([(1, n, 1, n, time) for n, time in enumerate(times)])
    assert newest_first(rows).tolist() == [1, 3, 2, 0]


def test_history_begins_after_rows_of_the_same_time() -> None:
    rows = rows_of(
        [(0, 1, 1, 1, 9), (0, 2, 1, 2, 7), (0, 3, 1, 3, 7), (0, 4, 1, 4, 1), (2, 1, 1, 5, 7)]
    )
    assert history_from(rows).tolist() == [1, 3, 3, 4, 1]
    assert history_from(rows_of([(0, 1, 1, 1, 9)], timed=False)).tolist() == [0]
