import math

import torch
import torch.nn.functional as F
from torch import Tensor

from twotower.models.embeddings.bags import Bags
from twotower.models.encoders import AttentionHistory, Histories, MeanHistory

torch.set_num_threads(1)
LENGTHS = [3, 0, 1, 2]


def histories(lengths: list[int]) -> Histories:
    count = torch.tensor(lengths)
    return Histories(
        count, torch.repeat_interleave(torch.arange(len(lengths)), count), max(1, *lengths)
    )


def full_block(block: AttentionHistory, x: Tensor) -> Tensor:
    """The whole causal self-attention of one history, oldest first; its last position's output."""
    length = len(x)
    x = (x + block.positions[:length]).flip(0)
    q = block.attention_norm(x)
    scores = block.query(q) @ block.key(x).T / math.sqrt(x.shape[1])
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    out = q + scores.masked_fill(future, -math.inf).softmax(1) @ block.value(x)
    out = block.feed_norm(out)
    out = out + block.outer(F.relu(block.inner(out)))
    return block.last_norm(out)[-1]


def test_attention_equals_the_full_causal_block_and_zeros_for_an_empty_history() -> None:
    block = AttentionHistory(4, 5, seed=0).double()
    found = torch.randn(sum(LENGTHS), 4, dtype=torch.float64)
    out = block(found, histories(LENGTHS))
    start = 0
    for row, length in enumerate(LENGTHS):
        wanted = (
            full_block(block, found[start : start + length]) if length else torch.zeros(4).double()
        )
        torch.testing.assert_close(out[row], wanted)
        start += length


def test_empty_histories_give_finite_gradients() -> None:
    block = AttentionHistory(4, 5, seed=0)
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
