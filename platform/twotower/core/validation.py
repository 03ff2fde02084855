"""Plain mappings checked against a schema, every problem told in one line with its key."""

import difflib
import json
import math
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from twotower.core.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], document: Any, source: str) -> Model:
    """Check a plain mapping against a schema; strict types, every problem named at once.

    Raises:
        ConfigError: unknown keys (with the nearest name), missing ones, wrong values.
    """
    try:
        text = json.dumps(document, allow_nan=True)
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems: dict[str, list[str]] = {}
        for detail in error.errors(include_url=False):
            path, problem = _explain(detail, document, model)
            problems.setdefault(path, []).append(problem)
        lines = [f"{path}: {' or '.join(said)}" for path, said in problems.items()]
        raise ConfigError(f"{source}: {'; '.join(lines)}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{source}: {error}") from None


def _explain(detail: ErrorDetails, document: Any, model: type[BaseModel]) -> tuple[str, str]:
    """Dotted path of a problem and what is wrong there."""
    kind, message = detail["type"], detail["msg"]
    location = _real_location(detail["loc"], document, keep_last=kind == "missing")
    path = ".".join(location)
    if kind == "union_tag_not_found":
        return f"{path}.kind", "is required"
    if kind == "extra_forbidden":
        known = _known_keys(model, location[:-1], {*detail["loc"]} - {*location})
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return path, f"unknown key; {hint}"
    if kind == "missing":
        return path, "is required"
    if kind == "value_error":
        key, _, text = message.removeprefix("Value error, ").partition(": ")
        if not text:
            return path or "config", key
        return f"{path}.{key}" if path else key, text
    if kind == "string_pattern_mismatch" and path == "name":
        message = "lower-case letters, digits, '_', '-' and '.', first a letter, at most 64"
    return path or "config", f"{message[:1].lower()}{message[1:]}, got {short(detail['input'])}"


def _real_location(location: tuple[int | str, ...], document: Any, keep_last: bool) -> list[str]:
    """Parts of a pydantic location that are keys of the document; it also names union members."""
    real: list[str] = []
    for place, part in enumerate(location):
        inside = part in document if isinstance(document, dict) else isinstance(part, int)
        if inside and isinstance(document, dict | list):
            document = document[part]  # type: ignore[index]
        elif not (keep_last and place == len(location) - 1):
            continue
        real.append(str(part))
    return real


def _known_keys(model: type[BaseModel], location: list[str], tags: set[Any]) -> list[str]:
    """Field names of the section at a path; of a union those of the tagged one, else of all."""
    models: list[type[BaseModel]] = [model]
    for name in location:
        below: list[type[BaseModel]] = []
        for section in models:
            field = section.model_fields.get(name)
            below += _sections(field.annotation) if field else [section]
        models = below
    tagged = [m for m in models if "kind" in m.model_fields and tags & {*_choices(m, "kind")}]
    models = tagged or models
    return sorted({name for section in models for name in section.model_fields})


def _choices(model: type[BaseModel], field: str) -> tuple[Any, ...]:
    """Values of a literal field."""
    return get_args(model.model_fields[field].annotation)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Annotated, Union, UnionType, dict, tuple):
        return [model for part in get_args(annotation) for model in _sections(part)]
    return []


def short(value: Any) -> str:
    """A value as a message shows it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
