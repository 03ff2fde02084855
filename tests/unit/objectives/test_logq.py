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


def streaming(gaps: list[float], batch_size: int) -> StreamingLogQ:
    logq = StreamingLogQ(len(gaps), batch_size, 0.01, CPU)
    logq.state_tensors()["gap"][:] = torch.tensor(gaps)
    return logq


def test_a_short_batch_holds_an_item_less_often() -> None:
    """Rows are independent: n of them miss it as often as one of them, to the power n."""
    gaps = [1.0, 1.5, 4.0, 1e6]
    logq, everything = streaming(gaps, 8), torch.arange(4)
    assert logq.expected(everything, 8).tolist() == pytest.approx([1 / gap for gap in gaps])
    missed_by_one = [(1 - 1 / gap) ** (1 / 8) for gap in gaps]
    wanted = [1 - one**3 for one in missed_by_one]
    assert logq.expected(everything, 3).tolist() == pytest.approx(wanted, rel=1e-8)


def test_streaming_counts_an_item_once_a_batch_where_counts_have_its_rows() -> None:
    """A fifth of the rows: the correction of an item that is in every batch 51 times."""
    counts, batch_size = np.array([200, *[1] * 800]), 256
    once, exact = streaming([1.0, *[1000 / 256] * 800], batch_size), CountedLogQ(counts, CPU)
    sizes = {"num_rows": batch_size, "num_mixed": 0, "num_items": 801}
    everything = torch.arange(801)
    biases = [column_bias(logq, everything, **sizes) for logq in (once, exact)]
    assert [float(bias[0]) for bias in biases] == pytest.approx([math.log(256), math.log(5)])
    assert biases[0][1:].tolist() == pytest.approx(biases[1][1:].tolist())
    sums = [float(torch.exp(-bias).sum()) for bias in biases]
    assert sums[1] == pytest.approx(1)
    assert sums[0] == pytest.approx(0.8 + 1 / 256), "the head's other 50 rows are nobody's"


@pytest.mark.parametrize("num_rows", [8, 3])
def test_streaming_shares_of_a_mixture_add_up_to_what_is_there(num_rows: int) -> None:
    """Distinct items of the batch's rows, and all negatives; a short batch claims no whole one's."""
    rng = np.random.default_rng(0)
    num_items, num_mixed, share = 400, 16, np.full(400, 1 / 400)
    logq = StreamingLogQ(num_items, 8, 0.01, CPU)
    for step in range(4000):
        logq.observe(torch.from_numpy(rng.choice(num_items, 8, p=share)), step)
    bias = column_bias(
        logq, torch.arange(num_items), num_rows=num_rows, num_mixed=num_mixed, num_items=num_items
    )
    distinct = num_items * (1 - (1 - 1 / num_items) ** num_rows)
    wanted = (distinct + num_mixed) / (num_rows + num_mixed)
    assert float(torch.exp(-bias).sum()) == pytest.approx(wanted, rel=0.02)
