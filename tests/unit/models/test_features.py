import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_catalogue import NUM_ITEMS, tiny_inputs
from twotower.core.types import Ragged
from twotower.models.embeddings.store import EmbeddingStore
from twotower.models.features import SideTable

torch.set_num_threads(1)
SIDE = tiny_inputs().item
SPARSE = [f for f in SIDE.features if f.kind != "dense"]


def table() -> tuple[SideTable, EmbeddingStore]:
    sizes = {f.table: f.vocab_size for f in SPARSE}
    store = EmbeddingStore(sizes, 3, init_std=0.1, seed=0).double()
    return SideTable(SIDE, store).double(), store


def slow_bag(
    store: EmbeddingStore, feature: int, row: int, *, hidden: bool, dropped: set[int]
) -> torch.Tensor:
    """Mean of the values left; the default row where none is. `dropped` counts values from 0."""
    f = SPARSE[feature]
    assert isinstance(f.values, Ragged)
    start = store.offsets[f.table]
    values = f.values.row(row).tolist() or [0]
    left = [] if hidden else [v for i, v in enumerate(values) if i not in dropped]
    return store.weight[[start + v for v in left or [0]]].mean(0)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.integers(0, NUM_ITEMS - 1), max_size=6), seed=st.integers(0, 1000))
def test_bags_equal_the_mean_of_the_values_left(rows: list[int], seed: int) -> None:
    side, store = table()
    rng = np.random.default_rng(seed)
    hidden = torch.from_numpy(rng.random((len(rows), 5)) < 0.4)
    entries = side.expand(np.array(rows, dtype=np.int64))
    slot, droppable = side.slots(entries)
    dropped = torch.from_numpy(rng.random(len(slot)) < 0.5) & droppable
    for hide, drop in ((None, None), (hidden, None), (None, dropped), (hidden, dropped)):
        inputs = side.inputs(entries, hide, drop)
        (leaf,) = store.lookup([inputs.bags]).leaves
        live = inputs.bags.weights != 0
        assert (inputs.bags.ids[~live] == store.nowhere).all()
        assert (inputs.bags.ids[live] != store.nowhere).all()
        at = 0
        for i, row in enumerate(rows):
            for f, feature in enumerate(SPARSE):
                assert isinstance(feature.values, Ragged)
                length = max(1, len(feature.values.row(row)))
                gone = (
                    set() if drop is None else set(np.flatnonzero(drop[at : at + length]).tolist())
                )
                column = SIDE.features.index(feature)
                hides = hide is not None and bool(hide[i, column])
                wanted = slow_bag(store, f, row, hidden=hides, dropped=gone)
                torch.testing.assert_close(leaf[i * len(SPARSE) + f].detach(), wanted)
                at += length


def test_hidden_dense_features_read_as_zero() -> None:
    side, _ = table()
    rows = np.array([3, 5])
    hidden = torch.zeros(2, 5, dtype=torch.bool)
    hidden[1, 4] = True
    dense = side.inputs(side.expand(rows), hidden).dense
    price = SIDE.features[4].values
    assert isinstance(price, np.ndarray)
    assert dense.tolist() == [[price[3]], [0.0]]


def test_slots_number_the_values_of_a_row_and_only_multi_valued_ones_can_drop() -> None:
    side, _ = table()
    rows = np.array([7, 2, 7])
    slot, droppable = side.slots(side.expand(rows))
    want_slot: list[int] = []
    want_droppable: list[bool] = []
    for row in rows:
        lengths = [max(1, len(f.values.row(row))) for f in SPARSE if isinstance(f.values, Ragged)]
        want_slot += range(sum(lengths))
        want_droppable += [
            f.kind == "multi" for f, n in zip(SPARSE, lengths, strict=True) for _ in range(n)
        ]
    assert slot.tolist() == want_slot
    assert droppable.tolist() == want_droppable
    assert int(slot.max()) < side.max_entries
