"""Scorers against their formulas, one pair at a time; what is evaluated is what was trained."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tiny_catalogue import tiny_batch, tiny_experiment, tiny_state
from twotower.models.scorers import GMF, NeuMF
from twotower.training.evaluate import scorer_of

torch.set_num_threads(1)


def drawn(rows: int, width: int, seed: int) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=source, dtype=torch.float64)


def test_gmf_is_the_dot_product_of_its_vectors() -> None:
    p, q = drawn(4, 6, 1), drawn(5, 6, 2)
    gmf = GMF(6).double()
    torch.testing.assert_close(gmf.queries(p) @ gmf.items(q).T, p @ q.T)
    gmf.weight.data = drawn(1, 6, 3)[0]
    slow = torch.stack([torch.stack([gmf.weight @ (a * b) for b in q]) for a in p])
    torch.testing.assert_close(gmf.queries(p) @ gmf.items(q).T, slow)


@pytest.mark.parametrize("hidden", [(5,), (5, 4), (3, 2, 2)])
def test_neumf_is_gmf_and_an_mlp_of_the_two_halves(hidden: tuple[int, ...]) -> None:
    neumf = NeuMF(6, hidden, seed=0).double()
    neumf.weight.data = drawn(1, 3, 3)[0]
    p, q = drawn(4, 6, 1), drawn(7, 6, 2)
    scores = neumf.pairs(neumf.queries(p), neumf.items(q))
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            x = F.relu(neumf.first(torch.cat([a[3:], b[3:]])))
            for layer in neumf.pairs.layers:
                x = F.relu(layer(x))
            wanted = neumf.weight @ (a[:3] * b[:3]) + neumf.pairs.last @ x
            torch.testing.assert_close(scores[i, j], wanted)


@pytest.mark.parametrize("scorer", ["cosine", "gmf", "neumf"])
def test_evaluation_scores_pairs_as_training_does(scorer: str) -> None:
    state = tiny_state(tiny_experiment(model__scorer=scorer), dtype=torch.float32)
    model = state.model
    model.store.touched[:] = True
    batch = tiny_batch(0)
    items = model.items.inputs(model.items.expand(np.arange(40)))
    query = model.query_inputs(batch.query, batch.context, batch.history)
    query_bD, item_XD = (x.detach() for x in model.embed(model.look_up(query, [items])))
    pairs = model.scorer.pairs
    trained = query_bD @ item_XD.T if pairs is None else pairs(query_bD, item_XD).detach()
    queries = model.embed_queries(batch.query, context=batch.context)
    ranked = scorer_of(model, queries, model.embed_items())
    everything = np.tile(np.arange(40), (16, 1))
    torch.testing.assert_close(
        trained.double(), torch.as_tensor(ranked.exact(np.arange(16), everything))
    )
