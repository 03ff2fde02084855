"""Timed windows, phases of a step, and the loop that they are taken from."""

from pathlib import Path

import pytest

from small_w1 import QUICK, small_w1
from twotower.bench import shares, windows
from twotower.bench.shares import PHASES, PhaseTimer, timed_phases
from twotower.bench.step import measure_step
from twotower.bench.w1 import Cell, cell_config
from twotower.bench.windows import Timing, Windows, spread
from twotower.core.errors import InputError, RunError
from twotower.data.prepared import Prepared
from twotower.models.two_tower import TwoTower
from twotower.runtime.reference import Machine


class Clock:
    """A clock that is turned by hand; fit, since only differences of readings are used."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return 2 * self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(windows, "time", clock)
    monkeypatch.setattr(shares, "time", clock)
    return clock


def line(step: int, rows: int, wait_s: float, step_s: float) -> dict[str, object]:
    rate = rows / (wait_s + step_s)
    return {
        "kind": "train",
        "step": step,
        "data_wait_s": wait_s,
        "step_s": step_s,
        "rows_per_s": rate,
    }


def test_windows_hold_the_lines_after_the_warm_up(clock: Clock) -> None:
    seen = Windows(Timing(windows=2, seconds=3.0, warmup_s=5.0))
    # (clock, step, rows, wait, step time); the first two lines are warm-up
    for now, step, rows, wait_s, step_s in [
        (104.0, 10, 1000, 0.1, 3.0),
        (106.0, 20, 1000, 0.1, 1.8),
        (108.0, 30, 1000, 0.1, 1.7),
        (110.0, 40, 900, 0.1, 1.8),
        (112.0, 50, 1000, 0.2, 1.6),
        (115.0, 60, 1000, 0.2, 2.6),
        (117.0, 70, 9999, 9.9, 9.9),
    ]:
        clock.now = now
        seen.see(line(step, rows, wait_s, step_s))
    assert seen.is_done
    found = seen.document()
    assert found["windows_examples_per_s"] == [round(1900 / 4), round(2000 / 5)]
    assert found["examples_per_s"] == round((1900 / 4 + 2000 / 5) / 2)
    assert found["step_ms"] == round((4 / 20 + 5 / 20) / 2 * 1e3, 2)
    assert found["cpu_us_per_example"] == round(18 / 3900 * 1e6, 2)
    assert found["data_wait_share"] == round(0.6 / 8.3, 4)
    assert found["loop_examples_per_s"] == round((1900 / 3.7 + 2000 / 4.6) / 2)
    assert found["spread"] == pytest.approx(75 / 437.5, abs=1e-4)


def test_lines_of_validation_are_no_windows(clock: Clock) -> None:
    seen = Windows(Timing(windows=1, seconds=0.0, warmup_s=0.0))
    seen.see({"kind": "validation", "step": 10})
    seen.see(line(10, 100, 0.0, 1.0))
    seen.see({"kind": "validation", "step": 20})
    assert not seen.is_done


def test_spread_is_the_range_over_the_median() -> None:
    assert spread([4.0, 10.0, 5.0]) == 6 / 5


def test_a_phase_inside_another_counts_for_itself_only(clock: Clock) -> None:
    timer = PhaseTimer()

    def inner() -> None:
        clock.now += 3

    lookup = timer.timed("lookup", inner)

    def outer() -> None:
        clock.now += 1
        lookup()
        clock.now += 2
        lookup()

    timer.timed("towers", outer)()
    clock.now += 7
    assert timer.seconds == {"towers": 3.0, "lookup": 6.0}
    found = timer.shares(wall_s=20.0, wait_s=1.0)
    assert list(found) == list(PHASES)
    assert (found["towers"], found["lookup"], found["data_wait"]) == (0.15, 0.3, 0.05)
    assert sum(found.values()) == pytest.approx(1)


def test_timed_methods_are_put_back() -> None:
    before = TwoTower.embed
    with timed_phases():
        assert TwoTower.embed is not before
    assert TwoTower.embed is before


@pytest.mark.parametrize("name", ["", "ssl", "_ssl", "0", "4096ssl", "-64"])
def test_a_cell_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="take a batch size"):
        Cell.parse(name)


@pytest.mark.parametrize("name", ["64", "128_ssl"])
def test_the_real_loop_is_timed(name: str, tmp_path: Path) -> None:
    base, prepared = small_w1(tmp_path)
    cell = Cell.parse(name)
    config = cell_config(base, cell, changes={**QUICK, "train.log_every": 10})
    timing = Timing(windows=3, seconds=0.2, warmup_s=0.1)
    found = measure_step(config, Prepared.open(prepared), Machine(), timing)
    assert sum(found["shares"].values()) == pytest.approx(1, abs=2e-3)
    assert all(found["shares"][phase] > 0 for phase in PHASES if phase != "data_wait")
    assert len(found["windows_examples_per_s"]) == 3
    # Only the last batch of an epoch is padded: rows are those of full batches, but for a few.
    assert found["examples_per_s"] == pytest.approx(cell.batch / found["step_ms"] * 1e3, rel=0.3)
    assert found["loop_examples_per_s"] >= max(found["windows_examples_per_s"]) * 0.5
    assert found["peak_rss_mb"] > 50


def test_training_that_ends_too_early_is_an_error(tmp_path: Path) -> None:
    base, prepared = small_w1(tmp_path)
    config = cell_config(base, Cell(512, ssl=False), changes={**QUICK, "train.num_epochs": 1})
    with pytest.raises(RunError, match=r"train\.num_epochs"):
        measure_step(config, Prepared.open(prepared), Machine(), Timing(seconds=1e6))
