"""Which prepared dataset a config asks for, and whether it is there: found without any work.

A dataset is named after the config and the fingerprint of its `data` section and of its sources'
bytes. Digests of sources are remembered by path, size and time of change in the records that stand
beside the datasets.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from twotower.core.config import ExperimentConfig
from twotower.core.data_config import Data
from twotower.core.errors import DataError
from twotower.core.records import drop_added, fingerprint
from twotower.core.storage import Store
from twotower.data import positive, schema
from twotower.data.prepared import SCHEMA_VERSION, Prepared
from twotower.data.schema import Need, SourceName
from twotower.data.shards import Shard
from twotower.data.sources import Inspected

_RECORD = ".record.json"


@dataclass(frozen=True, slots=True)
class PrepareResult:
    """A committed prepared dataset."""

    path: str
    """Its directory, or URI: what `Prepared.open` takes."""

    reused: bool
    """Whether it was there already."""

    record: dict[str, Any]
    """When, where and how fast it was prepared."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Sources of a config: the columns it needs and the files there are."""

    needs: dict[SourceName, list[Need]]
    shards: dict[SourceName, list[Shard]]

    def all_shards(self) -> list[Shard]:
        """Shards of all sources."""
        return [shard for shards in self.shards.values() for shard in shards]


def find_inputs(data: Data) -> Inputs:
    """List the sources.

    Raises:
        DataError: a source is missing or empty.
        ConfigError: a feature or condition can't be read; the key is named.
    """
    needs = schema.needs_of(data, positive.columns_of(data.positive))
    return Inputs(needs, schema.list_sources(data, needs))


def find_prepared(config: ExperimentConfig) -> PrepareResult | None:
    """The prepared dataset of a config if it is committed and no source has changed since.

    Reads no source and needs no Ray; a source that was never digested counts as changed.

    Raises:
        DataError, ConfigError: as `find_inputs`.
    """
    return find_committed(config, find_inputs(config.data))


def find_committed(config: ExperimentConfig, inputs: Inputs) -> PrepareResult | None:
    """`find_prepared` of inputs that are listed already."""
    store = Store(config.storage.prepared)
    known = _known_digests(store)
    if not all(shard.identity in known for shard in inputs.all_shards()):
        return None
    digests = {
        name: [known[shard.identity] for shard in shards] for name, shards in inputs.shards.items()
    }
    return open_committed(config, data_fingerprint(config.data, digests))


def open_committed(config: ExperimentConfig, identity: str) -> PrepareResult | None:
    """The dataset of that fingerprint, if it stands undamaged (files are compared by size)."""
    store = Store(config.storage.prepared)
    name = directory_name(config, identity)
    try:
        prepared = Prepared.open(store.child(name))
    except DataError:
        return None
    if prepared.fingerprint != identity:
        return None
    return PrepareResult(prepared.store.uri, True, _read_record(store, f"{name}{_RECORD}"))


def data_identity(data: Data) -> dict[str, Any]:
    """The `data` section less the paths: where bytes lie doesn't matter, which they are does."""
    document = data.model_dump(mode="json")
    drop_added(document, data, "data.")
    for name in ("interactions", "items", "queries"):
        if isinstance(document[name], dict):
            del document[name]["path"]
    return document


def data_fingerprint(data: Data, digests: Mapping[Any, Iterable[str]]) -> str:
    """Fingerprint of a prepared dataset: config, digests by source, version of the layout."""
    return fingerprint(
        {
            "schema_version": SCHEMA_VERSION,
            "data": data_identity(data),
            "sources": {name: sorted(found) for name, found in digests.items()},
        }
    )


def directory_name(config: ExperimentConfig, identity: str) -> str:
    """Name of the dataset's directory."""
    return f"{config.name}-{identity[:8]}"


def write_record(config: ExperimentConfig, identity: str, record: Mapping[str, Any]) -> None:
    """Write the record beside a dataset."""
    name = f"{directory_name(config, identity)}{_RECORD}"
    Store(config.storage.prepared).write_json(name, dict(record))


def sources_of(prepared: Prepared) -> dict[str, str]:
    """SHA-256 of each file that a dataset was made of, by path; empty if its record is gone."""
    name = PurePosixPath(prepared.store.full_path()).name
    sources = _read_record(prepared.store.parent, f"{name}{_RECORD}").get("sources", [])
    return {source["path"]: source["sha256"] for source in sources}


def describe_sources(inspected: Iterable[Inspected]) -> list[dict[str, Any]]:
    """Sources as a record remembers them."""
    return [
        {
            "path": one.shard.path,
            "size": one.shard.size,
            "mtime_ns": one.shard.mtime_ns,
            "sha256": one.digest,
        }
        for one in inspected
    ]


def _known_digests(store: Store) -> dict[tuple[str, int, int], str]:
    """Digests by what identifies a shard, of all records beside the datasets."""
    known: dict[tuple[str, int, int], str] = {}
    for name in store.list():
        if name.endswith(_RECORD):
            for source in _read_record(store, name).get("sources", []):
                key = source["path"], source["size"], source["mtime_ns"]
                known[key] = source["sha256"]
    return known


def _read_record(store: Store, name: str) -> dict[str, Any]:
    """A record, empty where it is missing or damaged: it only saves work."""
    try:
        return store.read_json(name)
    except DataError:
        return {}
