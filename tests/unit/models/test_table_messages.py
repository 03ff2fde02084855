"""Messages of a step with tables of codes: one for all of them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tiny_catalogue import tiny_batch, tiny_experiment, tiny_state
from twotower.core.embedding_config import Embeddings
from twotower.core.validation import validated
from twotower.models.embeddings.bags import Bags
from twotower.models.embeddings.store import EmbeddingStore
from twotower.objectives.group import SingleGroup
from twotower.training.step import train_step

torch.set_num_threads(1)

SIZE, WIDTH = 11, 4
CODES = {"num_subspaces": 2, "num_centroids": 3}
TIERS = [{"share": 0.4, "num_centroids": 3}, {"share": 0.6, "num_centroids": 2}]
KINDS: dict[str, dict[str, Any]] = {
    "vq": {**CODES, "kind": "dpq_vq", "warmup_steps": 1, "revive_every": 2},
    "sx": {**CODES, "kind": "dpq_sx", "revive_every": 3},
    "tiers": {"kind": "mgqe", "num_subspaces": 2, "tiers": TIERS},
    "scalar": {"kind": "scalar"},
    "low_rank": {"kind": "low_rank", "rank": 2},
    "full": {"kind": "full"},
}


def bags_of(ids: range) -> Bags:
    """One id a bag."""
    own = torch.arange(len(ids), dtype=torch.int32)
    return Bags(own + ids.start, torch.ones(len(ids)), own, torch.ones_like(own))


def sent_by_lookups(names: list[str]) -> list[int]:
    """Messages of six lookups where those tables aren't full."""
    kinds = validated(Embeddings, {"item": {name: KINDS[name] for name in names}}, "test").item
    made = EmbeddingStore(
        dict.fromkeys(KINDS, SIZE),
        WIDTH,
        init_std=0.5,
        seed=3,
        kinds=kinds,
        counts={"tiers": np.arange(SIZE)},
    )
    found: list[int] = []
    for step in range(6):
        messages: list[Tensor] = []
        every = range(len(KINDS) * SIZE)
        asked = range(SIZE, 2 * SIZE) if step == 4 else every
        made.lookup([bags_of(asked), bags_of(range(0))], messages.append)
        found.append(len(messages))
    return found


def test_a_lookup_sends_one_for_all_tables() -> None:
    """In every step: warming up, with k-means, a revival, and where most tables aren't read."""
    assert sent_by_lookups(["vq", "sx", "tiers", "scalar", "low_rank"]) == [1] * 6
    assert sent_by_lookups(["sx"]) == [1] * 6


def test_a_lookup_sends_none_where_no_table_has_codes() -> None:
    assert sent_by_lookups(["scalar", "low_rank"]) == sent_by_lookups([]) == [0] * 6


class Counting(SingleGroup):
    """Counts the messages of one process."""

    def __init__(self) -> None:
        self.sent = 0

    def exchange(self, *numbers: float) -> list[tuple[float, ...]]:
        self.sent += 1
        return super().exchange(*numbers)

    def gather(self, x: Tensor, sizes: Any) -> Tensor:
        self.sent += 1
        return super().gather(x, sizes)

    def sum_(self, x: Tensor) -> None:
        self.sent += 1


def sent_by_steps(**tables: Any) -> list[int]:
    """Messages of three steps."""
    changes = {f"model__embeddings__{side}": kinds for side, kinds in tables.items()}
    state = tiny_state(tiny_experiment(ssl__weight=1, loss__mixed_negatives=5, **changes))
    groups = [Counting() for _ in range(3)]
    for step, group in enumerate(groups):
        train_step(state, tiny_batch(step), group)
    return [group.sent for group in groups]


def test_a_step_sends_one_more_however_many_tables_have_codes() -> None:
    one = sent_by_steps(item={"id": KINDS["vq"]})
    many = sent_by_steps(
        item={"id": KINDS["vq"], "tags": KINDS["sx"], "words": KINDS["low_rank"]},
        query={"id": KINDS["sx"]},
        context={"country": KINDS["vq"]},
    )
    assert one == many == [number + 1 for number in sent_by_steps()]
