import pytest

from twotower.training import meters
from twotower.training.meters import Meter


class Clock:
    """Stands in for the host's clock: moves only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_a_meter_adds_up_phases_waits_and_rows_and_starts_afresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(meters, "time", clock)

    def slow_items() -> list[int]:
        return [1, 2]

    meter = Meter()
    for _ in meter.timed(slow_items(), "data_wait"):
        with meter.time("step"):
            clock.now += 2.0
        meter.add_step(50)
    clock.now += 1.0
    summary = meter.summary()
    assert summary == {
        "data_wait_s": 0.0,
        "step_s": 4.0,
        "wall_s": 5.0,
        "steps": 2.0,
        "rows_per_s": 20.0,
    }
    clock.now += 1.0
    assert meter.summary() == {"wall_s": 1.0, "steps": 0.0, "rows_per_s": 0.0}
