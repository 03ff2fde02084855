"""The small study of the repository, as a user runs it; its page in a real browser."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

STUDY = Path(__file__).parents[2] / "configs" / "studies" / "paper_small.yaml"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
MINUTES = 10


@pytest.mark.slow
def test_the_small_study_ends_within_ten_minutes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "twotower.cli", "study", str(STUDY)]
    started = time.monotonic()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 60 * MINUTES
    out = tmp_path / "runs" / "paper_small"
    tables = json.loads((out / "tables.json").read_text())
    assert tables["complete"]
    assert {(row["dataset"], row["method"]) for row in tables["rows"]} >= {
        (dataset, method)
        for dataset in ("debian", "debian_by_source")
        for method in ("baseline", "so", "rfm", "cfm", "popularity", "content", "item_knn")
    }
    assert {claim["verdict"] for claim in json.loads((out / "claims.json").read_text())}
    assert "32 of 32" not in done.stderr  # no line a run on a console that nobody watches
    if BROWSER is None:
        return
    picture = tmp_path / "page.png"
    subprocess.run(
        [
            *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(f"--screenshot={picture}", "--window-size=1360,4000", f"file://{out}/index.html"),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert picture.stat().st_size > 50_000, "the picture is blank"
