"""Search spaces read from YAML and checked, all of it before a trial starts.

A space is YAML of its own, one line a dimension:

    ssl.weight: {low: 0.03, high: 3.0, scale: log}
    ssl.masking: {choices: [rfm, cfm]}

Only what changes the model's result on one prepared dataset can be searched.
"""

import difflib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, model_validator

from twotower.core.config import ExperimentConfig
from twotower.core.errors import ConfigError
from twotower.core.loading import parse_yaml
from twotower.core.section import Section
from twotower.core.space import MASK_RATE, Dimension, SearchSpace, frozen, num_masked, thawed

SEARCHABLE = (
    "model.",
    "loss.",
    "ssl.",
    "train.batch_size",
    "train.optimizer",
    "train.learning_rate",
    "train.weight_decay",
    "train.schedule",
    "train.warmup_steps",
    "train.clip_norm",
    "train.precision",
)
"""Paths (or their prefixes) a trial may change."""

_REFUSED = {
    "data.": "it changes the prepared data, and the trials of a search share one prepared dataset; "
    "run one search for each value",
    "seed": "a search over seeds only finds the luckiest one",
    "eval.": "it changes what the trials are compared by",
}
_NOT_SEARCHED = (
    "it is the budget or the place of a run, not a part of its result; set it in the config"
)

_MAX_CORNERS = 64
_DIGITS = 4


class Range(Section):
    """Numbers from `low` to `high`, both included."""

    low: float
    """Smallest value."""

    high: float
    """Largest value."""

    scale: Literal["linear", "log"] = "linear"
    """`log`: equal shares of the draws to equal ratios; needs low > 0."""

    step: Annotated[float, Field(gt=0)] | None = None
    """Distance of neighbouring values, counted from low; null = any value (integers: 1)."""

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low: must be below high, got {self.low:g} and {self.high:g}")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"low: a log scale needs low > 0, got {self.low:g}")
        if self.scale == "log" and self.step is not None:
            raise ValueError("step: a log scale takes none")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(f"step: {self.step:g} is wider than the range, which leaves one value")
        return self


class Choices(Section):
    """A list of values, in no order."""

    choices: Annotated[tuple[Any, ...], Field(min_length=2)]
    """The values, at least two, all different."""

    @model_validator(mode="after")
    def _check(self) -> "Choices":
        for place, value in enumerate(self.choices):
            if value in self.choices[:place]:
                raise ValueError(f"choices: {value!r} stands twice")
        return self


def load_space(path: str | Path, config: ExperimentConfig) -> SearchSpace:
    """Read a space and check it against a config.

    Raises:
        ConfigError: the file can't be read, a path is unknown or can't be searched, or a value
            makes no valid config; the message names file, path and mend.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = [str(p) for p in sorted(file.parent.glob("*.yaml"))]
        hint = f"; this folder has {', '.join(near)}" if near else ""
        raise ConfigError(f"{file}: no such space file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: can't be read: {error}") from None
    return build_space(parse_yaml(text, str(file)), config, str(file))


def build_space(document: Any, config: ExperimentConfig, source: str) -> SearchSpace:
    """Check a plain mapping of dotted paths to ranges or choices, and make it a space."""
    if not isinstance(document, dict) or not document:
        raise ConfigError(f"{source}: a space is a mapping of dotted config paths, at least one")
    try:
        dimensions = tuple(_dimension(path, spec, config) for path, spec in document.items())
        space = SearchSpace(dimensions, document)
        _check_effect(space, config)
        for params in _corners(space):
            _check_point(space, params, config)
    except ConfigError as error:
        raise ConfigError(f"{source}: {str(error).removeprefix('override: ')}") from None
    return space


def _check_point(space: SearchSpace, params: dict[str, Any], config: ExperimentConfig) -> None:
    try:
        space.apply(config, params)
    except ConfigError as error:
        drawn = ", ".join(f"{path} = {thawed(value)!r}" for path, value in params.items())
        told = str(error).removeprefix("override: ")
        raise ConfigError(f"{told} (the space can draw {drawn})") from None


def _dimension(path: str, spec: Any, config: ExperimentConfig) -> Dimension:
    annotation = _annotation(path, config)
    _check_searchable(path)
    if not isinstance(spec, dict) or ("choices" in spec) == ("low" in spec or "high" in spec):
        raise ConfigError(f"{path}: write {{low: , high: }} or {{choices: [ , ]}}, got {spec!r}")
    try:
        model = Choices if "choices" in spec else Range
        parsed = model.model_validate_json(json.dumps(spec), strict=True)
    except ValidationError as error:
        raise ConfigError(f"{path}.{_explain(error)}") from None
    if isinstance(parsed, Choices):
        values = tuple(frozen(value) for value in parsed.choices)
        dimension = Dimension(path, "choice", values=values)
    else:
        dimension = _number(path, parsed, annotation)
    return _merge_rates(dimension, config) if path == MASK_RATE else dimension


def _explain(error: ValidationError) -> str:
    """The key and the problem; an unknown key first, since it explains a missing one."""
    details = error.errors(include_url=False)
    for detail in details:
        if detail["type"] == "extra_forbidden":
            key = detail["loc"][0]
            return f"{key}: unknown key; a range has low, high, scale, step; a list has choices"
    key = ".".join(str(part) for part in details[0]["loc"])
    told = details[0]["msg"].removeprefix("Value error, ")
    return f"{key}: {told[:1].lower()}{told[1:]}" if key else told


def _number(path: str, spec: Range, annotation: Any) -> Dimension:
    kinds = set(_plain_types(annotation))
    log, step = spec.scale == "log", spec.step
    if float in kinds:
        return Dimension(path, "float", spec.low, spec.high, log, step)
    if int not in kinds:
        raise ConfigError(f"{path}: is not a number; write {{choices: [ , ]}}")
    for name, number in (("low", spec.low), ("high", spec.high), ("step", step or 1.0)):
        if number != int(number):
            raise ConfigError(f"{path}.{name}: a whole number is needed here, got {number:g}")
    return Dimension(path, "int", spec.low, spec.high, log, None if log else step or 1.0)


def _merge_rates(dimension: Dimension, config: ExperimentConfig) -> Dimension:
    """One rate for each number of masked features m that the dimension reaches."""
    if dimension.kind == "choice":
        values: dict[int, Any] = {}
        for value in dimension.values:
            values.setdefault(num_masked(config, value), value)
        return Dimension(MASK_RATE, "grid", values=tuple(values[m] for m in sorted(values)))
    k = len(config.maskable_features())
    low, high = dimension.low, dimension.high
    counts = range(num_masked(config, low), num_masked(config, high) + 1)
    rates = [min(max(round(m / k, _DIGITS), low), high) for m in counts]
    return Dimension(MASK_RATE, "grid", values=tuple(rates))


def _check_searchable(path: str) -> None:
    if not path.startswith(SEARCHABLE):
        reason = next((r for p, r in _REFUSED.items() if path.startswith(p)), _NOT_SEARCHED)
        raise ConfigError(f"{path}: can't be searched: {reason}")


def _check_effect(space: SearchSpace, config: ExperimentConfig) -> None:
    """Refuse dimensions of a term that is off, and two that change what each other means."""
    paths = {d.path for d in space.dimensions}
    if {MASK_RATE, "ssl.mask_features"} <= paths:
        raise ConfigError(f"{MASK_RATE}: can't be searched together with ssl.mask_features")
    ssl = sorted(p for p in paths if p.startswith("ssl.") and p != "ssl.weight")
    if ssl and config.ssl.weight == 0 and "ssl.weight" not in paths:
        raise ConfigError(
            f"{ssl[0]}: has no effect while ssl.weight is 0; "
            "search ssl.weight too, or give it a value with --set ssl.weight=1"
        )


def _corners(space: SearchSpace) -> Iterator[dict[str, Any]]:
    """Extreme points: each end of each dimension at least once, then the first combinations."""
    paths = [d.path for d in space.dimensions]
    ends = [d.ends() for d in space.dimensions]
    for turn in range(max(len(values) for values in ends)):
        yield {p: values[turn % len(values)] for p, values in zip(paths, ends, strict=True)}
    for point in itertools.islice(itertools.product(*ends), _MAX_CORNERS):
        yield dict(zip(paths, point, strict=True))


def _annotation(path: str, config: ExperimentConfig) -> Any:
    """Type of the config value at a dotted path; ConfigError with the nearest path if none.

    Some sections are one of several kinds, or lie under names of the config's own: their keys are
    those of what the config has there.
    """
    found = _leaf_types(ExperimentConfig)
    if path in found:
        return found[path]
    if path.startswith("data."):
        return Any
    if below := [p for p in found if p.startswith(f"{path}.")]:
        raise ConfigError(f"{path}: is a section; name a value in it, such as {below[0]}")
    *parents, leaf = path.split(".")
    section: Any = config
    for name in parents:
        section = section.get(name) if isinstance(section, dict) else getattr(section, name, None)
    if isinstance(section, BaseModel) and leaf in type(section).model_fields:
        return type(section).model_fields[leaf].annotation
    near = difflib.get_close_matches(path, found, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"{path}: unknown config path{hint}")


def _leaf_types(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            leaves |= _leaf_types(kind, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = kind
    return leaves


def _plain_types(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _plain_types(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [plain for part in get_args(annotation) for plain in _plain_types(part)]
    return [annotation]
