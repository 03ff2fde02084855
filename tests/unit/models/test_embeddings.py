import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twotower.models.embeddings.bags import Bags, sum_by_row
from twotower.models.embeddings.store import EmbeddingStore, merge_tables

torch.set_num_threads(1)


def store() -> EmbeddingStore:
    return EmbeddingStore({"a": 5, "b": 7}, 3, init_std=0.1, seed=1).double()


def bags_of(lists: list[list[tuple[int, float]]]) -> Bags:
    flat = [entry for entries in lists for entry in entries]
    lengths = torch.tensor([len(entries) for entries in lists], dtype=torch.int32)
    return Bags(
        torch.tensor([i for i, _ in flat], dtype=torch.int32),
        torch.tensor([w for _, w in flat], dtype=torch.float64),
        torch.repeat_interleave(torch.arange(len(lists), dtype=torch.int32), lengths),
        lengths,
    )


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(
            st.lists(st.tuples(st.integers(0, 11), st.floats(0.1, 2)), max_size=4),
            min_size=1,
            max_size=4,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_lookup_and_row_gradients_equal_dense_autograd(
    parts: list[list[list[tuple[int, float]]]],
) -> None:
    table = store()
    dense = table.weight.clone().requires_grad_()
    found = table.lookup([bags_of(part) for part in parts])
    loss, slow = torch.zeros(()).double(), 0 * dense.sum()
    for leaf, part in zip(found.leaves, parts, strict=True):
        assert len(leaf) == len(part)
        loss = loss + (leaf**3).sum()
        for entries in part:
            bag = torch.zeros(3).double()
            for row, weight in entries:
                bag = bag + weight * dense[row]
            slow = slow + (bag**3).sum()
    torch.testing.assert_close(loss, slow)
    torch.autograd.backward(loss)
    torch.autograd.backward(slow)
    got = found.row_gradients()
    assert got.rows.tolist() == sorted({row for part in parts for bag in part for row, _ in bag})
    assert dense.grad is not None
    torch.testing.assert_close(
        torch.zeros_like(dense).index_add(0, got.rows, got.values), dense.grad
    )


def test_default_rows_start_at_zero_and_others_do_not() -> None:
    table = store()
    assert not table.weight[[0, 5, table.nowhere]].any()
    assert table.weight[[1, 2, 3, 4, 6, 7, 8, 9, 10, 11]].all()


def test_a_table_starts_alike_whatever_other_tables_there_are() -> None:
    alone = EmbeddingStore({"b": 7}, 3, init_std=0.1, seed=1)
    assert torch.equal(alone.weight[:7], store().weight[5:12].float())
    other_seed = EmbeddingStore({"b": 7}, 3, init_std=0.1, seed=2)
    assert not torch.equal(alone.weight, other_seed.weight)


def test_rows_that_no_gradient_touched_read_as_their_table_default() -> None:
    table = store()
    table.weight[[0, 5]] = torch.tensor([[1.0], [2.0]]).double()
    table.touched[[3, 8]] = True
    read = table.reader()(bags_of([[(3, 1)], [(2, 1)], [(8, 1)], [(11, 1)], [(3, 0.5), (4, 0.5)]]))
    w = table.weight
    torch.testing.assert_close(read, torch.stack([w[3], w[0], w[8], w[5], (w[3] + w[0]) / 2]))
    assert table.untouched() == {"a": 2, "b": 4}


def test_one_table_has_one_size() -> None:
    assert merge_tables([("a", 3), ("b", 4), ("a", 3)]) == {"a": 3, "b": 4}
    with pytest.raises(ValueError, match="'a'"):
        merge_tables([("a", 3), ("a", 4)])


def test_sum_by_row_of_nothing_is_empty() -> None:
    none = torch.empty(0, dtype=torch.int32)
    got = sum_by_row(none, none, torch.empty(0, 3), torch.empty(0))
    assert got.rows.shape == (0,)
    assert got.values.shape == (0, 3)
