"""One training step."""

import torch
from torch import Tensor

from twotower.core.types import Batch
from twotower.models.features import SideInputs
from twotower.models.two_tower import TwoTower
from twotower.objectives.contrastive import identical_share, view_signature
from twotower.objectives.group import SINGLE, Group
from twotower.objectives.masking import value_dropout
from twotower.objectives.plan import Plan, SSLPass
from twotower.training.state import TrainState


def train_step(
    state: TrainState, batch: Batch, group: Group = SINGLE, *, detail: bool = False
) -> dict[str, Tensor]:
    """Train on one global batch.

    A collective: every rank calls it for every step, also with padding only, with one ``detail``.

    Args:
        state: changed in place; ``step`` and ``epoch`` too.
        batch: this rank's rows.
        group: the workers.
        detail: also report ``identical_views`` (costs a pass over the views; for logging steps).

    Returns:
        0-d tensors on the device, global values: ``loss``, ``main``, and where they are on ``ssl``,
        ``spread_out``, ``grad_norm``, ``identical_views``. On a GPU the host waits once a step, for
        the number of touched rows.
    """
    plan = state.objective.planner.plan(batch, group)
    query = state.model.query_inputs(plan.batch.query, plan.batch.context, plan.batch.history)
    items = item_inputs(state.model, plan, state.config.ssl.dropout_rate)
    looked = state.model.look_up(query, items)
    query_bD, items_XD = state.model.embed(looked)
    losses = state.objective.losses(
        plan, query_bD, items_XD.split_with_sizes(plan.pass_sizes()), group
    )
    torch.autograd.backward(losses["loss"])
    parts = {name: value.detach() for name, value in losses.items()}
    totals = state.optimizer.step(looked.gradients(), parts, batch.step, group)
    if detail and plan.ssl:
        totals["identical_views"] = _identical_views(state.model, plan.ssl, items[-2:], group)
    state.step, state.epoch = batch.step + 1, batch.epoch
    return totals


def item_inputs(model: TwoTower, plan: Plan, dropout_rate: float) -> list[SideInputs]:
    """Inputs of the item passes: the batch, mixed negatives, and the two views of the SSL items."""
    table = model.items
    passes = [table.inputs(table.expand(one.items), one.hidden) for one in (plan.main, plan.mixed)]
    if plan.ssl is None:
        return passes
    entries = table.expand(plan.ssl.items)
    dropped: tuple[Tensor | None, Tensor | None] = (None, None)
    if dropout_rate > 0:
        slot_N, droppable_N = table.slots(entries)
        position_N = plan.ssl.position.index_select(0, entries.row)
        drawn = value_dropout(plan.draws, position_N, slot_N, table.max_entries, dropout_rate)
        dropped = (drawn[0] & droppable_N, drawn[1] & droppable_N)
    hidden = plan.ssl.hidden or (None, None)
    return passes + [table.inputs(entries, hidden[v], dropped[v]) for v in (0, 1)]


def _identical_views(
    model: TwoTower, ssl: SSLPass, views: list[SideInputs], group: Group
) -> Tensor:
    """Share of SSL views of the global batch that equal the view of another item; a collective."""
    items = torch.tensor(ssl.items).to(model.device)
    shares: list[Tensor] = []
    for view in views:
        bags = view.bags
        counts = bags.weights > 0
        signature = view_signature(
            bags.ids[counts], bags.bag[counts], model.items.num_sparse, view.dense
        )
        both = group.gather(torch.stack([signature, items], dim=1), ssl.sizes)
        shares.append(identical_share(both[:, 0], both[:, 1]))
    return torch.stack(shares).mean()
