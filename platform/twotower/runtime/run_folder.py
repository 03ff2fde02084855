"""A run directory as the launcher sees it: whose it is, whether it is done, its record."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twotower.core.config import ExperimentConfig
from twotower.core.errors import ConfigError, DataError
from twotower.core.loading import build_config, dump_yaml, parse_yaml
from twotower.core.records import (
    command,
    differences,
    environment,
    fingerprint,
    identity,
    run_name,
)
from twotower.core.storage import Store
from twotower.data.locate import sources_of
from twotower.data.prepared import Prepared

CONFIG = "config.yaml"
RECORD = "record.json"

_NAMED = 3
"""Differences that a message names."""

_HARDWARE = ("cpu", "cpus", "memory_gib", "system")


class RunFolder:
    """`<storage.runs>/<name>-<8 of the fingerprint>`, for one config."""

    def __init__(self, config: ExperimentConfig) -> None:
        """Look at the directory of a config; nothing is written.

        Raises:
            ConfigError: it holds another experiment; what differs is named.
        """
        self.config, self.name = config, run_name(config)
        runs = config.storage.runs
        # Workers may have another current directory.
        self.store = Store(runs if "://" in runs else Path(runs).absolute()).child(self.name)
        self.record: dict[str, Any] = {}
        self._check_config()
        self.read()

    def read(self) -> None:
        """Read the record again; another process may have written it."""
        self.record = self.store.read_json(RECORD) if self.store.exists(RECORD) else {}

    @property
    def is_done(self) -> bool:
        """Whether the run came to its end."""
        return self.record.get("status") == "done"

    def check_prepared(self, prepared: Prepared) -> None:
        """Refuse to go on with other data than the run began with.

        Raises:
            DataError: the prepared dataset has changed; the shards that differ are named.
        """
        before = self.record.get("data")
        if before is None:
            return
        if changed := differences(before, data_identity(prepared)):
            shards = _changed_shards(self.record.get("sources", {}), sources_of(prepared))
            raise DataError(
                f"{self.store.uri}: began with other data ({_some(shards or changed)}); put the "
                "data back, or delete the folder to start the run again"
            )

    def begin(self, prepared: Prepared, provenance: Mapping[str, str] | None) -> int:
        """Write config and record of an attempt that starts; returns its number, from 1."""
        attempts = [*self.record.get("attempts", []), {"started": _now()}]
        facts = environment()
        if not self.store.exists(CONFIG):
            self.store.write_bytes(CONFIG, dump_config(self.config))
        self.record = {
            "restarts": 0,
            "stages": [],
            "started": attempts[0]["started"],
            "provenance": dict(provenance or {}),
            **self.record,
            "name": self.name,
            "status": "running",
            "exit_reason": None,
            "ended": None,
            "command": command(),
            "prepared": location(prepared.store),
            "data": data_identity(prepared),
            "sources": sources_of(prepared),
            "fingerprints": {
                "config": fingerprint(identity(self.config)),
                "prepared": prepared.fingerprint,
            },
            "versions": facts["versions"],
            "git": {"commit": facts["commit"]},
            "hardware": {name: facts[name] for name in _HARDWARE},
            "attempts": attempts,
        }
        self.store.write_json(RECORD, self.record)
        return len(attempts)

    def end(self, status: str, reason: str, **details: Any) -> None:
        """Write how the attempt ended: status done, stopped or failed, and the reason in words."""
        self.record |= {"status": status, "exit_reason": reason, "ended": _now(), **details}
        self.record["attempts"][-1] |= {"ended": self.record["ended"], "exit_reason": reason}
        self.store.write_json(RECORD, self.record)

    def add_stage(self, name: str, seconds: float, peak_memory_mb: float | None = None) -> None:
        """Count time (and memory) of a stage, on top of what earlier attempts spent on it."""
        stages = {stage["name"]: stage for stage in self.record["stages"]}
        stage = stages.setdefault(name, {"name": name, "seconds": 0.0})
        stage["seconds"] = round(stage["seconds"] + seconds, 3)
        if peak_memory_mb is not None:
            stage["peak_memory_mb"] = max(peak_memory_mb, stage.get("peak_memory_mb", 0.0))
        self.record["stages"] = list(stages.values())

    def _check_config(self) -> None:
        if not self.store.exists(CONFIG):
            return
        before = identity(read_config(self.store))
        if changed := differences(before, identity(self.config)):
            raise ConfigError(
                f"{self.store.uri}: holds a run of another config ({'; '.join(changed[:3])}); "
                "take another name or delete the folder"
            )


def location(store: Store) -> str:
    """A directory's place for other processes: absolute where it is local, else its URI."""
    return str(store.local_path()) if store.is_local else store.uri


def dump_config(config: ExperimentConfig) -> bytes:
    """A resolved config as YAML, every key written out."""
    return dump_yaml(config.model_dump(mode="json")).encode()


def read_config(store: Store) -> ExperimentConfig:
    """The config of a run directory; DataError if there is none, ConfigError if it is broken."""
    source = f"{store.uri}/{CONFIG}"
    text = store.read_bytes(CONFIG).decode("utf-8", errors="replace")
    return build_config(parse_yaml(text, source), source)


def data_identity(prepared: Prepared) -> dict[str, Any]:
    """What tells one prepared dataset from another: its fingerprint and every file's digest."""
    files = {name: entry["sha256"] for name, entry in prepared.manifest["files"].items()}
    return {"fingerprint": prepared.fingerprint, "files": fingerprint(files)}


def _changed_shards(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What became of the files that a dataset was made of; digests by path."""
    if not before or not now:
        return []  # no record of the one or the other
    return [
        *(f"{path} has changed" for path in before if now.get(path, before[path]) != before[path]),
        *(f"{path} is gone" for path in before if path not in now),
        *(f"{path} is new" for path in now if path not in before),
    ]


def _some(lines: Sequence[str]) -> str:
    more = f"; {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
    return "; ".join(lines[:_NAMED]) + more


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
