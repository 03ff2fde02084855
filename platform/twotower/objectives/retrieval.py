"""The main task: batch softmax over global candidates (arXiv 2007.12865 eq. 6).

Shape letters:
    b rows of this rank    C candidates: each rank's distinct items, then mixed negatives    D width
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from twotower.objectives.pairs import ScorePairs, pair_softmax_loss
from twotower.objectives.softmax import Candidates, Exclusions, softmax_loss


@dataclass(frozen=True, slots=True)
class RetrievalRows:
    """Which pairs this rank's rows are, and which items they are scored against."""

    items: Tensor
    """int64 ``(b,)``: each row's item."""

    own: Tensor
    """int64 ``(b,)``: the item that each row's query is itself; -1 where it is none."""

    weight: Tensor
    """float ``(b,)``: row weights divided by their global sum."""

    positive: Tensor
    """int64 ``(b,)``: column of each row's item, among this rank's candidates."""

    columns: Tensor
    """int64 ``(C,)``: item of each candidate."""

    log_counts: Tensor | None = None
    """float ``(C,)``: log of the rows that each candidate stands for; None where all are 1."""

    bias: Tensor | None = None
    """float ``(C,)``: ``-log q`` of each candidate (`logq`), on the positive's column too."""


def retrieval_loss(
    query_bD: Tensor,
    candidates_CD: Tensor,
    rows: RetrievalRows,
    *,
    temperature: float,
    pairs: ScorePairs | None = None,
    bf16: bool = False,
) -> Tensor:
    """This rank's part of the weighted mean cross-entropy; the ranks' parts add up to the loss.

    Column j is absent from row i when its item is i's item (the positive's own column stays) or
    the query itself. Rows of one rank that share an item share a column, which counts as often:
    the same sum as with a column a row, with fewer products.

    Args:
        query_bD: float.
        candidates_CD: float, with gradient.
        rows: ids and weights.
        temperature: tau > 0 over scores.
        pairs: what scores a pair; None = the dot product.
        bf16: matrix products in bfloat16.
    """
    keys_b2 = torch.stack([rows.items, rows.own], dim=1)
    exclusions = Exclusions(keys_b2, rows.columns, rows.positive)
    candidates = Candidates(candidates_CD, exclusions, rows.bias, rows.log_counts)
    if pairs is None:
        return softmax_loss(query_bD, candidates, rows.weight, temperature=temperature, bf16=bf16)
    return pair_softmax_loss(
        pairs, query_bD, candidates, rows.weight, temperature=temperature, bf16=bf16
    )
