"""The loop without Ray needs no Ray."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

CODE = """
import sys
for name in ("ray", "optuna"):
    sys.modules[name] = None  # as if it were not installed
sys.path[:0] = [{platform!r}, {tests!r}]
from pathlib import Path
from tiny_run import tiny_run
from twotower.core.storage import Store
from twotower.runtime.reference import train_reference
config, prepared = tiny_run(Path({folder!r}), train__num_epochs=1)
outcome = train_reference(config, prepared, store=Store({folder!r} + "/run"))
print(outcome.last_step, sorted(outcome.evaluations))
"""


def test_reference_trains_and_evaluates_with_ray_uninstalled(tmp_path: Path) -> None:
    paths = {"platform": str(ROOT / "platform"), "tests": str(ROOT / "tests")}
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(folder=str(tmp_path), **paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "13 ['test', 'validation']"
