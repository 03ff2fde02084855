"""The spread-out baseline SO: item embeddings of a batch push each other away.

Sources: arXiv 1708.06320, and arXiv 2007.12865 sec. 3.2 for the softmax form.

Shape letters:
    b distinct items of this rank    C those of all ranks    D width
"""

from typing import Literal

import torch
from torch import Tensor

from twotower.objectives.softmax import Candidates, Exclusions, softmax_loss


def spread_out_loss(
    kind: Literal["softmax", "squared"],
    candidates_CD: Tensor,
    items_C: Tensor,
    counts_C: Tensor,
    own: slice,
    *,
    temperature: float,
) -> Tensor:
    """This rank's part of the regulariser, a mean over the N real rows of the global batch.

    softmax: ``-(1/N) sum_i log(e^{1/tau} / (e^{1/tau} + sum_{j != i} e^{s_ij / tau}))``;
    squared: ``(1/N) sum_i sum_{j != i} <z_i, z_j>^2``. Rows of one item are no pairs.

    Args:
        kind: the form.
        candidates_CD: item embeddings of all ranks, rows of L2 norm 1, with gradient.
        items_C: int64, their items.
        counts_C: float, rows that each stands for.
        own: this rank's part of the candidates; it need not hold a gradient of its own, since
            gathering sums what each rank's part adds.
        temperature: tau of the softmax form: that of the main task.
    """
    positive_b = torch.arange(own.start, own.stop, device=items_C.device)
    exclusions = Exclusions(items_C[own, None], items_C, positive_b)
    weight_b = counts_C[own] / counts_C.sum()
    if kind == "softmax":
        # A row against itself scores 1, so the softmax code with itself as positive is this form.
        candidates = Candidates(candidates_CD, exclusions, log_counts=counts_C.log())
        return softmax_loss(candidates_CD[own], candidates, weight_b, temperature=temperature)
    pairs_bC = weight_b[:, None] * counts_C
    exclusions.fill_(pairs_bC, 0, 0)
    pairs_bC.scatter_(1, positive_b[:, None], 0)
    return ((candidates_CD[own] @ candidates_CD.T).square() * pairs_bC).sum()
