"""The order in which exact scores are added, the same in torch, in NumPy and on every device."""

from typing import Any


def tree_sum(terms: Any) -> Any:
    """Sum over the last axis, of at least 1, by halves: equal terms give equal bits anywhere.

    Args:
        terms: float64 ``(..., n)``, an array or a tensor; written to.

    Returns:
        ``(...)``, of the same kind.
    """
    width = terms.shape[-1]
    while width > 1:
        half = width // 2
        terms[..., :half] += terms[..., width - half : width]
        width -= half
    return terms[..., 0]
