"""Runs a study: what is ready is started, what ended is written down, until nothing is left.

What is ready follows from the ledger alone, and each trial of a cell's search from those before it,
so a study that was cut off ends as the unbroken one does.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from twotower.core.errors import RunError, StoppedError
from twotower.core.lease import Lease
from twotower.core.records import command
from twotower.core.storage import Store
from twotower.data.pipeline import prepare
from twotower.runtime.cluster import connect
from twotower.runtime.pool import Ended, Pool
from twotower.runtime.run_folder import location
from twotower.runtime.stopping import stop_requests, stopped_at_once
from twotower.study.asked import Asked, whole
from twotower.study.book import Book
from twotower.study.cells import RunSpec
from twotower.study.ledger import Ledger
from twotower.study.load import Study
from twotower.study.run import RunTask, execute
from twotower.study.time_left import time_left

_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class StudyProgress:
    """Where the runs that were asked for stand."""

    done: int
    total: int
    left_s: float | None
    """Seconds to the end at the pace of runs like those that are left; None while none has ended.
    """

    doing: str
    """What happens now."""


Tell = Callable[[StudyProgress], None]


def run_study(
    study: Study,
    ledger: Ledger,
    tell: Tell,
    *,
    asked: Asked | None = None,
    most: int | None = None,
    verbose: bool = False,
) -> None:
    """Run what the ledger lacks; where it lacks nothing, nothing is started.

    Args:
        study: the plan.
        ledger: its finished runs; grows.
        tell: hears of every start and end.
        asked: the runs that may be started; None = all.
        most: runs at once; None = as many as the cluster's CPUs hold.
        verbose: let Ray's own messages reach the console.

    Raises:
        InputError: a dataset can't be prepared, the cluster can't hold one run, or another process
            runs this study or one with the same folder.
        RunError: runs failed; all others were made, the same command tries these again.
        StoppedError: asked to stop; the same command goes on.
    """
    asked = asked or whole(study)
    if not Book(study, ledger, asked).left:
        return
    first, folder = study.cells[0].config, Store(study.plan.folder)
    work = Store(first.storage.runs).child(f"study-{study.plan.name}")
    work.require_writable("storage.runs")
    with (
        Lease(work),
        # One lease where both are one folder; nothing is swept where other runs may lie below.
        nullcontext()
        if location(folder) == location(work)
        else Lease(folder, what="the study's folder", sweep=False),
        stopped_at_once(f"{study.plan.name}: stopped; the same command goes on"),
        connect(first.cluster, verbose=verbose),
        Pool(f"{study.source}: one run", cpus=study.plan.threads, most=most) as pool,
    ):
        ledger.take_over()
        book = Book(study, ledger, asked)  # the ledger may have grown before the lease was ours
        crew = _Crew(study, ledger, book, pool, work, tell)
        crew.prepare(asked)
        with stop_requests() as should_stop:
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

    def prepare(self, asked: Asked) -> None:
        """Prepare the data of all runs, one dataset after the other."""
        for place, config in self._study.places().items():
            if place in asked.places:
                self._say(f"preparing {place[0]} at {place[1]:g}")
                self._prepared[place] = location(Store(prepare(config).path))

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
        found["environment"] = note({**found["environment"], "command": command()})
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
            **found,
        }

    def _say(self, doing: str) -> None:
        left, total = list(self._book.left_by_cell()), self._book.total
        seconds = time_left(left, self._ledger.runs(), self._pool.slots)
        done = total - sum(one.count for one in left)
        self._tell(StudyProgress(done, total, seconds, doing))


def _named(spec: RunSpec) -> str:
    which = f"trial {spec.trial}" if spec.kind == "trial" else f"seed {spec.config.seed}"
    which = "" if spec.kind == "reference" else f" {which}"
    return f"{spec.key.dataset} at {spec.key.fraction:g}: {spec.key.method}{which}"
