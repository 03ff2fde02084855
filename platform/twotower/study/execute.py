"""Runs a study: what is ready is started, what ended is written down, until nothing is left.

What is ready follows from the ledger alone, and each trial of a cell's search from those before it,
so a study that was cut off ends as the unbroken one does.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from twotower.core.errors import RunError, StoppedError
from twotower.core.lease import Lease
from twotower.core.records import environment
from twotower.core.storage import Store
from twotower.data.pipeline import prepare
from twotower.runtime.cluster import connect
from twotower.runtime.pool import Ended, Pool
from twotower.runtime.run_folder import location
from twotower.runtime.stopping import stop_requests
from twotower.study.book import Book
from twotower.study.cells import Kind, RunSpec
from twotower.study.ledger import Ledger
from twotower.study.load import Study
from twotower.study.run import RunTask, execute

_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class StudyProgress:
    """Where a study stands."""

    done: int
    total: int
    left_s: float | None
    """Seconds to the end at the pace of runs like those that are left; None before the first."""

    doing: str
    """What happens now."""


Tell = Callable[[StudyProgress], None]


def run_study(
    study: Study,
    ledger: Ledger,
    tell: Tell,
    *,
    most: int | None = None,
    verbose: bool = False,
) -> None:
    """Run what the ledger lacks; where it lacks nothing, nothing is started.

    Args:
        study: the plan.
        ledger: its finished runs; grows.
        tell: hears of every start and end.
        most: runs at once; None = as many as the cluster's CPUs hold.
        verbose: let Ray's own messages reach the console.

    Raises:
        InputError: a dataset can't be prepared, the cluster can't hold one run, or another process
            runs this study.
        RunError: runs failed; all others were made, the same command tries these again.
        StoppedError: asked to stop; the same command goes on.
    """
    book = Book(study, ledger)
    if not book.left:
        return
    first = study.cells[0].config
    work = Store(first.storage.runs).child(f"study-{study.plan.name}")
    work.require_writable("storage.runs")
    with (
        Lease(work),
        stop_requests() as should_stop,
        connect(first.cluster, verbose=verbose),
        Pool(f"{study.source}: one run", cpus=study.plan.threads, most=most) as pool,
    ):
        ledger.take_over()
        book = Book(study, ledger)  # another process may have gone on before the lease was ours
        crew = _Crew(study, ledger, book, pool, work, tell)
        crew.prepare()
        while crew.step():
            if should_stop():
                done = book.total - book.left
                raise StoppedError(
                    f"{study.plan.name}: stopped with {done} of {book.total} runs done; "
                    "the same command goes on"
                )
        crew.check()


class _Crew:
    """Runs under way."""

    def __init__(
        self, study: Study, ledger: Ledger, book: Book, pool: Pool, work: Store, tell: Tell
    ) -> None:
        self._study, self._ledger, self._book = study, ledger, book
        self._pool, self._work, self._tell = pool, work, tell
        self._running: dict[str, RunSpec] = {}
        self._failed: dict[str, tuple[RunSpec, Exception]] = {}
        self._prepared: dict[tuple[str, float], str] = {}
        self._environment: Mapping[str, Any] = environment()

    def prepare(self) -> None:
        """Prepare the data of all runs, one dataset after the other."""
        for (name, fraction), config in self._study.places().items():
            self._say(f"preparing {name} at {fraction:g}")
            self._prepared[name, fraction] = location(Store(prepare(config).path))

    def step(self) -> bool:
        """Start what fits and take what ended; false once nothing is left to do."""
        for spec in self._startable():
            if not self._pool.free:
                break
            self._start(spec)
        for ended in self._pool.ended(_LOOK_EVERY_S):
            self._take(ended)
        return bool(self._running) or any(self._startable())

    def _startable(self) -> Iterator[RunSpec]:
        """Runs that are ready and were not started yet."""
        for spec in self._book.ready():
            if spec.id not in self._running and spec.id not in self._failed:
                yield spec

    def check(self) -> None:
        """RunError where runs failed."""
        if self._failed:
            spec, error = next(iter(self._failed.values()))
            raise RunError(
                f"{self._study.plan.name}: {len(self._failed)} runs failed, the others are done; "
                f"the same command tries them again. The first, {spec.key.method} on "
                f"{spec.key.dataset} ({spec.kind}): {error}"
            )

    def _start(self, spec: RunSpec) -> None:
        task = RunTask(
            kind=spec.kind,
            config=spec.config.model_dump_json(),
            prepared=self._prepared[spec.key.place],
            store=location(self._work.child(spec.id)),
            threads=self._study.plan.threads,
        )
        self._pool.start(spec.id, execute, task)
        self._running[spec.id] = spec
        self._say(_named(spec))

    def _take(self, ended: Ended) -> None:
        spec = self._running.pop(str(ended.key))
        if ended.error is not None:
            self._failed[spec.id] = (spec, ended.error)
        else:
            self._ledger.add(self._line(spec, ended.value))
        self._say(_named(spec))

    def _line(self, spec: RunSpec, found: dict[str, Any]) -> dict[str, Any]:
        """What the ledger keeps of a run; what runs share goes into notes."""
        note = self._ledger.note
        for one in (found, *found.get("references", {}).values()):
            if "protocol" in one:
                one["protocol"] = note(one["protocol"])
        found["data"] = note(found["data"])
        return {
            "id": spec.id,
            "kind": spec.kind,
            "dataset": spec.key.dataset,
            "fraction": spec.key.fraction,
            "method": spec.key.method,
            "seed": spec.config.seed,
            "trial": spec.trial,
            "params": dict(spec.params),
            "config": note(spec.config.model_dump(mode="json")),
            "environment": note(self._environment),
            **found,
        }

    def _say(self, doing: str) -> None:
        left = self._book.left_by_place()
        total = self._book.total
        self._tell(StudyProgress(total - left.total(), total, self._time(left), doing))

    def _time(self, left: Mapping[tuple[str, float, Kind], int]) -> float | None:
        """At the mean time of runs of the same dataset, fraction and kind, else of any."""
        seconds: dict[tuple[Any, ...], list[float]] = defaultdict(list)
        for line in self._ledger.runs():
            for like in ((line["dataset"], line["fraction"], line["kind"]), (line["kind"],), ()):
                seconds[like].append(line["seconds"])
        if not seconds:
            return None
        total = 0.0
        for like, count in left.items():
            known = next(k for k in (like, like[2:], ()) if k in seconds)
            total += count * sum(seconds[known]) / len(seconds[known])
        return total / self._pool.slots


def _named(spec: RunSpec) -> str:
    which = f"trial {spec.trial}" if spec.kind == "trial" else f"seed {spec.config.seed}"
    which = "" if spec.kind == "reference" else f" {which}"
    return f"{spec.key.dataset} at {spec.key.fraction:g}: {spec.key.method}{which}"
