import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from twotower.models.embeddings.bags import Bags
from twotower.models.encoders import AttentionBlock, AttentionHistory, Histories, MeanHistory
from twotower.models.noise import Noise

torch.set_num_threads(1)
LENGTHS = [3, 0, 1, 2]


def histories(lengths: list[int]) -> Histories:
    count = torch.tensor(lengths)
    return Histories(
        count, torch.repeat_interleave(torch.arange(len(lengths)), count), max(1, *lengths)
    )


def full_block(block: AttentionBlock, x: Tensor) -> Tensor:
    """Causal self-attention over one history, oldest first, head by head."""
    q = block.attention_norm(x)
    future = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    mixed = []
    for query, key, value in zip(
        *(
            layer.chunk(block.num_heads, dim=1)
            for layer in (block.query(q), block.key(x), block.value(x))
        ),
        strict=True,
    ):
        scores = query @ key.T / math.sqrt(query.shape[1])
        mixed.append(scores.masked_fill(future, -math.inf).softmax(1) @ value)
    out = block.feed_norm(q + torch.cat(mixed, dim=1))
    return out + block.outer(F.relu(block.inner(out)))


@pytest.mark.parametrize(("blocks", "heads"), [(1, 1), (2, 1), (1, 2), (3, 4)])
def test_attention_equals_full_causal_blocks_and_zeros_for_an_empty_history(
    blocks: int, heads: int
) -> None:
    encoder = AttentionHistory(4, 5, seed=0, num_blocks=blocks, num_heads=heads, dropout=0.5)
    encoder = encoder.double()
    earlier = [block for block in encoder.earlier if isinstance(block, AttentionBlock)]
    assert len(earlier) == blocks - 1
    found = torch.randn(sum(LENGTHS), 4, dtype=torch.float64)
    out = encoder(found, histories(LENGTHS))
    start = 0
    for row, length in enumerate(LENGTHS):
        wanted = torch.zeros(4).double()
        if length:
            x = (found[start : start + length] + encoder.positions[:length]).flip(0)
            for block in (*earlier, encoder):
                x = full_block(block, x)
            wanted = encoder.last_norm(x)[-1]
        torch.testing.assert_close(out[row], wanted)
        start += length


def test_more_blocks_begin_as_fewer_do() -> None:
    """Initial values of a block don't depend on how many there are: old checkpoints stay whole."""
    one = AttentionHistory(4, 5, seed=0).state_dict()
    three = AttentionHistory(4, 5, seed=0, num_blocks=3).state_dict()
    assert one.keys() == {name for name in three if not name.startswith("earlier.")}
    assert all(torch.equal(value, three[name]) for name, value in one.items())


def test_dropout_drops_its_share_by_the_place_in_the_global_batch() -> None:
    noise = Noise(3, 7, np.arange(40))
    ones, place = torch.ones(2000, 24).double(), torch.arange(2000)
    dropped = noise.dropped(ones, place, rate=0.25, site=0)
    assert set(dropped.unique().tolist()) == {0.0, 1 / 0.75}
    assert abs(float((dropped == 0).float().mean()) - 0.25) < 0.01
    some = torch.tensor([5, 1999, 8])
    assert torch.equal(noise.dropped(ones[:3], some, rate=0.25, site=0), dropped[some])
    others = (noise.dropped(ones, place, rate=0.25, site=1),
              Noise(3, 8, noise.position).dropped(ones, place, rate=0.25, site=0))  # fmt: skip
    for other in others:  # of independent draws, 1 - 2 * 0.25 * 0.75 agree
        assert abs(float((other == dropped).float().mean()) - 0.625) < 0.01


def test_dropout_of_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    encoder = AttentionHistory(4, 5, seed=0, num_blocks=2, dropout=0.5)
    found = torch.randn(sum(LENGTHS), 4)
    whole = encoder(found, replace(histories(LENGTHS), noise=Noise(0, 1, np.arange(4))))
    last = encoder(found[4:], replace(histories(LENGTHS[3:]), noise=Noise(0, 1, np.array([3]))))
    torch.testing.assert_close(whole[3:], last)
    assert not torch.allclose(whole, encoder(found, histories(LENGTHS)))


def test_empty_histories_give_finite_gradients() -> None:
    block = AttentionHistory(4, 5, seed=0, num_blocks=2)
    for lengths in ([0, 0], [0, 2]):
        found = torch.randn(sum(lengths), 4, requires_grad=True)
        out = block(found, histories(lengths))
        assert not out[0].any()
        torch.autograd.backward(out.square().sum())
        assert found.grad is not None
        assert found.grad.isfinite().all()
        for parameter in block.parameters():
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()


def test_mean_history_is_one_bag_a_row_over_the_items_means() -> None:
    # Three items in two rows (the middle row is empty); the first item has two values.
    single = Bags(
        ids=torch.tensor([4, 5, 6, 7], dtype=torch.int32),
        weights=torch.tensor([0.5, 0.5, 1, 1]),
        bag=torch.tensor([0, 0, 1, 2], dtype=torch.int32),
        lengths=torch.tensor([2, 1, 1], dtype=torch.int32),
    )
    merged = MeanHistory().regroup(single, histories([2, 0, 1]))
    assert merged.lengths.tolist() == [3, 0, 1]
    assert merged.bag.tolist() == [0, 0, 0, 2]
    assert merged.weights.tolist() == [0.25, 0.25, 0.5, 1]
