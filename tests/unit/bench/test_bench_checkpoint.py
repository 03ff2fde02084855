"""The measure of checkpoints runs, on a state of a few rows; its figures are those of a big one."""

import json
from pathlib import Path

from twotower.bench.checkpoint import Sizes, measure_checkpoints


def test_a_small_measure_is_whole(tmp_path: Path) -> None:
    sizes = Sizes(items=50, queries=40, width=4, hidden=(8,), batch=64, steps=2, repeats=2)
    found = measure_checkpoints(tmp_path, sizes)
    json.dumps(found, allow_nan=False)
    assert found["state_mb"] > 0
    assert found["save_s"]["min"] <= found["save_s"]["median"] <= found["save_s"]["max"]
    lost = found["lost_share"]
    assert 0 < lost["spare_cpu"] <= lost["no_spare_cpu"] < 0.02
    assert not list(tmp_path.iterdir()), "nothing is left"
