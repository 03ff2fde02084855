"""Where no trial is left to run, a search hands out the journal's best, wherever a kill fell.

Real: the files of a search, the process that dies between two calls of the disk. No Ray: it may not
even start here.
"""

import itertools
from pathlib import Path

import pytest
import ray

from crash_disk import Killed
from crash_trials import Note, QuietDisk, note
from tiny_config import tiny_config
from twotower.core import files
from twotower.core.config import ExperimentConfig
from twotower.core.errors import InputError, RunError
from twotower.core.lease import Lease
from twotower.core.loading import load_config
from twotower.core.space_loading import build_space
from twotower.core.storage import Store
from twotower.runtime.journal import Journal, Trial
from twotower.runtime.search import SearchResult, search, search_name
from twotower.runtime.search_files import (
    RESULT,
    WINNER,
    SearchSubject,
    winner_config,
    write_result,
    write_subject,
)
from twotower.runtime.search_plan import SearchPlan

__all__ = ["note"]

SPACE = build_space({"ssl.weight": {"low": 0.03, "high": 3.0}}, tiny_config(), "space")
WORSE = Trial(0, {"ssl.weight": 0.1}, "complete", 0.4, 2, ((1, 0.3), (2, 0.4)))
BETTER = Trial(1, {"ssl.weight": 0.9}, "complete", 0.55, 2, ((1, 0.5), (2, 0.55)))
FAILED = Trial(0, {"ssl.weight": 0.2}, "failed", error="boom")
FACTS = {"seconds": 12.5, "total": 2, "scheduler": "ASHA", "certificate": {"prepared": "1f"}}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ray, "init")


class Cut:
    """A search of two trials, written down to some point."""

    def __init__(self, folder: Path) -> None:
        self.config: ExperimentConfig = tiny_config(storage__runs=str(folder))
        self.subject = SearchSubject(self.config, SPACE)
        self.store = Store(folder).child(search_name(self.config, SPACE))
        self.journal = Journal(self.store)
        write_subject(self.store, self.subject)

    def result(self) -> None:
        """What a call writes when it starts, and again when it ends."""
        write_result(self.store, self.subject, self.journal.trials(), FACTS)

    def again(self, trials: int = 2) -> SearchResult:
        """The same call again."""
        return search(self.config, SPACE, SearchPlan(trials))

    def check(self, found: SearchResult, *trials: Trial) -> None:
        """All that is handed out tells of these trials, the last of which is the best."""
        best = trials[-1]
        assert (found.best, found.seconds) == (best, FACTS["seconds"])
        assert load_config(found.winner).config == winner_config(self.subject, best)
        document = self.store.read_json(RESULT)
        assert [t["number"] for t in document["trials"]] == [t.number for t in trials]
        assert (document["best"], document["counts"]["complete"]) == (best.number, len(trials))
        assert {key: document[key] for key in FACTS} == FACTS


def test_a_kill_at_any_write_of_the_end_leaves_no_wrong_winner(
    tmp_path: Path, note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    for die_at in itertools.count():
        cut = Cut(tmp_path / str(die_at))
        cut.journal.put(WORSE)
        cut.result()
        cut.journal.put(WORSE, BETTER)
        disk = note(Path(cut.store.uri))
        disk.die_at = die_at
        try:
            cut.result()
        except Killed:
            whole = False
        else:
            whole = True
        monkeypatch.setattr(files, "DISK", QuietDisk())
        cut.check(cut.again(), WORSE, BETTER)
        if whole:
            assert die_at > 6, "two files, each made, written, synced and renamed"
            break


def test_a_kill_of_a_first_call_s_end_leaves_a_winner(tmp_path: Path) -> None:
    cut = Cut(tmp_path)
    cut.result()
    cut.journal.put(WORSE, BETTER)
    assert not cut.store.exists(WINNER)
    cut.check(cut.again(), WORSE, BETTER)


def test_a_winner_that_was_deleted_is_written_again(tmp_path: Path) -> None:
    cut = Cut(tmp_path)
    cut.journal.put(WORSE, BETTER)
    cut.result()
    cut.store.delete(WINNER)
    cut.check(cut.again(), WORSE, BETTER)


def test_fewer_trials_than_have_ended_hand_out_the_best_of_all(tmp_path: Path) -> None:
    cut = Cut(tmp_path)
    cut.journal.put(WORSE)
    cut.result()
    cut.journal.put(WORSE, BETTER)
    cut.check(cut.again(trials=1), WORSE, BETTER)


def test_a_whole_result_is_only_read_and_another_is_written_by_one_process(tmp_path: Path) -> None:
    cut = Cut(tmp_path)
    cut.journal.put(WORSE, BETTER)
    cut.result()
    before = cut.store.read_bytes(RESULT), cut.store.read_bytes(WINNER)
    with Lease(cut.store):
        cut.check(cut.again(), WORSE, BETTER)
        assert (cut.store.read_bytes(RESULT), cut.store.read_bytes(WINNER)) == before
        cut.store.delete(WINNER)
        with pytest.raises(InputError, match="is in use by"):
            cut.again()


def test_a_search_without_a_winner_stays_one(tmp_path: Path) -> None:
    cut = Cut(tmp_path)
    cut.result()
    cut.journal.put(FAILED)
    with pytest.raises(RunError, match="none of 1 trials ended with a metric; trial 0: boom"):
        cut.again(trials=1)
    assert cut.store.read_json(RESULT)["counts"]["failed"] == 1
    assert not cut.store.exists(WINNER)
