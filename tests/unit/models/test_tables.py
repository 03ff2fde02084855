"""Tables that aren't full: against slow versions, and as they are served."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tiny_catalogue import tiny_batch, tiny_experiment, tiny_state
from twotower.core.embedding_config import Embeddings
from twotower.core.validation import validated
from twotower.models.embeddings.bags import Bags
from twotower.models.embeddings.codebooks import CodebookTable
from twotower.models.embeddings.store import EmbeddingStore
from twotower.models.embeddings.table import Asked
from twotower.serving.tables import buckets, formula_bytes
from twotower.training.step import train_step

torch.set_num_threads(1)

SIZE, WIDTH = 11, 4
TIERS = [{"share": 0.4, "num_centroids": 3}, {"share": 0.6, "num_centroids": 2, "num_subspaces": 1}]
KINDS: dict[str, dict[str, Any]] = {
    "hashed": {"kind": "hashed", "share": 0.4, "hashes": 3},
    "low_rank": {"kind": "low_rank", "rank": 3},
    "scalar8": {"kind": "scalar", "bits": 8},
    "scalar4": {"kind": "scalar", "bits": 4},
    "dpq_vq": {"kind": "dpq_vq", "num_subspaces": 2, "num_centroids": 3, "commitment": 0.3},
    "dpq_sx": {"kind": "dpq_sx", "num_subspaces": 2, "num_centroids": 3, "temperature": 0.7},
    "mgqe": {"kind": "mgqe", "num_subspaces": 2, "tiers": TIERS},
}
COUNTS = np.array([0, 3, 9, 1, 7, 2, 2, 5, 0, 8, 4], dtype=np.int64)


def kind_of(document: dict[str, Any]) -> Any:
    return validated(Embeddings, {"item": {"a": document}}, "test").item["a"]


def store(document: dict[str, Any], dtype: torch.dtype = torch.float64) -> EmbeddingStore:
    made = EmbeddingStore(
        {"before": 3, "a": SIZE, "after": 5},
        WIDTH,
        init_std=0.5,
        seed=3,
        kinds={"a": kind_of(document)},
        counts={"a": COUNTS},
    )
    return made.to(dtype)


def bags_of(lists: list[list[int]], dtype: torch.dtype = torch.float64) -> Bags:
    lengths = torch.tensor([len(ids) for ids in lists], dtype=torch.int32)
    flat = [i for ids in lists for i in ids]
    weights = torch.linspace(0.5, 1.5, len(flat), dtype=dtype)
    bag = torch.repeat_interleave(torch.arange(len(lists), dtype=torch.int32), lengths)
    return Bags(torch.tensor(flat, dtype=torch.int32), weights, bag, lengths)


LISTS = [[3, 4, 4], [], [0, 13, 5, 9], [3, 8, 10, 12], [14, 18, 6]]
"""Ids 3..13 are those of table `a`; 14 is the first of `after`."""


def slow_table(made: EmbeddingStore, document: dict[str, Any], weight: Tensor) -> Tensor:
    """All embeddings of table `a` as one expression, differentiable, codes of the current batch."""
    start = made.offsets["a"]
    table: Any = made.kinds["a"]
    kind = document["kind"]
    if kind == "hashed":
        rows = weight[start : start + table.num_rows]
        places = buckets(np.arange(SIZE), document["hashes"], table.num_rows - 2) + 2
        return torch.stack(
            [rows[i] if i < 2 else sum(rows[p] for p in places[i]) for i in range(SIZE)]  # type: ignore[misc]
        )
    rows = weight[start : start + SIZE]
    if kind == "low_rank":
        return rows[:, : document["rank"]] @ table.projection
    if kind == "scalar":
        high = 2 ** (document["bits"] - 1)
        step = table.log_step.exp()
        level = (rows / step).clamp(-high, high - 1)
        return (level + (level.round() - level).detach()) * step
    raise AssertionError(kind)


@pytest.mark.parametrize("name", ["hashed", "low_rank", "scalar8", "scalar4"])
def test_lookup_and_gradients_are_those_of_the_whole_table(name: str) -> None:
    made = store(KINDS[name])
    weight = made.weight.clone().requires_grad_()
    found = made.lookup([bags_of(LISTS)])
    (leaf,) = found.leaves
    torch.autograd.backward((leaf**3).sum())
    got = found.row_gradients()
    own = [p.grad.clone() for p in made.parameters() if p.grad is not None]
    made.zero_grad()
    start = made.offsets["a"]
    after = start + len(made._own("a")[0])
    every = torch.cat([weight[:start], slow_table(made, KINDS[name], weight), weight[after:]])
    bags = bags_of(LISTS)
    slow = torch.zeros(len(LISTS), WIDTH).double()
    for i, w, g in zip(bags.ids.tolist(), bags.weights, bags.bag.tolist(), strict=True):
        slow = slow.index_add(0, torch.tensor([g]), (w * every[i])[None])
    torch.testing.assert_close(leaf.detach(), slow.detach())
    torch.autograd.backward((slow**3).sum())
    assert weight.grad is not None
    assert torch.equal(got.rows, got.rows.unique())
    torch.testing.assert_close(
        torch.zeros_like(weight).index_add(0, got.rows, got.values), weight.grad
    )
    wanted = [p.grad for p in made.parameters() if p.grad is not None]
    assert len(own) == len(wanted) == (0 if name == "hashed" else 1)
    for one, other in zip(own, wanted, strict=True):
        torch.testing.assert_close(one, other)


def slow_codes(
    responses: list[list[list[float]]], counts: list[float], limits: list[list[int]]
) -> list[list[int]]:
    """Codes by loops: each centroid's responses to mean 0 and variance 1 over the examples."""
    codes = [[0] * len(responses[0]) for _ in responses]
    total = sum(counts)
    for d in range(len(responses[0])):
        columns = [[r[d][k] for r in responses] for k in range(len(responses[0][d]))]
        means = [sum(c * v for c, v in zip(counts, vs, strict=True)) / total for vs in columns]
        variances = [
            sum(c * (v - mean) ** 2 for c, v in zip(counts, vs, strict=True)) / total
            for vs, mean in zip(columns, means, strict=True)
        ]
        least = 1e-3 * sum(variances) / len(variances)
        normal = [
            [(v - mean) / (variance + least) ** 0.5 for v in vs]
            for vs, mean, variance in zip(columns, means, variances, strict=True)
        ]
        for u in range(len(responses)):
            codes[u][d] = max(range(limits[u][d]), key=lambda k: normal[k][u])
    return codes


REPEATED = [*range(SIZE), 1, 1, 6]
"""Values of table `a` in single bags: one of them three times, one twice."""
EXAMPLES = [float(REPEATED.count(i)) for i in range(SIZE)]


def slow_softmax(
    table: Any, parts: Tensor, centroids: Tensor, limits: list[list[int]]
) -> tuple[Tensor, Tensor]:
    """Embeddings of all values, and no loss."""
    responses = torch.einsum("udw,dkw->udk", parts, table.keys.detach()) / 2**0.5
    share = torch.tensor(EXAMPLES).double()[:, None, None] / sum(EXAMPLES)
    mean = (share * responses).sum(0).detach()
    variance = (share * (responses - mean) ** 2).sum(0).detach()
    least = 1e-3 * variance.mean(1, keepdim=True)
    soft = ((responses - mean) / (variance + least).sqrt() / 0.7).softmax(2)
    hard = torch.zeros_like(soft)
    for u, codes in enumerate(slow_codes(responses.tolist(), EXAMPLES, limits)):
        for d, k in enumerate(codes):
            hard[u, d, k] = 1
    mixed = hard + soft - soft.detach()
    return torch.einsum("udk,dkw->udw", mixed, centroids).flatten(1), torch.zeros(())


def slow_nearest(
    commitment: float, parts: Tensor, centroids: Tensor, limits: list[list[int]]
) -> tuple[Tensor, Tensor]:
    """Embeddings of all values, straight through, and the table's own loss."""
    apart = ((parts[:, :, None] - centroids[None]) ** 2).sum(3)
    chosen = slow_codes((-apart).tolist(), EXAMPLES, limits)
    assert all(k < limits[u][d] for u, codes in enumerate(chosen) for d, k in enumerate(codes))
    picked = torch.stack(
        [torch.cat([centroids[d, k] for d, k in enumerate(codes)]) for codes in chosen]
    )
    rows = parts.flatten(1)
    share = torch.tensor(EXAMPLES).double() / sum(EXAMPLES)
    loss = (share * ((picked - rows.detach()) ** 2).mean(1)).sum()
    loss = loss + commitment * (share * ((rows - picked.detach()) ** 2).mean(1)).sum()
    return rows + (picked - rows).detach(), loss


@pytest.mark.parametrize("name", ["dpq_vq", "dpq_sx", "mgqe"])
def test_codes_values_and_gradients_are_those_of_loops(name: str) -> None:
    made = store(KINDS[name])
    table: Any = made.kinds["a"]
    found = made.lookup([bags_of([[3 + i] for i in REPEATED])])
    (leaf,) = found.leaves
    upstream = torch.linspace(-1, 1, leaf.numel()).double().view_as(leaf)
    torch.autograd.backward((leaf * upstream).sum())
    got = found.row_gradients()
    rows = made.weight[3 : 3 + SIZE].clone().requires_grad_()
    centroids = table.centroids.detach().clone().requires_grad_()
    limits = np.array(table._tiers.limits)[table.tier.numpy()].tolist()
    parts = rows.view(SIZE, 2, 2)
    if name == "dpq_sx":
        values, loss = slow_softmax(table, parts, centroids, limits)
    else:
        values, loss = slow_nearest(KINDS[name].get("commitment", 0), parts, centroids, limits)
    slow = torch.linspace(0.5, 1.5, len(REPEATED)).double()[:, None] * values[REPEATED]
    torch.testing.assert_close(leaf.detach(), slow.detach())
    torch.autograd.backward((slow * upstream).sum() + loss)
    assert got.rows.tolist() == list(range(3, 14))
    assert rows.grad is not None
    torch.testing.assert_close(got.values, rows.grad)
    torch.testing.assert_close(table.centroids.grad, centroids.grad)


def test_keys_have_the_gradient_of_the_softmax_with_its_statistics_as_constants() -> None:
    document = KINDS["dpq_sx"]
    made = store(document)
    table: Any = made.kinds["a"]
    found = made.lookup([bags_of([[3 + i] for i in REPEATED])])
    (leaf,) = found.leaves
    upstream = torch.linspace(-1, 1, leaf.numel()).double().view_as(leaf)
    torch.autograd.backward((leaf * upstream).sum())
    found.row_gradients()
    keys = table.keys.detach().clone().requires_grad_()
    parts = made.weight[3 : 3 + SIZE].view(SIZE, 2, 2)
    answers = torch.einsum("udw,dkw->udk", parts, keys) / 2**0.5
    share = torch.tensor(EXAMPLES).double()[:, None, None] / sum(EXAMPLES)
    mean = (share * answers.detach()).sum(0)
    variance = (share * (answers.detach() - mean) ** 2).sum(0)
    least = 1e-3 * variance.mean(1, keepdim=True)
    soft = ((answers - mean) / (variance + least).sqrt() / 0.7).softmax(2)
    values = torch.einsum("udk,dkw->udw", soft, table.centroids.detach()).flatten(1)
    weights = torch.linspace(0.5, 1.5, len(REPEATED), dtype=torch.float64)[:, None]
    torch.autograd.backward((weights * values[REPEATED] * upstream).sum())
    torch.testing.assert_close(table.keys.grad, keys.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_training_reads_what_is_served(name: str) -> None:
    """With the statistics of one batch of all values, and every row touched."""
    made = store(KINDS[name], torch.float32)
    made.touched[:] = True
    bags = bags_of([[i] for i in range(19)], torch.float32)
    bags = Bags(bags.ids, torch.ones(19), bags.bag, bags.lengths)
    (trained,) = made.lookup([bags]).leaves
    torch.testing.assert_close(made.reader()(bags), trained.detach(), rtol=0, atol=1e-6)
    served, places = made.served("a")
    ids = np.arange(SIZE) if places is None else places
    assert np.array_equal(made.reader()(bags)[3:14].numpy(), served.rows(ids))
    assert served.payload_bytes() == formula_bytes(served.kind, served.settings, SIZE, WIDTH)


@pytest.mark.parametrize("name", ["low_rank", "scalar8", "dpq_vq"])
def test_values_never_touched_are_served_as_the_default(name: str) -> None:
    made = store(KINDS[name], torch.float32)
    made.weight[3] = 1.0
    made.touched[[3, 5]] = True
    rows = made.served("a").table.rows(np.arange(SIZE))
    assert all(np.array_equal(rows[i], rows[0]) for i in range(SIZE) if i != 2)
    assert made.untouched()["a"] == SIZE - 3


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9), st.integers(1, 3)), min_size=1),
    st.integers(0, 40),
    st.integers(0, 2**16),
)
def test_no_value_uses_a_centroid_beyond_its_share(
    drawn: list[tuple[int, int, int]], size: int, seed: int
) -> None:
    """Tiers of any size, zero too; centroids may be one, or more than there are values."""
    drawn = [*drawn, (1, 2, 1)]
    total = sum(share for share, _, _ in drawn)
    document = {
        "kind": "mgqe",
        "num_subspaces": 3,
        "tiers": [
            {"share": s / total, "num_centroids": k, "num_subspaces": d} for s, k, d in drawn
        ],
    }
    size += 2
    counts = np.random.default_rng(seed).integers(0, 9, size)
    made = EmbeddingStore(
        {"a": size}, 6, init_std=1, seed=seed, kinds={"a": kind_of(document)}, counts={"a": counts}
    )
    made.touched[:] = True
    table: Any = made.kinds["a"]
    bags = bags_of([[i] for i in range(size)], torch.float32)
    made.lookup([bags])
    codes = table.codes_of_all(*made._own("a")).numpy()
    limits = np.array(table._tiers.limits)[table.tier.numpy()]
    assert (codes < limits).all()
    assert table.centroids.shape[1] == limits.max(), "each can be reached"
    order = np.argsort(-np.where(np.arange(size) < 2, 99, counts), kind="stable")
    sums = limits[order].sum(1)
    bounds = np.rint(np.cumsum([s / total for s, _, _ in drawn]) * size).astype(int)
    for (_, k, d), low, high in zip(drawn, [0, *bounds[:-1]], bounds, strict=True):
        assert (sums[low:high] == k * d + 3 - d).all()
    served, places = made.served("a")
    assert served.payload_bytes() == formula_bytes("dpq", served.settings, size, 6)
    flat = table.centroids.detach().numpy()
    for value, place in enumerate(places if places is not None else range(size)):
        wanted = np.concatenate([flat[d, k] for d, k in enumerate(codes[value])])
        assert np.array_equal(served.rows(np.array([place]))[0], wanted)


def test_centroids_that_no_value_uses_move_to_values() -> None:
    document = {"kind": "dpq_vq", "num_subspaces": 2, "num_centroids": 4, "revive_every": 2}
    made = store(document | {"batch_norm": False})
    made.touched[:] = True
    table: Any = made.kinds["a"]
    with torch.no_grad():
        table.centroids[:, 1:] = 50
    bags = bags_of([[i] for i in range(3, 14)])
    for _ in range(3):
        made.lookup([bags])
    rows = made.weight[5:14].view(9, 2, 2)
    assert (table.centroids[:, 1:] != 50).all()
    for d in range(2):
        for k in (1, 2, 3):
            assert (rows[:, d] == table.centroids[d, k]).all(1).any()


def test_after_the_warm_up_centroids_are_means_of_values() -> None:
    document = {"kind": "dpq_vq", "num_subspaces": 1, "num_centroids": 2, "warmup_steps": 2}
    made = store(document | {"batch_norm": False})
    made.touched[:] = True
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[3.0] * WIDTH, [-3.0] * WIDTH]).double()
    near = centres[torch.arange(SIZE - 2) % 2]
    made.weight[5:14] = near + 0.01 * torch.randn(near.shape, generator=generator).double()
    table: Any = made.kinds["a"]
    bags = bags_of([[i] for i in range(3, 14)])
    weights = bags.weights[:, None]
    for _ in range(2):
        (leaf,) = made.lookup([bags]).leaves
        torch.testing.assert_close(leaf.detach(), weights * made.weight[3:14])
        assert made.served("a").table.kind == "full"
    made.lookup([bags])
    found = table.centroids[0].detach()
    means = torch.stack([made.weight[5:14:2].mean(0), made.weight[6:14:2].mean(0)])
    assert torch.allclose(found, means) or torch.allclose(found.flip(0), means)
    assert made.served("a").table.kind == "dpq"


def test_statistics_count_every_real_example_of_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """`id` has one value an item: rows, mixed negatives and both views of the SSL items."""
    asked: dict[str, Asked] = {}
    plain = CodebookTable.statistics

    def keep(table: CodebookTable, rows: Tensor, touched: Tensor, own: Asked) -> Tensor:
        asked[table.size.name] = own
        return plain(table, rows, touched, own)

    monkeypatch.setattr(CodebookTable, "statistics", keep)
    codes = {"kind": "dpq_vq", "num_subspaces": 2, "num_centroids": 3}
    config = tiny_experiment(
        ssl__weight=1,
        ssl__batch_size=9,
        loss__mixed_negatives=5,
        model__embeddings__item={"id": codes, "tags": codes},
        model__embeddings__query={"id": codes},
    )
    state = tiny_state(config)
    batch = tiny_batch(0, real=11)
    train_step(state, batch)
    assert asked["item.id"].counts.sum() == 11 + 5 + 2 * 9
    assert asked["query.id"].counts.sum() == 11
    seen = np.bincount(batch.query[:11] + 2, minlength=27)
    assert asked["query.id"].counts.tolist() == seen[seen > 0].tolist()
    total = asked["item.tags"].counts.sum()
    assert total >= 2 * 11 + 5 + 9  # a bag has one entry at least; likes share the table


def test_a_key_that_no_value_uses_moves_and_reads_what_its_row_read() -> None:
    document = {"kind": "dpq_sx", "num_subspaces": 1, "num_centroids": 4, "revive_every": 1}
    made = store(document | {"batch_norm": False})
    made.touched[:] = True
    table: Any = made.kinds["a"]
    with torch.no_grad():
        table.keys[0, 1:] = 0
        table.keys[0, 0] = 1
        made.weight[5:14] = made.weight[5:14].abs()
        made.weight[3:5] = 1
        table.centroids[0, 0] = 7
    bags = bags_of([[i] for i in range(3, 14)])
    made.lookup([bags])
    made.lookup([bags])
    rows = made.weight[5:14]
    for k in (1, 2, 3):
        assert (rows == table.keys[0, k]).all(1).any()
        assert (table.centroids[0, k] == 7).all()


def test_what_only_reserved_values_choose_is_in_use() -> None:
    document = {"kind": "dpq_vq", "num_subspaces": 1, "num_centroids": 2, "revive_every": 1}
    made = store(document | {"batch_norm": False})
    made.touched[5:14] = True  # not the default row, which every value never touched reads
    table: Any = made.kinds["a"]
    with torch.no_grad():
        made.weight[3] = 9
        table.centroids[0, 0], table.centroids[0, 1] = 0, 9
    bags = bags_of([[i] for i in range(3, 14)])
    for _ in range(3):
        made.lookup([bags])
    assert (table.centroids[0, 1] == 9).all()


def test_normalisation_means_the_same_at_any_scale_of_rows() -> None:
    """Codes of rows and centroids a thousand times smaller are the same."""
    made, small = (store(KINDS["dpq_vq"]) for _ in range(2))
    small.weight *= 1e-3
    with torch.no_grad():
        small.kinds["a"].centroids.mul_(1e-3)  # pyright: ignore[reportCallIssue]
    bags = bags_of([[i] for i in range(3, 14)])
    both = [one.lookup([bags]).leaves[0].detach() for one in (made, small)]
    torch.testing.assert_close(both[0], 1e3 * both[1])


def test_a_step_of_rowwise_adagrad_knows_how_wide_a_short_row_is() -> None:
    """The first step moves each number by about the rate, whatever the rank."""
    moved: list[float] = []
    for rank in (4, 1):
        config = tiny_experiment(
            train__optimizer="adagrad_rowwise",
            model__embeddings__item={"id": {"kind": "low_rank", "rank": rank}},
        )
        state = tiny_state(config)
        before = state.model.store.weight.clone()
        train_step(state, tiny_batch(0))
        start = state.model.store.offsets["item.id"]
        change = (state.model.store.weight - before)[start + 2 : start + 42, :rank]
        rows = change[change.abs().sum(1) > 0]
        moved.append(float(rows.square().mean(1).sqrt().mean()))
    assert moved == pytest.approx([0.1, 0.1], rel=1e-6)
