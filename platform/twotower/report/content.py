"""What a report is made of. A missing piece is None or empty, and `Report.missing` names it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twotower.core.config import ExperimentConfig

COLOURS = 8
"""Colours that the style sheet has for runs; more runs use them again."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over queries with its confidence interval."""

    value: float
    low: float | None = None
    """Ends of the interval; None where the metric has none (coverage)."""

    high: float | None = None
    n: int | None = None
    """Queries it is over."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation: every metric by key, and its certificate."""

    summary: Mapping[str, Interval]
    protocol: Mapping[str, Any] = field(default_factory=dict)
    """What must be equal to compare; empty where the file has no certificate."""

    subject: Mapping[str, Any] = field(default_factory=dict)
    """What was measured; may differ."""


@dataclass(frozen=True, slots=True)
class PerQuery:
    """Metrics of single queries."""

    query: NDArray[np.int64]
    """int64 ``(Q,)``, rising."""

    columns: Mapping[str, NDArray[np.float64]]
    """float64 ``(Q,)`` by metric key; NaN where the slice has no truth."""

    groups: NDArray[Any] | None = None
    """``(Q,)`` group of each query where the split is by group: they are drawn together."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One timed part of the work."""

    name: str
    seconds: float
    peak_memory_mb: float | None = None
    """Peak of the process tree in MiB; None where it was not measured."""


@dataclass(frozen=True, slots=True)
class TableSize:
    """One embedding table."""

    name: str
    kind: str
    """As the config names it."""

    values: int
    bytes: int
    """As served."""

    full_bytes: int
    """With one float32 row a value."""

    @property
    def share(self) -> float:
        """Of `full_bytes`."""
        return self.bytes / self.full_bytes


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes that a run's model is served with."""

    tables: tuple[TableSize, ...]
    """Largest first."""

    dense_bytes: int
    """Towers and history encoder."""

    @property
    def together(self) -> TableSize:
        """All tables as one."""
        values, own, full = (
            sum(getattr(table, key) for table in self.tables)
            for key in ("values", "bytes", "full_bytes")
        )
        return TableSize("all tables", "", values, own, full)


@dataclass(frozen=True, slots=True)
class Run:
    """One training run."""

    label: str
    colour: int
    """1 to `COLOURS`."""

    location: str
    config: ExperimentConfig | None
    config_text: str
    """The resolved config as YAML; empty where the file is missing."""

    record: Mapping[str, Any]
    stages: tuple[Stage, ...]
    validation: tuple[Mapping[str, float], ...]
    """Validation points in order, each with `epoch` and metric keys."""

    train: tuple[Mapping[str, float], ...]
    """Train points in order, each with `epoch` and loss terms."""

    best: Mapping[str, Any]
    sizes: Sizes | None = None
    """None where the run is older than the file, or never came to its end."""


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the table of methods: a run, or a baseline that isn't trained."""

    name: str
    evaluation: Evaluation
    per_query: PerQuery | None
    colour: int
    """0 for what isn't trained, the run's colour otherwise."""

    run: Run | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial of a search."""

    number: int
    state: str
    params: Mapping[str, Any]
    value: float | None
    epochs: float | None = None
    seconds: float | None = None
    curve: tuple[tuple[float, float], ...] = ()
    """(epoch, metric) points."""

    error: str | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """A search over dotted config paths, selected on validation."""

    location: str
    metric: str
    trials: tuple[Trial, ...]
    space: Mapping[str, Mapping[str, Any]]
    importances: Mapping[str, float]
    best: int | None
    facts: Mapping[str, Any]
    """Everything else that the search wrote: sampler, scheduler, seconds, resources, winner."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """The prepared data behind the runs."""

    location: str
    profile: Mapping[str, Any]
    information: Mapping[str, Any]
    """mi.json: `features`, `raw`, `normalised`, `entropy`."""

    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean paired difference ``method - other`` of one metric over the queries both have."""

    method: str
    other: str
    metric: str
    value: float
    low: float
    high: float
    n: int

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Headline:
    """The one sentence, and what it rests on."""

    sentence: str
    verdict: Literal["best", "tied", "alone", "incomparable", "none"]
    best: str | None
    """Name of the method with the highest value; None without an evaluation."""

    exceptions: str = ""
    """Slices in which another method is ahead, as a sentence; empty where there are none."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the page shows."""

    title: str
    part: Literal["test", "validation"]
    metric: str
    """The metric that picks the best: `eval.select`."""

    confidence: float
    methods: tuple[Method, ...]
    runs: tuple[Run, ...]
    headline: Headline
    differences: tuple[Difference, ...]
    """The best method less each other one, in `metric`."""

    search: Search | None
    dataset: Dataset | None
    notes: tuple[str, ...]
    commands: tuple[str, ...]
    missing: tuple[str, ...]
    """What could not be shown, and the file that would hold it."""
