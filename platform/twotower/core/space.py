"""The points a search can try: numbers and lists over dotted config paths.

`space_loading` reads and checks a space; what is here only turns draws into configs and back.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from twotower.core.config import ExperimentConfig
from twotower.core.loading import with_overrides

MASK_RATE = "ssl.mask_rate"
_DIGITS = 4
"""Significant digits of a drawn number, so that a winning config can be read. Chosen, not tuned."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One searched path, as a number in [low, high] or as a place in `values`."""

    path: str
    kind: Literal["float", "int", "grid", "choice"]
    """`grid`: ordered values; `choice`: values in no order."""

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    values: tuple[Any, ...] = ()
    """Of `grid` and `choice`."""

    @property
    def size(self) -> int | None:
        """Number of different values; None where they are endless."""
        if self.kind in ("grid", "choice"):
            return len(self.values)
        if self.step is None:
            return None
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def ends(self) -> tuple[Any, ...]:
        """What a check must try: both ends of a range and its first step, every value of a list."""
        if self.kind in ("grid", "choice"):
            return self.values
        if self.step is None:
            return self.value(self.low), self.value(self.high)
        last = self.low + ((self.size or 1) - 1) * self.step
        return self.value(self.low), self.value(self.low + self.step), self.value(last)

    def value(self, raw: float) -> Any:
        """Config value of a raw draw: a number of the range, or a place in the list."""
        if self.kind in ("grid", "choice"):
            return self.values[int(raw)]
        if self.kind == "int":
            return round(raw)
        return min(max(float(f"{raw:.{_DIGITS}g}"), self.low), self.high)

    def raw(self, value: Any) -> float:
        """Inverse of `value`; ValueError for a value outside the dimension."""
        if self.kind in ("grid", "choice"):
            return self.values.index(frozen(value))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{self.path}: {value!r} is not a number")
        if not self.low <= value <= self.high:
            raise ValueError(f"{self.path}: {value!r} is outside [{self.low:g}, {self.high:g}]")
        return value

    def document(self) -> dict[str, Any]:
        """JSON form, for records and the report."""
        if self.kind in ("grid", "choice"):
            choices = [thawed(v) for v in self.values]
            return {"kind": "choice", "ordered": self.kind == "grid", "choices": choices}
        return {
            "kind": self.kind,
            "low": self.value(self.low),
            "high": self.value(self.high),
            "log": self.log,
            "step": self.step,
        }


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """Dimensions that fit one config; `space_loading.load_space` builds it."""

    dimensions: tuple[Dimension, ...]
    source: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False)
    """The mapping it was read from."""

    @property
    def size(self) -> int | None:
        """Number of different points; None where they are endless."""
        sizes = [d.size for d in self.dimensions]
        return None if None in sizes else math.prod(s for s in sizes if s is not None)

    def apply(self, config: ExperimentConfig, params: Mapping[str, Any]) -> ExperimentConfig:
        """The config of one trial, from values by path."""
        return with_overrides(config, {path: thawed(value) for path, value in params.items()})

    def own_point(self, config: ExperimentConfig) -> dict[str, Any] | None:
        """The config's own values where all of them lie in the space, else None."""
        document, point = config.model_dump(mode="json"), {}
        for dimension in self.dimensions:
            value = _at(document, dimension.path)
            if dimension.path == MASK_RATE and dimension.kind == "grid":
                value = _nearest_rate(config, dimension.values)
            try:
                point[dimension.path] = dimension.value(dimension.raw(value))
            except ValueError:
                return None
        return point

    def document(self) -> dict[str, Any]:
        """JSON form by path."""
        return {d.path: d.document() for d in self.dimensions}


def num_masked(config: ExperimentConfig, rate: Any) -> int:
    """Features that a mask rate masks under this config; ConfigError for a rate out of range."""
    return with_overrides(config, {MASK_RATE: rate}).num_masked()


def frozen(value: Any) -> Any:
    """Lists as tuples, so that a list of choices can be compared with the config's own value."""
    return tuple(frozen(v) for v in value) if isinstance(value, list | tuple) else value


def thawed(value: Any) -> Any:
    """Tuples as lists, the form configs are written in."""
    return [thawed(v) for v in value] if isinstance(value, tuple) else value


def _nearest_rate(config: ExperimentConfig, rates: tuple[Any, ...]) -> Any:
    """The listed rate that masks as many features as the config's own, else None."""
    m = config.num_masked()
    return next((rate for rate in rates if num_masked(config, rate) == m), None)


def _at(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for name in path.split("."):
        value = value[name]
    return value
