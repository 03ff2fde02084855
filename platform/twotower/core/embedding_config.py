"""How an embedding table is stored: one of seven kinds, chosen feature by feature.

In an experiment's YAML:

    model:
      embeddings:
        item: {package: {kind: mgqe, num_subspaces: 8}, summary_words: {kind: low_rank, rank: 8}}
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from twotower.core.section import Count, Positive, Section, Text

_SUM = 1e-6


class Full(Section):
    """One float32 row a value."""

    kind: Literal["full"]
    """Which kind."""


class Hashed(Section):
    """A value's row is the sum of its buckets' rows (arXiv 1709.03933, hashes unweighted)."""

    kind: Literal["hashed"]
    """Which kind."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Buckets, as a share of the table's values."""

    hashes: Annotated[int, Field(ge=1, le=8)] = 2
    """Buckets that each value reads."""


class LowRank(Section):
    """A row is a short row times a matrix that all values share."""

    kind: Literal["low_rank"]
    """Which kind."""

    rank: Count
    """Width of the short rows; at most `model.embed_dim`."""


class Scalar(Section):
    """A number is a multiple of its column's step, which is learned (LSQ, arXiv 1902.08153)."""

    kind: Literal["scalar"]
    """Which kind."""

    bits: Literal[4, 8] = 8
    """Of one number."""


class Codebooks(Section):
    """What all tables of codes have: a row is D centroids, each one of K of its subspace."""

    num_subspaces: Count = 8
    """D: codes of a value; divides `model.embed_dim`."""

    batch_norm: bool = True
    """Normalise the responses of each centroid over the batch before the largest is taken
    (arXiv 1908.09756), so that no centroid takes all values."""

    momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of a new batch in the running statistics, which evaluation and export use."""

    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps in which rows are read as they are; k-means over them then makes the centroids.
    0 = centroids are drawn as rows are."""

    revive_every: Annotated[int, Field(ge=0)] = 200
    """Steps between looks for centroids that no value uses; each is moved to a value. 0 = never."""


class NearestCentroid(Codebooks):
    """Codes name the nearest centroid; its gradient goes to the value as if they were one."""

    codebook: Annotated[float, Field(ge=0)] = 1.0
    """Multiplier of the mean squared distance that pulls centroids to the values they stand for."""

    commitment: Annotated[float, Field(ge=0)] = 0.0
    """Multiplier of the mean squared distance that pulls values to their centroids."""


class DPQVQ(NearestCentroid):
    """Differentiable product quantisation by nearest centroids (arXiv 1908.09756 sec. 2.3)."""

    kind: Literal["dpq_vq"]
    """Which kind."""

    num_centroids: Annotated[int, Field(ge=1, le=65536)] = 256
    """K."""


class DPQSX(Codebooks):
    """Differentiable product quantisation by softmax: keys choose, values are read.

    arXiv 1908.09756 sec. 2.2.
    """

    kind: Literal["dpq_sx"]
    """Which kind."""

    num_centroids: Annotated[int, Field(ge=1, le=65536)] = 256
    """K."""

    temperature: Positive = 1.0
    """Of the softmax whose gradient stands for that of the choice."""


class Tier(Section):
    """Values of neighbouring frequency."""

    share: Annotated[float, Field(ge=0, le=1)]
    """Of the table's values."""

    num_centroids: Annotated[int, Field(ge=1, le=65536)]
    """Centroids of each subspace that they may use: the first ones of the shared codebook."""

    num_subspaces: Count | None = None
    """Subspaces in which they choose, the first ones (the others read centroid 0); null = all."""


class MGQE(NearestCentroid):
    """Multi-granular quantised embeddings: rare values choose among fewer centroids.

    One codebook for all tiers, nearest centroid (arXiv 2002.08530).
    """

    kind: Literal["mgqe"]
    """Which kind."""

    tiers: Annotated[tuple[Tier, ...], Field(min_length=1)] = (
        Tier(share=0.1, num_centroids=256),
        Tier(share=0.9, num_centroids=64),
    )
    """Most frequent first, by the train counts of values; shares sum to 1."""

    @model_validator(mode="after")
    def _check(self) -> "MGQE":
        total = sum(tier.share for tier in self.tiers)
        if abs(total - 1) > _SUM:
            raise ValueError(f"tiers: shares must sum to 1, got {total:g}")
        if len(self.tiers) > 255:
            raise ValueError(f"tiers: at most 255, got {len(self.tiers)}")
        for tier in self.tiers:
            if tier.num_subspaces is not None and tier.num_subspaces > self.num_subspaces:
                raise ValueError(
                    f"tiers: {tier.num_subspaces} subspaces, but num_subspaces is "
                    f"{self.num_subspaces}"
                )
        return self


Embedding: TypeAlias = Full | Hashed | LowRank | Scalar | DPQVQ | DPQSX | MGQE
Kind = Annotated[Embedding, Field(discriminator="kind")]


class Embeddings(Section):
    """Tables that aren't `full`, by feature; a feature that shares a table has its owner's."""

    large: Kind | None = None
    """Of every table that has `large_from` values or more and isn't named below; null = `full`."""

    large_from: Count = 4096
    """Values, reserved ids counted: below it codes and centroids would take as much as rows."""

    item: dict[Text, Kind] = Field(default_factory=dict[str, Kind])
    """Of item features."""

    query: dict[Text, Kind] = Field(default_factory=dict[str, Kind])
    """Of query features that have a table of their own."""

    context: dict[Text, Kind] = Field(default_factory=dict[str, Kind])
    """Of the log's own features that have a table of their own."""
