"""The last steps and the network over pairs against the torch modules that they stand for."""

from typing import Any

import numpy as np
import pytest
import torch

from served_arrays import arrays, drawn
from twotower.core.types import Ragged
from twotower.evaluation.pairs import Network, PairScorer
from twotower.evaluation.ties import tie_keys, tie_ranks
from twotower.evaluation.topk import Candidates, top_k
from twotower.models.scorers import GMF, NeuMF
from twotower.serving.ranking import Ranking
from twotower.serving.scorers import Scorer

WIDTH = 6
HIDDEN = [(5,), (5, 4), (1, 1, 2), (16, 8, 4)]


def neumf(hidden: tuple[int, ...]) -> tuple[NeuMF, Scorer]:
    module = NeuMF(WIDTH, hidden, seed=1)
    module.weight.data = torch.from_numpy(drawn(2, 1, WIDTH // 2)[0])
    return module, Scorer.read(arrays(module, "scorer"), "neumf", len(hidden) - 1)


def close(found: Any, expected: torch.Tensor) -> None:
    assert found.dtype == np.float32
    assert np.abs(found - expected.detach().numpy()).max() < 1e-6


def test_gmf_weighs_queries_only() -> None:
    module = GMF(WIDTH)
    module.weight.data = torch.from_numpy(drawn(2, 1, WIDTH)[0])
    served, x = Scorer.read(arrays(module, "scorer"), "gmf", 0), drawn(3, 30, WIDTH)
    assert (
        served.queries(x).tobytes()
        == module.queries(torch.from_numpy(x)).detach().numpy().tobytes()
    )
    assert served.items(x).tobytes() == x.tobytes()


@pytest.mark.parametrize("hidden", HIDDEN)
def test_neumf_steps_equal_torch(hidden: tuple[int, ...]) -> None:
    module, served = neumf(hidden)
    x = drawn(3, 30, WIDTH)
    close(served.queries(x), module.queries(torch.from_numpy(x)))
    close(served.items(x), module.items(torch.from_numpy(x)))


@pytest.mark.parametrize("hidden", HIDDEN)
def test_pairs_are_scored_and_ranked_as_in_training_and_evaluation(hidden: tuple[int, ...]) -> None:
    module, served = neumf(hidden)
    queries, items = served.queries(drawn(3, 4, WIDTH)), served.items(drawn(4, 70, WIDTH))
    every = np.arange(70)
    found = np.stack([served.score.exact(query, items, every) for query in queries])
    with torch.no_grad():
        trained = module.pairs(torch.from_numpy(queries), torch.from_numpy(items)).numpy()
    assert np.abs(found - trained).max() < 1e-6
    rough = np.stack([served.score.rough(query, items) for query in queries])
    assert np.abs(rough - trained).max() < 1e-6

    layers = [(one.weight.detach(), one.bias.detach()) for one in module.pairs.hidden_layers]
    network = Network(WIDTH // 2, layers, module.pairs.last.detach())
    scorer = PairScorer(torch.from_numpy(queries), torch.from_numpy(items), network)
    bounds = [served.score.loss(query, served.score.extents(items)) for query in queries]
    assert max(bounds) <= 1.02 * scorer.error, "that of the evaluation holds for all queries"
    for query, bound in zip(queries, bounds, strict=True):
        alone = PairScorer(torch.from_numpy(query[None]), torch.from_numpy(items), network)
        assert bound == pytest.approx(alone.error, rel=0.02)
    assert found.tobytes() == scorer.exact(np.arange(4), np.tile(every, (4, 1))).tobytes()
    keys = tie_keys([f"item-{n}" for n in range(70)])
    candidates = Candidates(np.full(4, -1), Ragged.from_lists([[]] * 4), keys)
    evaluated = top_k(scorer, candidates, 9)
    ranking = Ranking(served.score, items, tie_ranks(keys).astype(np.int32))
    for query, top, scores in zip(queries, evaluated.items, evaluated.scores, strict=True):
        listed = ranking.best(query, np.empty(0, np.int64), 9)
        assert listed[0].tolist() == top.tolist()
        assert listed[1].tobytes() == scores.tobytes()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("weight", lambda a: a[:-1]),
        ("weight", lambda a: a[None]),
        ("weight", lambda a: a.astype(np.float64)),
        ("first.weight", lambda a: a[:, :-1]),
        ("first.weight", lambda a: a[:, :-2]),
        ("first.bias", lambda a: a[:-1]),
        ("pairs.layers.0.weight", lambda a: a[:, :1]),
        ("pairs.layers.0.weight", lambda a: a[0]),
        ("pairs.layers.0.bias", lambda a: a[:1]),
        ("pairs.last", lambda a: a[:1]),
        ("pairs.last", lambda a: a.astype(np.float64)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, change: Any) -> None:
    tensors = arrays(neumf((5, 4))[0], "scorer")
    tensors[f"scorer.{name}"] = change(tensors[f"scorer.{name}"])
    with pytest.raises(ValueError, match=r"scorer|layer"):
        Scorer.read(tensors, "neumf", 1)


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(KeyError):
        Scorer.read(arrays(neumf((5, 4))[0], "scorer"), "neumf", 2)
    with pytest.raises(ValueError, match="ends in"):
        Scorer.read(arrays(neumf((5, 4))[0], "scorer"), "neumf", 0)
