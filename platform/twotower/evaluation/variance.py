"""What the variance of a mean over training seeds and queries is made of.

The model: value of seed s on query q = mean + seed s + query q + their interaction, all but the
mean random. A model is good or bad as a whole (seed), a query is in favour of a method or not
(query), and a model happens to hit this query or not (interaction, mostly the largest by far).

Shape letters:
    S seeds    U units drawn (queries or groups)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twotower.evaluation.resampling import Sums

Number = float | NDArray[Any]


@dataclass(frozen=True, slots=True)
class Variance:
    """Estimated parts of the variance of the mean; arrays where many tables were split at once."""

    seed: Number
    """Of the seeds' means, over S. Holds the interaction's share too."""

    query: Number
    """Of the mean of the seed-averaged values over units. Holds the interaction's share too."""

    rest: Number
    """The interaction's share alone, which must be counted once."""

    num_seeds: int
    num_units: int

    def total(self) -> Number:
        """Variance of the mean: seed + query - rest, and no less than seed or query alone."""
        return np.maximum(self.query, self.seed) + np.maximum(
            0.0, np.minimum(self.query, self.seed) - self.rest
        )

    def df(self) -> Number:
        """Degrees of freedom of `total` for intervals, no fewer than the scarcer part has.

        Satterthwaite's; but where the seeds' means vary no more than the interaction makes them,
        `total` is `query`, and so are its degrees. Satterthwaite's formula would charge for a part
        that is not there: with it intervals of two methods that differ in nothing but noise cover
        98 %, not 95.
        """
        has_seeds = np.greater(self.seed, self.rest)
        return np.where(has_seeds, self.satterthwaite(), self.num_units - 1)

    def satterthwaite(self) -> Number:
        """Degrees of freedom of `total` by Satterthwaite's formula alone, for p-values.

        A family of many claims asks for p-values far below 0.05, where `df` would be too bold: that
        the seeds vary little may be luck.
        """
        seeds, units = self.num_seeds - 1, self.num_units - 1
        square = (
            np.square(self.seed) / max(1, seeds)
            + np.square(self.query) / units
            + np.square(self.rest) / (max(1, seeds) * units)
        )
        total = np.square(self.total())
        out = np.full_like(total, units)
        found = np.divide(total, square, out=out, where=np.greater(square, 0))
        return np.maximum(found, min(seeds, units))

    def at(self, num_seeds: int) -> "Variance":
        """What the parts would be with another number of seeds of the same kind."""
        share = self.num_seeds / num_seeds
        seed = np.maximum(0.0, self.seed - self.rest) * share
        query = np.maximum(0.0, self.query - self.rest)
        rest = self.rest * share
        return Variance(seed + rest, query + rest, rest, num_seeds, self.num_units)


def split(sums: Sums) -> tuple[Number, Variance]:
    """Mean over seeds and queries, and the parts of its variance.

    Sums of a unit stand for its queries (cluster-robust, as in `significance`), so units of any
    size and any likeness within are allowed. Units without queries don't count.

    Args:
        sums: two units or more with queries; leading axes of ``values`` are separate tables.

    Returns:
        Mean and variance; with one seed all of the variance is `query`.
    """
    kept_U = sums.sizes > 0
    sizes_U, values_SU = sums.sizes[kept_U], sums.values[..., kept_U]
    num_seeds, num_units = values_SU.shape[-2:]
    size = sizes_U.sum()
    means_S = values_SU.sum(axis=-1) / size
    mean = means_S.mean(axis=-1)
    apart_SU = values_SU - means_S[..., None] * sizes_U
    apart_U = apart_SU.mean(axis=-2)
    scale = num_units / (num_units - 1) / size**2
    query = scale * np.square(apart_U).sum(axis=-1)
    if num_seeds == 1:
        return mean, Variance(np.zeros_like(query), query, np.zeros_like(query), 1, num_units)
    pairs = num_seeds * (num_seeds - 1)
    seed = np.square(means_S - mean[..., None]).sum(axis=-1) / pairs
    rest_SU = apart_SU - apart_U[..., None, :]
    rest = scale * np.square(rest_SU).sum(axis=(-2, -1)) / pairs
    return mean, Variance(seed, query, rest, num_seeds, num_units)
