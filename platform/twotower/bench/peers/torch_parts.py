"""The towers and the plain loss of W1 in PyTorch, shared by its peers.

Shape letters: B batch, F features of a side, E `EMBED_DIM`, O `OUT_DIM`.
"""

import common
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def tower(features: int) -> nn.Sequential:
    """From concatenated embeddings (B, F * E) to (B, O), not yet normed."""
    first, second = common.HIDDEN
    return nn.Sequential(
        nn.Linear(features * common.EMBED_DIM, first),
        nn.ReLU(),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Linear(second, common.OUT_DIM),
    )


def view_masks(rows: int, features: int) -> tuple[Tensor, Tensor]:
    """Two random masks (rows, features * E) of 0 and 1, each other's complement."""
    masked = torch.rand(rows, features).argsort(1) < common.MASKED
    masked_BFE = masked.repeat_interleave(common.EMBED_DIM, 1)
    return (~masked_BFE).float(), masked_BFE.float()


def in_batch_softmax(x_BO: Tensor, y_BO: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of each row of x against all of y; its own is the truth."""
    return F.cross_entropy(x_BO @ y_BO.T / temperature, torch.arange(len(x_BO)))


def plain_loss(
    query_BFE: Tensor, item_BFE: Tensor, towers: tuple[nn.Module, nn.Module], *, ssl: bool
) -> Tensor:
    """W1's loss as one writes it down: one pass of the query tower, one or three of the item's."""
    query_tower, item_tower = towers

    def items(x_BFE: Tensor) -> Tensor:
        return F.normalize(item_tower(x_BFE), dim=1)

    query_BO = F.normalize(query_tower(query_BFE), dim=1)
    loss = in_batch_softmax(query_BO, items(item_BFE), common.TEMPERATURE)
    if ssl:
        rows, width = item_BFE.shape
        one, other = view_masks(rows, width // common.EMBED_DIM)
        views = in_batch_softmax(
            items(item_BFE * one), items(item_BFE * other), common.SSL_TEMPERATURE
        )
        loss = loss + common.SSL_WEIGHT * views
    return loss
