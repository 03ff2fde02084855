"""How many trials fit a cluster at once, and what is missing where none does.

Tune itself starts trials until placement fails and then waits for ever; trials that each start a
trainer can hold every CPU with drivers that wait for workers. So the number is computed first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twotower.core.config import ExperimentConfig
from twotower.core.errors import ResourceError

Node = Mapping[str, float]
"""Total resources of one node, `CPU` and `GPU` among them."""


@dataclass(frozen=True, slots=True)
class TrialNeed:
    """What one trial holds while it runs."""

    workers: int
    """Processes that train; each must fit one node."""

    cpus: float
    """CPUs of each: its torch threads."""

    gpus: float
    """GPUs of each: 0 or 1."""


def trial_need(config: ExperimentConfig, cluster_gpus: float) -> TrialNeed:
    """What a trial of this config needs; one thread where the config leaves threads open.

    A search has enough to do side by side: two trials on one thread each beat one on two.
    """
    workers = config.train.num_workers
    device = config.train.device
    use_gpu = device == "cuda" or (device == "auto" and cluster_gpus >= workers)
    return TrialNeed(workers, float(max(config.train.threads, 1)), float(use_gpu))


def concurrent_trials(need: TrialNeed, nodes: Sequence[Node], wanted: int | None = None) -> int:
    """Trials that can run at once, at most ``wanted``.

    Raises:
        ResourceError: not one trial fits; the message says what is missing.
    """
    slots = sum(_slots(need, node) for node in nodes)
    fitting = slots // need.workers
    if fitting == 0:
        raise ResourceError(_missing(need, nodes, slots))
    return fitting if wanted is None else min(fitting, wanted)


def _slots(need: TrialNeed, node: Node) -> int:
    """Worker processes that fit a node."""
    by_cpu = math.floor(node.get("CPU", 0.0) / need.cpus)
    return min(by_cpu, math.floor(node.get("GPU", 0.0) / need.gpus)) if need.gpus else by_cpu


def _missing(need: TrialNeed, nodes: Sequence[Node], slots: int) -> str:
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    each = f"{need.cpus:g} CPUs" + (f" and {need.gpus:g} GPU" if need.gpus else "")
    has = f"the cluster has {cpus:g} CPUs and {gpus:g} GPUs on {len(nodes)} node(s)"
    if need.workers > 1:
        return (
            f"train.num_workers: a trial needs {need.workers} workers with {each} each, room is "
            f"for {slots}; {has}. Lower train.num_workers or train.threads, or add nodes"
        )
    key = "train.device" if need.gpus and cpus >= need.cpus else "train.threads"
    return f"{key}: a trial needs {each} on one node; {has}. Lower {key} or add nodes"
