"""Optimizers: dense weights by `torch.optim`, tables by rules that touch only a batch's rows.

Shape letters:
    R rows of the store    E width    U touched rows of the global batch
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from twotower.core.train_config import Train
from twotower.models.embeddings.bags import RowGradients, sum_by_row
from twotower.models.two_tower import TwoTower
from twotower.objectives.group import Group

_ADAGRAD_EPS = 1e-10
_ADAM_BETAS, _ADAM_EPS = (0.9, 0.999), 1e-8
_CLIP_EPS = 1e-6
"""PyTorch's defaults."""


class TableRule(Protocol):
    """How the touched rows of the store move."""

    def update_(self, weight: Tensor, gradients: RowGradients, rate: float) -> None:
        """Move ``weight`` ``(R, E)`` in place by the global batch's gradient of each row."""
        ...

    def state_tensors(self) -> dict[str, Tensor]:
        """The rule's state, live, by name."""
        ...


class AdagradRows:
    """Element-wise Adagrad: equals `torch.optim.Adagrad` on the dense gradient."""

    def __init__(self, weight: Tensor) -> None:
        self._sum = torch.zeros_like(weight)

    def update_(self, weight: Tensor, gradients: RowGradients, rate: float) -> None:
        """``sum += g^2; w -= rate * g / (sqrt(sum) + eps)``."""
        rows, grad_UE = gradients.rows.long(), gradients.values
        sum_UE = self._sum.index_select(0, rows).addcmul_(grad_UE, grad_UE)
        self._sum.index_copy_(0, rows, sum_UE)
        _subtract_(weight, rows, grad_UE, sum_UE.sqrt_().add_(_ADAGRAD_EPS), rate)

    def state_tensors(self) -> dict[str, Tensor]:
        """``sum`` ``(R, E)``."""
        return {"sum": self._sum}


class AdagradRowwise:
    """Adagrad with one accumulator a row, fed with the mean square of the row's gradient."""

    def __init__(self, weight: Tensor, idle_R: Tensor | None = None) -> None:
        """Build.

        Args:
            weight: ``(R, E)``.
            idle_R: share of each row's numbers that are never used; None = none.
        """
        self._sum = weight.new_zeros(len(weight))
        self._idle = idle_R

    def update_(self, weight: Tensor, gradients: RowGradients, rate: float) -> None:
        """``sum += mean(g^2); w -= rate * g / (sqrt(sum) + eps)``."""
        rows, grad_UE = gradients.rows.long(), gradients.values
        square_U = grad_UE.square().mean(1)
        if self._idle is not None:
            square_U = square_U / (1 - self._idle[rows])
        sum_U = self._sum[rows].add_(square_U)
        self._sum[rows] = sum_U
        _subtract_(weight, rows, grad_UE, sum_U.sqrt_().add_(_ADAGRAD_EPS)[:, None], rate)

    def state_tensors(self) -> dict[str, Tensor]:
        """``sum`` ``(R,)``."""
        return {"sum": self._sum}


class AdamRows:
    """Lazy Adam: a row's moments decay, and its bias is corrected, by the row's own updates.

    A row that every step touches moves as under `torch.optim.AdamW` without decay.
    """

    def __init__(self, weight: Tensor) -> None:
        self._mean, self._square = torch.zeros_like(weight), torch.zeros_like(weight)
        self._count = torch.zeros(len(weight), dtype=torch.int64, device=weight.device)

    def update_(self, weight: Tensor, gradients: RowGradients, rate: float) -> None:
        """Adam's update with each row's own count of steps."""
        rows, grad_UE = gradients.rows.long(), gradients.values
        first, second = _ADAM_BETAS
        count_U = self._count[rows] + 1
        mean_UE = self._mean.index_select(0, rows).lerp_(grad_UE, 1 - first)
        square_UE = self._square.index_select(0, rows).mul_(second)
        square_UE.addcmul_(grad_UE, grad_UE, value=1 - second)
        self._count[rows] = count_U
        self._mean.index_copy_(0, rows, mean_UE)
        self._square.index_copy_(0, rows, square_UE)
        exponent_U1 = count_U[:, None].to(weight.dtype)
        root_UE = (square_UE / (1 - second**exponent_U1)).sqrt_().add_(_ADAM_EPS)
        _subtract_(weight, rows, mean_UE / (1 - first**exponent_U1), root_UE, rate)

    def state_tensors(self) -> dict[str, Tensor]:
        """``mean`` and ``square`` ``(R, E)``, ``count`` ``(R,)``."""
        return {"mean": self._mean, "square": self._square, "count": self._count}


def _subtract_(weight: Tensor, rows: Tensor, above: Tensor, below: Tensor, rate: float) -> None:
    """``weight[rows] -= rate * above / below``; whole rows out and in, faster than `index_add_`."""
    moved_UE = weight.index_select(0, rows).addcdiv_(above, below, value=-rate)
    weight.index_copy_(0, rows, moved_UE)


def _table_rule(train: Train, model: TwoTower) -> TableRule:
    store = model.store
    if train.optimizer == "adagrad_rowwise":
        return AdagradRowwise(store.weight, store.idle_share())
    return AdagradRows(store.weight) if train.optimizer == "adagrad" else AdamRows(store.weight)


def learning_rate(train: Train, step: int, total_steps: int) -> float:
    """Learning rate of a step: linear warm-up, then constant, or to zero at the end of the run.

    Args:
        train: peak, warm-up and schedule.
        step: from 0.
        total_steps: steps of the whole run.
    """
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / train.warmup_steps
    done = (step - train.warmup_steps) / max(1, total_steps - train.warmup_steps)
    done = min(1.0, done)
    if train.schedule == "cosine":
        return train.learning_rate * (1 + math.cos(math.pi * done)) / 2
    if train.schedule == "linear":
        return train.learning_rate * (1 - done)
    return train.learning_rate


class Optimizer:
    """One synchronous update of all weights from the sum of the ranks' gradients."""

    def __init__(self, train: Train, model: TwoTower, total_steps: int) -> None:
        """Build; the model must already be on its device, in its type."""
        self._train, self._total = train, total_steps
        self._store = model.store
        self._named = dict(model.named_parameters())
        self._flat = _FlatGradients(list(self._named.values()), self._store.weight)
        self._dense = _dense_optimizer(train, model)
        self._tables = _table_rule(train, model)

    @torch.no_grad()
    def step(
        self, gradients: RowGradients, riders: Mapping[str, Tensor], step: int, group: Group
    ) -> dict[str, Tensor]:
        """Sum the gradients over ranks, clip, update; a collective.

        Args:
            gradients: this rank's gradient of the store. The dense weights' gradients lie in the
                weights, as the backward pass left them; they are zero afterwards.
            riders: 0-d numbers to sum over ranks in the same message.
            step: step of the run, from 0.
            group: the workers.

        Returns:
            The riders' sums, and ``grad_norm`` (L2, of the global gradient before clipping) where
            ``clip_norm`` is set.
        """
        out = dict(zip(riders, self._flat.sum_(list(riders.values()), group), strict=True))
        gradients = exchange_rows(gradients, group)
        if self._train.clip_norm is not None:
            both = (self._flat.gradients, gradients.values)
            norm = torch.stack([g.square().sum() for g in both]).sum().sqrt()
            for gradient in both:
                gradient.mul_((self._train.clip_norm / (norm + _CLIP_EPS)).clamp(max=1))
            out["grad_norm"] = norm
        self.apply(gradients, learning_rate(self._train, step, self._total))
        self._flat.gradients.zero_()
        return out

    @property
    def dense_gradient(self) -> Tensor:
        """Gradients of the dense weights, one after the other: the buffer itself."""
        return self._flat.gradients

    def apply(self, rows: RowGradients, rate: float) -> None:
        """Move all weights by the global gradient: ``rows`` of the store, and `dense_gradient`."""
        for settings in self._dense.param_groups:
            settings["lr"] = rate
        self._dense.step()
        self._tables.update_(self._store.weight, rows, rate)
        self._store.touched[rows.rows.long()] = True

    def state_tensors(self) -> dict[str, Tensor]:
        """State by name: ``dense.<weight>.<key>`` and ``table.<key>``; live tensors."""
        dense = {
            f"dense.{name}.{key}": value
            for name, weight in self._named.items()
            for key, value in self._dense.state[weight].items()
        }
        return dense | {f"table.{k}": v for k, v in self._tables.state_tensors().items()}

    def prepare_state(self) -> None:
        """Make the dense optimizer's state exist before it is loaded: AdamW makes it late."""
        for weight in self._named.values():
            state = self._dense.state[weight]
            if isinstance(self._dense, torch.optim.AdamW) and not state:
                # The fused optimizer wants its count beside the weight.
                state["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)
                state["exp_avg"] = torch.zeros_like(weight)
                state["exp_avg_sq"] = torch.zeros_like(weight)


class _FlatGradients:
    """Gradients of the dense weights as views of one buffer, so that one message sums them all."""

    def __init__(self, weights: Sequence[nn.Parameter], like: Tensor) -> None:
        total = sum(weight.numel() for weight in weights)
        self._buffer = like.new_zeros(total + _MAX_RIDERS)
        self.gradients = self._buffer[:total]
        sizes = [weight.numel() for weight in weights]
        for weight, part in zip(weights, self.gradients.split_with_sizes(sizes), strict=True):
            weight.grad = part.view_as(weight)

    def sum_(self, riders: Sequence[Tensor], group: Group) -> list[Tensor]:
        """Sum gradients and riders over ranks; the riders' sums, as tensors of their own."""
        total = len(self.gradients)
        self._buffer[total : total + len(riders)] = torch.stack(list(riders))
        group.sum_(self._buffer[: total + len(riders)])
        return list(self._buffer[total : total + len(riders)].clone().unbind())


_MAX_RIDERS = 16


def exchange_rows(gradients: RowGradients, group: Group) -> RowGradients:
    """Sum row gradients over ranks; only touched rows travel. A collective."""
    if group.size == 1:
        return gradients
    sizes = [int(rows) for (rows,) in group.exchange(len(gradients.rows))]
    rows = group.gather(gradients.rows, sizes)
    values = group.gather(gradients.values, sizes)
    every = torch.arange(len(rows), device=rows.device)
    return sum_by_row(rows.long(), every, values)


def _dense_optimizer(train: Train, model: TwoTower) -> torch.optim.Optimizer:
    """PyTorch's optimizer of the dense weights.

    Decay acts on the matrices of towers, history and scorer: the weights of their linear layers. It
    doesn't on biases and norms, nor on tables, of embeddings or of positions. There may be no
    weights: cosines of embeddings themselves have tables alone.
    """
    named = dict(model.named_parameters())
    if train.optimizer != "adamw":
        every = [{"params": list(named.values())}]
        return torch.optim.Adagrad(every, lr=train.learning_rate, fused=True)
    decayed = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith("store.")
    }
    groups = [
        {"params": [named[n] for n in named if n in decayed], "weight_decay": train.weight_decay},
        {"params": [named[n] for n in named if n not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=train.learning_rate, fused=True)
