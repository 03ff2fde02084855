"""The course of a preparation: five stages, what each is given, and what their counts decide.

`run` is the outline. Rows are touched by tasks only (`stages`); nothing here knows what runs them.
"""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from twotower.core.config import ExperimentConfig
from twotower.core.data_config import Data
from twotower.core.records import environment
from twotower.core.storage import Store, dump_json
from twotower.data import commit, counts, locate, plans, positive, profile, schema, stages
from twotower.data.commit import Workplace
from twotower.data.exchange import LogPlan
from twotower.data.locate import PrepareResult
from twotower.data.prepared import SCHEMA_VERSION
from twotower.data.splits import PARTS
from twotower.data.tables import FittedTable
from twotower.data.write import Written, WrittenPairs, bucket_file, write_file

Result = TypeVar("Result")


class Tasks(Protocol):
    """Runs the stages."""

    @property
    def num_cpus(self) -> float:
        """CPUs that tasks run on, for the record."""
        ...

    def run(
        self,
        stage: str,
        kernel: Callable[..., Result],
        units: Sequence[Any],
        base: Any = None,
        plan: Any = None,
    ) -> Iterator[Result]:
        """Results of the units, in any order, as they come.

        Args:
            stage: name, for a progress display.
            kernel: called with a unit, the base and the plan, anywhere and more than once if need
                be: it writes the same files again.
            units: the work, at least one.
            base: what later stages share too.
            plan: what the units of this stage share.

        Raises:
            TwotowerError: of the kernel, as it was raised there.
            RunError: a task failed for another reason.
        """
        ...


def run(config: ExperimentConfig, tasks: Tasks) -> PrepareResult:
    """Prepare the data of a config, or find it prepared; errors as `pipeline.prepare`."""
    inputs = locate.find_inputs(config.data)
    found = locate.find_committed(config, inputs)
    if found is not None:
        return found
    Store(config.storage.prepared).require_writable("storage.prepared")
    clock = _Clock()
    sources = _inspect(config.data, inputs, tasks, clock)
    described = [line for shards in sources.values() for line in locate.describe_sources(shards)]
    digests = {name: [one.digest for one in shards] for name, shards in sources.items()}
    identity = locate.data_fingerprint(config.data, digests)
    found = locate.open_committed(config, identity)
    if found is not None:  # sources were moved or touched, their bytes are the same
        record = {**found.record, "sources": described}
        locate.write_record(config, identity, record)
        return PrepareResult(found.path, True, record)
    name = locate.directory_name(config, identity)
    with Workplace(config.storage.prepared, name) as place:
        making = _Making(config.data, sources, place, tasks, clock)
        manifest = making.run()
        with clock.timed("commit"):
            place.commit({**manifest, "fingerprint": identity})
    record = clock.record(manifest["counts"]["log_rows"], tasks.num_cpus) | {
        "fingerprint": identity,
        "sources": described,
    }
    locate.write_record(config, identity, record)
    return PrepareResult(Store(config.storage.prepared).child(name).uri, False, record)


def _inspect(data: Data, inputs: locate.Inputs, tasks: Tasks, clock: "_Clock") -> plans.Sources:
    """Digest and schema of every shard, checked; DataError names all that is wrong."""
    units = plans.cut_shards(inputs.shards)
    with clock.timed("inspect"):
        results = list(tasks.run("inspect", stages.inspect_shards, units))
    found = [one for result in results for one in result]
    sources: plans.Sources = {
        name: sorted((one for own, one in found if own == name), key=lambda one: one.shard.path)
        for name in inputs.shards
    }
    problems = [
        line
        for name, shards in sources.items()
        for line in schema.check_shards(shards, inputs.needs[name])
    ]
    schema.refuse(problems)
    if data.positive is not None:
        log = next((one for one in sources["interactions"] if one.schema.names), None)
        if log is not None:
            positive.check(data.positive, log.schema)
    return sources


class _Making:
    """One dataset in the making; `run` is its course."""

    def __init__(
        self,
        data: Data,
        sources: plans.Sources,
        place: Workplace,
        tasks: Tasks,
        clock: "_Clock",
    ) -> None:
        self._data, self._sources, self._place = data, sources, place
        self._tasks, self._clock = tasks, clock
        self._files = counts.Files()
        with clock.timed("catalogue"):
            self._tables, self._groups = plans.plan_tables(data, sources)
        self._base = stages.Base(place.scratch, place.target, self._tables)

    def run(self) -> dict[str, Any]:
        """Make all files but the manifest, which is returned without its fingerprint."""
        data, log = self._data, plans.plan_log(self._data, self._sources["interactions"])
        parts = plans.cut_parts(log.num_parts)
        read = self._read(log)
        counts.check_dropped(read, data)
        plan = plans.plan_merge(data, log, read)
        merged = counts.collect_merged(
            self._run("merge", stages.merge_rows, [stages.Information(), *parts], plan)
        )
        read = counts.leave_out_few(read, merged, data)
        splitting = plans.plan_split(data, read, merged, self._tables, self._groups)
        split = counts.collect_split(
            self._run("split", stages.split_pairs, parts, splitting),
            self._tables.catalogue.num_rows,
            merged,
        )
        counts.check_parts(split, data)
        self._write(read, merged, split)
        measured = profile.Measured(
            self._sources, read, merged, split, self._files, splitting.reverse_share
        )
        text = dump_json(profile.build_profile(measured, data))
        self._take(write_file(self._place.target, "profile.json", text))
        return self._manifest(measured, splitting.split.instants)

    def _read(self, log: LogPlan) -> counts.ReadCounts:
        """Stage read; item features are fitted beside it."""
        fragments = plans.cut_log(self._sources["interactions"])
        units = [*map(stages.ItemFeature, self._data.features.item), *fragments]
        return counts.collect_read(self._run("read", stages.read_log, units, log), fragments)

    def _write(
        self, read: counts.ReadCounts, merged: counts.MergeCounts, split: counts.SplitCounts
    ) -> None:
        """Stage write, all files of rows and tables."""
        ids, fitted = plans.fit_context(self._data, read, split, self._place.target)
        self._take(fitted)
        num_parts = len(merged.first_query) - 1
        units = [
            *plans.cut_tables(split, num_parts),
            *plans.cut_buckets(split),
            *plans.cut_parts(num_parts),
        ]
        plan = plans.plan_write(self._data, ids, merged, split)
        for result in self._run("write", stages.write_files, units, plan):
            self._take(result)

    def _manifest(
        self, measured: profile.Measured, instants: tuple[int, int] | None
    ) -> dict[str, Any]:
        data, split = self._data, measured.split
        names = [bucket_file(bucket) for bucket in range(len(split.bucket_rows))]
        return {
            "schema_version": SCHEMA_VERSION,
            "data": locate.data_identity(data),
            "lanes": data.lanes,
            "counts": profile.count_all(measured),
            "dropped": measured.read.dropped,
            "split": {
                "kind": data.split.kind,
                "instants": list(instants) if instants else None,
                "parts": {part: int(split.pairs[code]) for code, part in enumerate(PARTS)},
            },
            "features": self._files.features,
            "tables": profile.table_sizes(data, self._files.features),
            "digests": commit.describe_digests(split, self._tables.catalogue),
            "buckets": commit.describe_buckets(split.bucket_rows, names),
            "files": commit.describe_files(self._files),
        }

    def _run(
        self, stage: str, kernel: Callable[..., Any], units: Sequence[Any], plan: Any
    ) -> Iterator[Any]:
        """Results of a stage less the tables fitted in it, whose files are taken in."""
        with self._clock.timed(stage):
            for result in self._tasks.run(stage, kernel, units, self._base, plan):
                if isinstance(result, FittedTable):
                    self._take(result)
                else:
                    yield result

    def _take(self, result: FittedTable | Written | list[Written] | list[WrittenPairs]) -> None:
        for one in result if isinstance(result, list) else [result]:
            self._place.written(self._files.add(one))


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note the seconds of a block."""
        start = time.perf_counter()
        yield
        self._seconds[stage] = time.perf_counter() - start

    def record(self, rows: int, num_cpus: float) -> dict[str, Any]:
        """When, where and how fast."""
        seconds = time.perf_counter() - self._started
        return {
            "prepared_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "cluster_cpus": num_cpus,
            "seconds": {**self._seconds, "all": seconds},
            "rows": rows,
            "rows_per_s": round(rows / seconds),
            "environment": environment(),
        }
