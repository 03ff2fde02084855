"""One training step."""

import torch
from torch import Tensor

from twotower.core.types import Batch
from twotower.models.features import SideInputs, SideTable
from twotower.models.noise import Noise
from twotower.models.towers import PairedViews
from twotower.objectives.contrastive import identical_share, view_signature
from twotower.objectives.group import SINGLE, Group
from twotower.objectives.plan import SSLPass
from twotower.training.ssl_inputs import SSLInputs, ssl_inputs
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
        ``spread_out``, ``grad_norm``, ``identical_views``, ``codebook`` (no part of ``loss``) and
        ``codes_differ``. On a GPU the host waits once a step, for
        the number of touched rows; tables with codebooks wait several times each.
    """
    plan = state.objective.planner.plan(batch, group)
    rows, noise = plan.batch, Noise(plan.draws.seed, plan.draws.step, plan.batch.position)
    query = state.model.query_inputs(rows.query, rows.context, rows.history, noise)
    table = state.model.items
    items = [table.inputs(table.expand(p.items), p.hidden) for p in (plan.main, plan.mixed)]
    ssl = ssl_inputs(table, plan, items[0], state.config.ssl.dropout_rate)
    if not state.model.store.is_full:
        items[0] = items[0].standing_for(plan.examples())
    looked = state.model.look_up(query, *_joined(items, ssl), group.sum_, detail=detail)
    query_bD, items_XD = state.model.embed(looked)
    losses = state.objective.losses(
        plan, query_bD, items_XD.split_with_sizes(plan.pass_sizes()), group
    )
    torch.autograd.backward(losses["loss"])
    parts = {name: value.detach() for name, value in losses.items()} | looked.lookup.own_losses()
    totals = state.optimizer.step(looked.gradients(), parts, batch.step, group)
    if detail and plan.ssl and ssl:
        totals["identical_views"] = _identical_views(table, plan.ssl, ssl.views(), group)
    state.step, state.epoch = batch.step + 1, batch.epoch
    return totals


def _joined(
    items: list[SideInputs], ssl: SSLInputs | None
) -> tuple[list[SideInputs], PairedViews | None]:
    if ssl is None:
        return items, None
    return (items, ssl.paired) if ssl.paired else (items + ssl.views(), None)


def _identical_views(
    table: SideTable, ssl: SSLPass, views: list[SideInputs], group: Group
) -> Tensor:
    """Share of SSL views of the global batch that equal the view of another item; a collective."""
    items = torch.tensor(ssl.items).to(table.starts.device)
    shares: list[Tensor] = []
    for view in views:
        bags = view.bags
        counts = bags.weights > 0
        signature = view_signature(bags.ids[counts], bags.bag[counts], table.num_sparse, view.dense)
        both = group.gather(torch.stack([signature, items], dim=1), ssl.sizes)
        shares.append(identical_share(both[:, 0], both[:, 1]))
    return torch.stack(shares).mean()
