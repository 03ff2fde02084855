import math

import numpy as np
import pytest
import torch

from twotower.objectives.logq import CountedLogQ, StreamingLogQ, column_bias

torch.set_num_threads(1)
CPU = torch.device("cpu")


def test_counted_bias_is_minus_log_of_the_share_of_train_rows() -> None:
    counts = np.array([1, 3, 6])
    bias = column_bias(
        CountedLogQ(counts, CPU), torch.tensor([2, 0, 1]), num_rows=5, num_mixed=0, num_items=3
    )
    assert bias.tolist() == pytest.approx([-math.log(0.6), -math.log(0.1), -math.log(0.3)])


def test_mixed_bias_is_minus_log_of_the_mixture() -> None:
    counts = np.array([0, 3, 6])
    bias = column_bias(
        CountedLogQ(counts, CPU), torch.tensor([0, 1, 2]), num_rows=8, num_mixed=4, num_items=3
    )
    wanted = [-math.log((8 * c / 9 + 4 / 3) / 12) for c in (0, 3, 6)]
    assert bias.tolist() == pytest.approx(wanted)


def test_streaming_gaps_equal_algorithm_2_step_by_step() -> None:
    num_items, batch_size, rate = 12, 4, 0.25
    logq = StreamingLogQ(num_items, batch_size, rate, CPU)
    last, gap = [0] * num_items, [num_items / batch_size] * num_items
    rng = np.random.default_rng(0)
    for step in range(30):
        items = rng.integers(0, num_items, batch_size)
        logq.observe(torch.from_numpy(items), step)
        for item in set(items.tolist()):
            gap[item] = (1 - rate) * gap[item] + rate * (step + 1 - last[item])
            last[item] = step + 1
    everything = torch.arange(num_items)
    assert logq.expected(everything, batch_size).tolist() == pytest.approx([1 / g for g in gap])
    assert logq.state_tensors()["last"].tolist() == last


def test_streaming_estimate_finds_the_probability_that_a_batch_holds_an_item() -> None:
    rng = np.random.default_rng(1)
    logq = StreamingLogQ(50, 8, 0.02, CPU)
    share = np.array([0.2] + [0.8 / 49] * 49)
    for step in range(3000):
        logq.observe(torch.from_numpy(rng.choice(50, 8, p=share)), step)
    held = 1 - (1 - 0.2) ** 8
    assert float(logq.expected(torch.tensor([0]), 8)[0]) == pytest.approx(held, rel=0.15)
    others = logq.expected(torch.arange(1, 50), 8).mean()
    assert float(others) == pytest.approx(1 - (1 - 0.8 / 49) ** 8, rel=0.2)
