"""The `train` section of the schema: optimisation and the life of a run."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from twotower.core.section import Count, Positive, Section


class Train(Section):
    """Optimisation and the life of a run."""

    batch_size: Count = 1024
    """GLOBAL batch, in rows; a multiple of data.lanes."""

    num_epochs: Count = 20
    """Most passes over the train part."""

    num_workers: Count = 1
    """Data-parallel workers."""

    threads: Annotated[int, Field(ge=0)] = 0
    """Torch threads a worker; 0 = its share of the machine's CPUs."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where a worker computes; `auto` takes a GPU where the cluster has one for every worker."""

    optimizer: Literal["adagrad", "adagrad_rowwise", "adamw"] = "adagrad"
    """`adagrad`: element-wise; `adagrad_rowwise`: one accumulator a table row; `adamw`: lazy on
    tables."""

    learning_rate: Positive = 0.05
    """Peak learning rate."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled decay (`adamw`) of the matrices of towers, history and scorer; never of tables, of
    embeddings or of positions."""

    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Decay of the learning rate to zero over the run, after the warm-up."""

    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of linear warm-up, fewer than the run has."""

    clip_norm: Positive | None = None
    """Largest L2 norm of the global gradient, tables included; null = no clipping."""

    precision: Literal["float32", "bf16"] = "float32"
    """Arithmetic of the matrix products of towers and softmax in training; tables, sums, losses and
    norms stay float32, and so does evaluation."""

    validate_every: Count = 1
    """Epochs between validations."""

    checkpoint_every: Count = 200
    """Steps between checkpoints; one is also written at each validation."""

    checkpoint_async: bool = True
    """Write checkpoints beside training; false makes training wait for the disk."""

    log_every: Count = 50
    """Steps between lines of metrics.jsonl; each waits for the device once."""

    keep_checkpoints: Count = 2
    """Newest checkpoints kept, beside the best."""

    patience: Annotated[int, Field(ge=0)] = 0
    """Validations without a better selection metric before the run stops early; 0 = never."""

    max_failures: Annotated[int, Field(ge=0)] = 3
    """Worker-group restarts before the run fails."""

    start_timeout_s: Positive = 120.0
    """Longest wait for workers to start, in seconds."""

    collective_timeout_s: Positive = 60.0
    """Longest a collective may hang before its worker is declared dead, in seconds."""

    @model_validator(mode="after")
    def _check(self) -> "Train":
        self.only_for("weight_decay", "optimizer", "adamw")
        return self
