"""The `model` section: two towers and what scores their outputs."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from twotower.core.embedding_config import Codebooks, Embedding, Embeddings, LowRank
from twotower.core.section import Count, Positive, Section, Share


class Model(Section):
    """Two towers: feature embeddings, concatenated, through an MLP; then a score of each pair."""

    embed_dim: Count = 32
    """Width of one feature's embedding."""

    towers: Literal["mlp", "identity"] = "mlp"
    """What becomes of the concatenated embeddings: an MLP, or nothing (both towers then have to be
    equally wide, and `hidden` and `out_dim` are not read)."""

    hidden: tuple[Count, ...] = (256,)
    """Widths of the hidden layers of each tower (ReLU); none makes it one linear layer."""

    out_dim: Count = 64
    """Width of the towers' output."""

    tower_init: Literal["independent", "aligned"] = "independent"
    """Initial weights of the query tower: its own, or the item tower's wherever both towers read
    the same table (or a dense feature of one name), and in all later layers. Aligned, a query and
    an item with common values begin close; with little data that is most of what a model knows."""

    scorer: Literal["cosine", "gmf", "neumf"] = "cosine"
    """Score of a query's vector p and an item's q: their cosine; `gmf`: the weighted product
    h . (p * q) (He et al. 2017, arXiv 1708.05031, eq. 9); `neumf`: that of their first halves plus
    an MLP over their second halves (eq. 12). Neither is normalised: take a temperature of 1."""

    scorer_hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (32, 16)
    """`neumf`: widths of the hidden layers of the MLP (ReLU)."""

    shared_tables: bool = True
    """Features that share a vocabulary also share the embedding table (as in Yi et al. 2019)."""

    history: Literal["mean", "attention"] = "mean"
    """How a history is encoded: mean of its embeddings, or causal self-attention, read at the
    newest item (SASRec, arXiv 1808.09781)."""

    history_blocks: Count = 1
    """`attention`: blocks, one after the other."""

    history_heads: Count = 1
    """`attention`: heads of each block; a divisor of embed_dim."""

    history_dropout: Share = 0.0
    """`attention`: dropout in training, of the embedded items and of what each attention and
    feed-forward layer adds; counted in 256ths."""

    init_std: Positive = 0.05
    """Standard deviation of the tables' initial values; default rows (id 0) start at zero. Chosen,
    not tuned."""

    embeddings: Embeddings = Embeddings()
    """How tables are stored, by side and feature; those not named are `full`."""

    @model_validator(mode="after")
    def _check(self) -> "Model":
        for side in ("item", "query", "context"):
            for name, kind in getattr(self.embeddings, side).items():
                _check_width(f"embeddings.{side}.{name}", kind, self.embed_dim)
        if self.embeddings.large is not None:
            _check_width("embeddings.large", self.embeddings.large, self.embed_dim)
        if self.scorer == "neumf" and self.towers == "mlp" and self.out_dim % 2:
            raise ValueError(
                f"out_dim: neumf reads two halves of it, {self.out_dim} is odd; make it even"
            )
        self.only_for("scorer_hidden", "scorer", "neumf")
        for name in ("history_blocks", "history_heads", "history_dropout"):
            self.only_for(name, "history", "attention")
        if self.embed_dim % self.history_heads:
            raise ValueError(
                f"history_heads: {self.history_heads} does not divide embed_dim ({self.embed_dim})"
            )
        return self


def _check_width(path: str, kind: Embedding, width: int) -> None:
    if isinstance(kind, Codebooks) and width % kind.num_subspaces:
        raise ValueError(
            f"{path}.num_subspaces: {kind.num_subspaces} does not divide embed_dim ({width})"
        )
    if isinstance(kind, LowRank) and kind.rank > width:
        raise ValueError(f"{path}.rank: {kind.rank} is above embed_dim ({width})")
