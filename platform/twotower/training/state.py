"""Everything a run's future depends on: model, optimizer, streaming statistics, place in the run.

No generator state exists: initial values and draws are functions of the seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from twotower.core.config import ExperimentConfig
from twotower.core.errors import RunError
from twotower.core.types import Float64, Int64, Side
from twotower.models.build import ModelInputs, build
from twotower.models.two_tower import TwoTower
from twotower.objectives.plan import ObjectiveInputs
from twotower.objectives.total import Objective
from twotower.training.optim import Optimizer


@dataclass(frozen=True, slots=True)
class TrainInputs:
    """What the data layer hands over."""

    item: Side
    """Features of the catalogue."""

    query: Side
    """Features of the query table, without history and context."""

    query_items: Int64
    """int64 ``(Q,)``: the catalogue row that each query is itself, -1 where none."""

    item_counts: Int64
    """int64 ``(N,)``: train rows of each item; read by ``loss.logq: counted``."""

    context: Mapping[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    """Context feature -> (table, rows of the table)."""

    value_counts: Mapping[str, Int64] = field(default_factory=dict[str, Int64])
    """Table -> int64 ``(V,)``, train rows of each value; of tables with tiers (`mgqe`)."""

    mutual_information: Float64 | None = None
    """``(F, F)`` of the kind ``ssl.mi``, in the order of ``item.features``; read by `cfm`."""


@dataclass(slots=True)
class TrainState:
    """The state of a run; `step` and `epoch` are saved by the loop beside the tensors."""

    config: ExperimentConfig
    model: TwoTower
    objective: Objective
    optimizer: Optimizer
    step: int = 0
    """Steps done."""

    epoch: int = 0
    """Epoch of the last step done."""

    @classmethod
    def build(
        cls,
        config: ExperimentConfig,
        inputs: TrainInputs,
        *,
        total_steps: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "TrainState":
        """Build the state at step 0; every rank builds the same.

        Args:
            config: the experiment.
            inputs: encoded data.
            total_steps: steps of the whole run, what schedules end at.
            device: where the model lives.
            dtype: type of weights and losses; float64 is for tests.
        """
        at = torch.device(device)
        model = build(
            config, ModelInputs(inputs.item, inputs.query, inputs.context, inputs.value_counts)
        )
        model = model.to(device=at, dtype=dtype)
        objective = Objective(
            config,
            ObjectiveInputs(
                tuple(f.name for f in inputs.item.features),
                inputs.query_items,
                inputs.item_counts,
                inputs.mutual_information,
            ),
            at,
            model.scorer.pairs,
        )
        return cls(config, model, objective, Optimizer(config.train, model, total_steps))

    def state_tensors(self) -> dict[str, dict[str, Tensor]]:
        """Plain tensors, live (a writer that works beside training must copy them).

        Returns:
            ``model``: weights, tables and which of their rows were ever touched; ``optimizer``:
            ``dense.*``, ``table.*``, and ``logq.*`` where logQ is streaming.
        """
        model = {name: value.detach() for name, value in self.model.state_dict().items()}
        logq = {f"logq.{k}": v for k, v in self.objective.state_tensors().items()}
        return {"model": model, "optimizer": self.optimizer.state_tensors() | logq}

    def load_state_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Copy saved tensors into the state; names and shapes must be those of `state_tensors`.

        Raises:
            RunError: naming a tensor that is missing, left over, or of another shape.
        """
        self.optimizer.prepare_state()
        own = self.state_tensors()
        for part, live in own.items():
            given = tensors[part]
            if unknown := sorted(given.keys() ^ live.keys()):
                kind = "missing in" if unknown[0] in live else "unknown in"
                raise RunError(f"{part} tensor {unknown[0]!r} is {kind} the checkpoint")
            for name, value in live.items():
                if given[name].shape != value.shape:
                    raise RunError(
                        f"{part} tensor {name!r} has shape {tuple(given[name].shape)} in the "
                        f"checkpoint, {tuple(value.shape)} in this run"
                    )
                value.copy_(given[name])
