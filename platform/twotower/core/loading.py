"""From YAML and dotted overrides to a checked config, with the source of every value.

One override path: file, `--set`, search trials and tests all change a config by dotted names.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from twotower.core.config import ExperimentConfig
from twotower.core.errors import ConfigError
from twotower.core.validation import short, validated

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 30


@dataclass(frozen=True)
class Loaded:
    """A checked config and where each of its values came from."""

    config: ExperimentConfig
    provenance: dict[str, str]
    """Source of each leaf by dotted path: `default`, the file's name, or `--set`."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys and reads numbers as YAML 1.2 does."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, refusing a key that stands twice."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if not isinstance(key, str):
                raise ConfigError(f"key {key!r} (line {_line(node)}): keys must be text")
            if key in keys[:place]:
                raise ConfigError(
                    f"key {key!r} stands twice (again at line {_line(node.value[place][0])})"
                )
        return super().construct_mapping(node, deep)


def _decimal(loader: Any, node: Any) -> int:
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)

# YAML 1.1 reads 010 as eight, 1e-3 as text, `no` as false and 2020-01-01 as a date; 1.2 doesn't.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith(":null")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tfTF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"
        r"|^[-+]?\.(?:inf|Inf)$|^\.(?:nan|NaN)$"
    ),
    list("-+.0123456789"),
)


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML text safely; ConfigError names the source and the line."""
    try:
        if len(text.encode()) > _MAX_BYTES:
            raise ConfigError(f"larger than {_MAX_BYTES >> 20} MiB, which no config is")
        _check_events(text)
        return _Loader(text).get_single_data()
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{source}: not valid YAML{place}: {problem}") from None


def _check_events(text: str) -> None:
    """Refuse deep nesting, aliases and explicit tags: a config needs none of them.

    Aliases are how a small file becomes a huge one; a tag makes a value another than it looks.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
            event, yaml.CollectionEndEvent
        )
        if depth > _MAX_DEPTH:
            raise ConfigError(f"line {_line(event)}: nested deeper than {_MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(f"line {_line(event)}: YAML aliases are not allowed")
        if getattr(event, "tag", None) is not None:
            raise ConfigError(f"line {_line(event)}: YAML tags are not allowed")


def dump_yaml(document: Mapping[str, Any]) -> str:
    """YAML text that `parse_yaml` reads back as it was, keys in their order."""
    return yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Writes texts that look like YAML 1.2 numbers, or hold odd breaks, in quotes."""


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    is_odd = re.match(r"[-+.]?[0-9.]", value) or not value.isprintable()
    style = '"' if is_odd else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _represent_text)


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Loaded:
    """Read a config file and apply `--set` overrides (`dotted.path=value`).

    Raises:
        ConfigError: the file can't be read, or a key or value is wrong; the message names the key.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(
            file.name, [p.name for p in file.parent.glob("*.yaml")], n=1
        )
        hint = f"; did you mean {file.parent / near[0]}?" if near else ""
        raise ConfigError(f"{file}: no such config file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: can't be read: {error}") from None
    document = parse_yaml(text, str(file))
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: a config is a mapping of sections, found {_kind(document)}")
    provenance = dict.fromkeys(_leaves(document), file.name)
    for item in overrides:
        key, value = parse_override(item)
        _set(document, key, value)
        provenance |= dict.fromkeys(_leaves({key: value}), "--set")
    config = build_config(document, str(file))
    resolved = _leaves(config.model_dump(mode="json"))
    return Loaded(config, {leaf: _source(leaf, provenance) for leaf in resolved})


def parse_override(text: str) -> tuple[str, Any]:
    """Split `dotted.path=value`; the value is read as YAML."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {text!r}: write it as dotted.path=value")
    return key.strip(), parse_yaml(value, f"--set {key.strip()}")


def with_overrides(config: ExperimentConfig, changes: Mapping[str, Any]) -> ExperimentConfig:
    """A copy of a config with dotted paths changed, all checks run on the whole again.

    Raises:
        ConfigError: a path is unknown or a value wrong; the message names the path.
    """
    document = config.model_dump(mode="json")
    for key, value in changes.items():
        _set(document, key, value)
    return build_config(document, "override")


def build_config(document: Any, source: str) -> ExperimentConfig:
    """Check a plain mapping against the schema; strict types, every problem named at once."""
    return validated(ExperimentConfig, document, source)


def _set(document: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    section: Any = document
    for place, name in enumerate(parents):
        below = section.get(name) if isinstance(section, dict) else None
        if below is None:
            below = section[name] = {}
        if not isinstance(below, dict):
            raise ConfigError(
                f"{key}: {'.'.join(parents[: place + 1])} is {short(below)}, not a section"
            )
        section = below
    section[leaf] = value


def _leaves(document: Any, path: str = "") -> list[str]:
    if isinstance(document, dict) and (document or not path):
        return [
            leaf
            for key, value in document.items()
            for leaf in _leaves(value, f"{path}.{key}" if path else str(key))
        ]
    return [path]


def _source(leaf: str, provenance: Mapping[str, str]) -> str:
    while leaf:
        if leaf in provenance:
            return provenance[leaf]
        leaf = leaf.rpartition(".")[0]
    return "default"


def _line(node: Any) -> int:
    return node.start_mark.line + 1


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
