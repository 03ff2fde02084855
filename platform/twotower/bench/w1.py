"""Workload W1 as our own experiment: its cells, and the config of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twotower.core.config import ExperimentConfig
from twotower.core.errors import InputError
from twotower.core.loading import load_config, with_overrides
from twotower.runtime.prepare import prepare

CONFIG = Path("configs/bench/w1.yaml")
SSL_WEIGHT = 0.3
"""Multiplier of the contrastive term in the peers' kit."""

_LINE_ROWS = 40_960
"""Rows between lines of metrics: a line about every second, also at a small batch."""

_NEVER = 1_000_000


@dataclass(frozen=True, slots=True)
class Cell:
    """One case of the workload."""

    batch: int
    """Rows of the global batch."""

    ssl: bool
    """Whether the contrastive task on two masked views of the batch's items is on."""

    @classmethod
    def parse(cls, name: str) -> "Cell":
        """A cell by its name, such as `4096` or `4096_ssl`.

        Raises:
            InputError: the name is none.
        """
        digits = name.removesuffix("_ssl")
        if not digits.isdecimal() or int(digits) == 0:
            raise InputError(f"cell {name!r}: take a batch size, with _ssl or without: 4096_ssl")
        return cls(int(digits), name.endswith("_ssl"))

    @property
    def name(self) -> str:
        """`4096`, `4096_ssl`."""
        return f"{self.batch}{'_ssl' if self.ssl else ''}"


CELLS = tuple(Cell.parse(name) for name in ("1024", "4096", "1024_ssl", "4096_ssl"))
"""What the result file holds."""


def base_config(folder: Path) -> ExperimentConfig:
    """The workload's config over the data that `workload` wrote below a folder.

    Raises:
        InputError: the config file is not there; benches run from the repository's root.
    """
    data = folder / "w1"
    paths = {"interactions": "log", "items": "items.parquet", "queries": "queries.parquet"}
    changes = [f"data.{source}.path={data / name}" for source, name in paths.items()]
    changes += [f"storage.prepared={folder / 'prepared'}", f"storage.runs={folder / 'runs'}"]
    return load_config(CONFIG, changes).config


def cell_config(
    base: ExperimentConfig,
    cell: Cell,
    precision: str = "float32",
    changes: Mapping[str, Any] | None = None,
) -> ExperimentConfig:
    """The config of a cell: endless training, no validation and no checkpoint on the way."""
    return with_overrides(
        base,
        {
            "train.batch_size": cell.batch,
            "ssl.weight": SSL_WEIGHT if cell.ssl else 0.0,
            "train.precision": precision,
            "train.log_every": max(5, _LINE_ROWS // cell.batch),
            "train.num_epochs": _NEVER,
            "train.validate_every": _NEVER,
            "train.checkpoint_every": _NEVER,
            **(changes or {}),
        },
    )


def prepared_path(base: ExperimentConfig) -> str:
    """Where the workload lies prepared; prepares it first where it isn't."""
    return prepare(base).path
