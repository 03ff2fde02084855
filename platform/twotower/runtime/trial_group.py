"""A trial of several workers: Ray Train inside a Tune trial.

Costs some 20 s a trial before and after the steps, and the result is the same as with one worker;
worth it only where a trial is too large for one.
"""

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from twotower.core.config import ExperimentConfig
from twotower.core.errors import DivergedError, StoppedError
from twotower.core.storage import Store
from twotower.objectives.group import SINGLE
from twotower.runtime.recorder import Recorder, Watch
from twotower.runtime.session import Place, run_session
from twotower.runtime.trial import TrialReporter, TrialTask, open_prepared
from twotower.training.collectives import DistributedGroup

_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # 2 s by default, lost at the end of every trial
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def trial_with_group(setup: dict[str, Any]) -> None:
    """Tune's function of a trial on `train.num_workers` workers, which report to Tune themselves.

    A worker that dies ends the trial: Tune's side hands its point out again. Tune must not kill a
    trial like this one: the workers' CPUs would stay taken, since Ray Train frees them through the
    dashboard's state API, which a local cluster doesn't have. So it is asked to end by a file.
    """
    task = TrialTask.parse(setup["task"])
    config = ExperimentConfig.model_validate_json(task.config)
    on_gpu = task.device == "cuda"
    os.environ |= _SETTINGS  # of this trial's own process
    with tempfile.TemporaryDirectory(prefix="twotower-trial-") as folder:
        TorchTrainer(
            train_trial,
            train_loop_config={"task": task.dump()},
            torch_config=TorchConfig(timeout_s=int(config.train.collective_timeout_s)),
            scaling_config=ScalingConfig(
                num_workers=config.train.num_workers,
                use_gpu=on_gpu,
                resources_per_worker={"CPU": task.threads} | ({"GPU": 1} if on_gpu else {}),
            ),
            run_config=RunConfig(
                name=f"trial-{task.number}",
                storage_path=folder,
                failure_config=FailureConfig(max_failures=0),
                callbacks=[TuneReportCallback()],
            ),
        ).fit()


def train_trial(setup: Mapping[str, Any]) -> None:
    """One worker of a trial. Reports are barriers, so every rank reports at the same places."""
    task = TrialTask.parse(setup["task"])
    config = ExperimentConfig.model_validate_json(task.config)
    context = ray.train.get_context()
    world, rank = context.get_world_size(), context.get_world_rank()
    torch.set_num_threads(task.threads)
    device = ray.train.torch.get_device()
    group = DistributedGroup(device) if world > 1 else SINGLE
    reporter = TrialReporter(task, config.eval.select, ray.train.report)
    stops, name = Store(task.stops), str(task.number)

    def is_asked() -> bool:
        return reporter.alive() or (rank == 0 and stops.exists(name))

    watch = Watch(reporter.on_record, is_asked)
    recorder = Recorder(None, watch, keep=1, rank=rank)
    try:
        run_session(config, open_prepared(task.prepared), recorder, Place(device, group), ())
    except DivergedError as error:
        reporter.end("diverged", str(error))
    except StoppedError:
        reporter.end("pruned")
    else:
        reporter.end("complete")
