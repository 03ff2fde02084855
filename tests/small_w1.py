"""Workload W1 in small, prepared without Ray."""

from pathlib import Path

from prepare_serial import prepare_serially
from twotower.bench.w1 import base_config
from twotower.bench.workload import Sizes, write_workload
from twotower.core.config import ExperimentConfig

SIZES = Sizes(
    rows=6000,
    items=300,
    queries=200,
    categories=7,
    developers=40,
    tags=30,
    tokens=60,
    countries=5,
    shards=2,
)
QUICK = {"model.hidden": [16], "model.embed_dim": 8, "model.out_dim": 8}


def small_w1(folder: Path) -> tuple[ExperimentConfig, str]:
    """The config over a small workload below a folder, and where it lies prepared."""
    write_workload(folder, SIZES)
    base = base_config(folder)
    return base, prepare_serially(base).path
