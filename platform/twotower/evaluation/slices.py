"""Slices of the truth by how often the true item was seen in the full train part.

Items with a count > 0, most frequent first (equal counts by the tie rule, so that sizes are exact):
head is the first 10 % (rounded up), torso goes on to 50 % (rounded up), tail is the rest. Unseen
items have count 0. `not_head` is everything but head: torso, tail and unseen together.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from twotower.core.types import Int64
from twotower.evaluation.ties import UInt64, tie_ranks

Mask = NDArray[np.bool_]

DEFINITIONS = {
    "head": "first 10 % (rounded up) of items with full-train count > 0, by count, ties by tie key",
    "torso": "after head up to 50 % (rounded up) of items with full-train count > 0",
    "tail": "items with full-train count > 0 after torso",
    "unseen": "items with full-train count 0",
    "not_head": "all items but head",
}
"""What each name means, as the certificate has it."""


def slice_masks(full_counts: Int64, tie_keys: UInt64, names: Sequence[str]) -> dict[str, Mask]:
    """Which items each named slice holds.

    Args:
        full_counts: int64 ``(N,)``: train pairs of every item, before `data.fraction`.
        tie_keys: uint64 ``(N,)``.
        names: keys of `DEFINITIONS`.

    Returns:
        name -> bool ``(N,)``.
    """
    order = np.lexsort((tie_ranks(tie_keys), -full_counts))
    num_seen = int(np.count_nonzero(full_counts > 0))
    head_end, torso_end = -(-num_seen // 10), -(-num_seen // 2)
    places = {
        "head": order[:head_end],
        "torso": order[head_end:torso_end],
        "tail": order[torso_end:num_seen],
        "unseen": order[num_seen:],
        "not_head": order[head_end:],
    }
    masks: dict[str, Mask] = {}
    for name in names:
        masks[name] = np.zeros(len(full_counts), dtype=np.bool_)
        masks[name][places[name]] = True
    return masks
