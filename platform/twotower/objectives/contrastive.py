"""The self-supervised task: two views of one item must agree (arXiv 2007.12865 eq. 3).

Shape letters:
    n items of this rank    C items of the global SSL batch    D width    N entries of all bags
"""

import numpy as np
import torch
from torch import Tensor

from twotower.objectives.softmax import Candidates, Exclusions, softmax_loss

_MIX = (0x7FB5D329728EA185, 0x1B873593CC9E2D51)
"""Odd multipliers of a 64-bit mixer; chosen, not tuned."""


def contrastive_loss(
    anchor_nD: Tensor,
    candidates_CD: Tensor,
    items: tuple[Tensor, Tensor],
    first: int,
    *,
    temperature: float,
    bf16: bool = False,
) -> Tensor:
    """This rank's part of the mean cross-entropy of view 1 over the view 2 of the global batch.

    One-directional. Columns of the anchor's own item are absent, but for its own view 2.

    Args:
        anchor_nD: view 1 of this rank's items, rows of L2 norm 1.
        candidates_CD: view 2 of the global batch's items, with gradient.
        items: int64 items of the anchors ``(n,)`` and of the candidates ``(C,)``.
        first: column of this rank's first item; the next ones follow.
        temperature: tau > 0 over cosines.
        bf16: matrix products in bfloat16.
    """
    own_n, columns_C = items
    positive_n = torch.arange(first, first + len(anchor_nD), device=anchor_nD.device)
    candidates = Candidates(candidates_CD, Exclusions(own_n[:, None], columns_C, positive_n))
    weight_n = anchor_nD.new_full((len(anchor_nD),), 1 / len(columns_C))
    return softmax_loss(anchor_nD, candidates, weight_n, temperature=temperature, bf16=bf16)


def view_signature(ids_N: Tensor, bag_N: Tensor, num_features: int, dense_nV: Tensor) -> Tensor:
    """A 64-bit signature of what each row shows: equal for equal sets of (feature, value).

    Args:
        ids_N: int, value of each entry that counts.
        bag_N: int, (row * num_features + feature) of each entry.
        num_features: bags a row.
        dense_nV: float, dense numbers of each row.

    Returns:
        int64 ``(n,)``.
    """
    bag = bag_N.long()
    entries_N = _mix(ids_N.long() * num_features + bag % num_features)
    bits_nV = dense_nV.float().contiguous().view(torch.int32).long()
    places_V = torch.arange(dense_nV.shape[1], device=bag.device)
    dense_n = _mix(_mix(bits_nV) + places_V).sum(1)
    return dense_n.index_add_(0, bag // max(num_features, 1), entries_N)


def _mix(values: Tensor) -> Tensor:
    """Scatter int64 values over all 64 bits; equal values stay equal."""
    mixed = values + 1
    for multiplier in _MIX:
        mixed = mixed * multiplier
        mixed = mixed ^ ((mixed >> 32) & 0xFFFFFFFF)
    return mixed


def identical_share(signature_C: Tensor, items_C: Tensor) -> Tensor:
    """Share of rows whose view equals the view of another item; 0-d. Waits for the device."""
    _, view_C = np.unique(signature_C.cpu().numpy(), return_inverse=True)
    pairs = np.unique(np.stack([view_C, items_C.cpu().numpy()]), axis=1)
    items_by_view = np.bincount(pairs[0])
    return torch.tensor((items_by_view[view_C] > 1).mean(), device=signature_C.device)
