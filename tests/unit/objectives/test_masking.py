import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twotower.core.seeding import integers
from twotower.objectives.masking import (
    Draws,
    Kind,
    ViewMasks,
    correlated_sets,
    feature_dropout,
    value_dropout,
)

torch.set_num_threads(1)

# Mutual information of a hand-made catalogue: id, developer, category, title.
BY_HAND = np.array(
    [
        [9.0, 3.0, 1.0, 2.0],
        [3.0, 9.0, 2.5, 0.5],
        [1.0, 2.5, 9.0, 2.5],
        [2.0, 0.5, 2.5, 9.0],
    ]
)


def positions(n: int) -> torch.Tensor:
    return torch.arange(n)


def test_cfm_sets_of_a_hand_made_catalogue() -> None:
    id_, developer, category, title = range(4)
    two = correlated_sets(BY_HAND, 2)
    assert [set(np.flatnonzero(row)) for row in two] == [
        {id_, developer},
        {developer, id_},
        {category, developer},  # developer and title tie: the earlier one
        {title, category},
    ]
    three = correlated_sets(BY_HAND, 3)
    assert [set(np.flatnonzero(row)) for row in three] == [
        {id_, developer, title},
        {developer, id_, category},
        {category, developer, title},
        {title, category, id_},
    ]
    assert np.array_equal(correlated_sets(BY_HAND, 1), np.eye(4, dtype=bool))


def test_cfm_masks_the_whole_batch_alike_and_the_seed_feature_by_the_step() -> None:
    sets = correlated_sets(BY_HAND, 2)
    masks = ViewMasks("cfm", 2, [0, 1, 2, 3], 4, sets)
    seeds = set()
    for step in range(40):
        drawn = masks.draw(Draws(7, step), positions(5), runs=True)
        assert drawn is not None
        seed = int(integers(7, "cfm", step, np.zeros(1, dtype=np.int64), 4)[0])
        seeds.add(seed)
        first, second = drawn.hidden
        assert np.array_equal(first.numpy(), np.tile(sets[seed], (5, 1)))
        assert torch.equal(second, ~first)
        assert drawn.patterns is not None
        assert np.array_equal(drawn.patterns, sets[[seed]])
        assert (drawn.order, drawn.rows) == (None, (5,))
    assert seeds == {0, 1, 2, 3}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rfm_and_cfm_views_never_share_a_maskable_feature(data: st.DataObject) -> None:
    total = data.draw(st.integers(2, 8))
    columns = sorted(data.draw(st.sets(st.integers(0, total - 1), min_size=2)))
    k = len(columns)
    m = data.draw(st.integers(1, k - 1))
    kinds: list[Kind] = ["rfm", "cfm"]
    kind = data.draw(st.sampled_from(kinds))
    mutual = np.random.default_rng(k).random((k, k))
    masks = ViewMasks(kind, m, columns, total, correlated_sets(mutual, m))
    drawn = masks.draw(
        Draws(data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(0, 1000))), positions(9)
    )
    assert drawn is not None
    first, second = drawn.hidden
    fixed = [c for c in range(total) if c not in columns]
    assert not (~first[:, columns] & ~second[:, columns]).any()
    assert (first[:, columns].sum(1) == m).all()
    assert (second[:, columns].sum(1) == k - m).all()
    assert not first[:, fixed].any()
    assert not second[:, fixed].any()


def test_rfm_independent_masks_m_in_each_view_and_views_may_overlap() -> None:
    masks = ViewMasks("rfm_independent", 2, [0, 1, 2, 3, 4], 5)
    drawn = masks.draw(Draws(0, 3), positions(400))
    assert drawn is not None
    first, second = drawn.hidden
    assert (first.sum(1) == 2).all()
    assert (second.sum(1) == 2).all()
    assert (first & second).any()
    assert (~first & ~second).any()


def test_rfm_masks_every_feature_equally_often() -> None:
    drawn = ViewMasks("rfm", 2, [0, 1, 2, 3, 4], 5).draw(Draws(1, 0), positions(6000))
    assert drawn is not None
    share = drawn.hidden[0].double().mean(0)
    torch.testing.assert_close(share, torch.full_like(share, 0.4), atol=0.03, rtol=0)


def test_rfm_of_many_items_puts_equal_masks_together() -> None:
    masks = ViewMasks("rfm", 2, [2, 0, 1, 3], 4)
    few, many = (masks.draw(Draws(3, 1), positions(n), runs=True) for n in (1000, 6000))
    assert few is not None
    assert many is not None
    assert few.order is few.patterns is None
    assert many.order is not None
    assert many.patterns is not None
    assert torch.equal(many.order.sort().values, positions(6000))
    assert len(np.unique(many.patterns, axis=0)) == len(many.patterns) == 6
    assert np.array_equal(many.hidden[0].numpy(), np.repeat(many.patterns, many.rows, axis=0))
    assert torch.equal(many.hidden[1], ~many.hidden[0])
    # In the order of the items it is the same draw as everybody's.
    back = torch.empty_like(many.hidden[0])
    back[many.order] = many.hidden[0]
    assert torch.equal(back[:1000], few.hidden[0])


@pytest.mark.parametrize("kind", ["rfm", "cfm"])
def test_a_feature_that_both_views_show_keeps_them_apart(kind: Kind) -> None:
    masks = ViewMasks(kind, 1, [0, 2], 3, correlated_sets(BY_HAND[:2, :2], 1))
    drawn = masks.draw(Draws(0, 0), positions(5000), runs=True)
    assert drawn is not None
    assert drawn.order is drawn.patterns is None


def test_no_masking_hides_nothing() -> None:
    assert ViewMasks("none", 2, [0, 1], 2).draw(Draws(0, 0), positions(3)) is None


def test_cfm_without_sets_is_refused() -> None:
    with pytest.raises(ValueError, match="cfm"):
        ViewMasks("cfm", 1, [0, 1], 2)


@pytest.mark.parametrize("kind", ["rfm", "rfm_independent", "cfm"])
def test_a_worker_draws_what_one_worker_would_for_its_positions(kind: Kind) -> None:
    masks = ViewMasks(kind, 2, [0, 1, 3], 4, correlated_sets(BY_HAND[:3, :3], 2))
    whole, part = (
        masks.draw(Draws(5, 9), positions(20)),
        masks.draw(Draws(5, 9), positions(20)[1::3]),
    )
    assert whole is not None
    assert part is not None
    for a, b in zip(whole.hidden, part.hidden, strict=True):
        assert torch.equal(a[1::3], b)


def test_feature_dropout_hides_maskable_features_at_its_rate() -> None:
    hidden = feature_dropout(Draws(0, 1), positions(20000), [0, 2], 3, 0.3, lane=0)
    assert not hidden[:, 1].any()
    assert float(hidden[:, 0].double().mean()) == pytest.approx(0.3, abs=0.015)
    assert float(hidden[:, 2].double().mean()) == pytest.approx(0.3, abs=0.015)
    other = feature_dropout(Draws(0, 1), positions(20000), [0, 2], 3, 0.3, lane=1)
    assert not torch.equal(hidden, other)
    part = feature_dropout(Draws(0, 1), positions(20000)[7:90], [0, 2], 3, 0.3, lane=0)
    assert torch.equal(part, hidden[7:90])


def test_value_dropout_is_keyed_by_position_and_slot_and_differs_between_views() -> None:
    position, slot = torch.arange(9000) // 9, torch.arange(9000) % 9
    first, second = value_dropout(Draws(3, 2), position, slot, 12, 0.2)
    assert float(first.double().mean()) == pytest.approx(0.2, abs=0.02)
    assert float((first & second).double().mean()) == pytest.approx(0.04, abs=0.01)
    again, _ = value_dropout(Draws(3, 2), position[100:], slot[100:], 12, 0.2)
    assert torch.equal(again, first[100:])
    other, _ = value_dropout(Draws(3, 3), position, slot, 12, 0.2)
    assert not torch.equal(other, first)
    nothing, _ = value_dropout(Draws(3, 2), position, slot, 12, 0.0)
    assert not nothing.any()
