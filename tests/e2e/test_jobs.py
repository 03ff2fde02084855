"""Every file of jobs/ and tune/ as a submitted job on a token-authenticated cluster of two CPUs.

Real: the cluster, the token, the uploads, the jobs' training. Small: data and model.
"""

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from job_checkout import STUDY
from small_experiment import SPACE, small_document, write_yaml
from token_cluster import TokenCluster, token_cluster
from twotower.core.errors import InputError
from twotower.core.loading import load_config
from twotower.core.storage import Store
from twotower.runtime import submit as jobs
from twotower.serving.reader import Export
from twotower.study.command import read_study
from twotower.study.ledger import Ledger

ROOT = Path(__file__).parents[2]
CONFIG = "configs/small.yaml"
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout as a user has it, with a config of their own and data beside it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("platform", "jobs", "tune"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "configs").mkdir()
    document = small_document(folder)
    document["storage"] = {"runs": "runs", "prepared": "prepared"}
    document["cluster"] = {}
    document["train"]["num_epochs"] = 2
    write_yaml(folder / CONFIG, document)
    write_yaml(folder / "configs/space.yaml", SPACE)
    (folder / "runs").mkdir()
    (folder / "runs" / "large").write_bytes(bytes(1 << 20))
    (folder / ".env").write_text("SECRET=canary")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[TokenCluster]:
    with token_cluster(num_cpus=2) as running:
        yield running
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert str(running.token_path.parent) not in listed.stdout


@pytest.fixture
def options(checkout: Path, cluster: TokenCluster) -> jobs.Options:
    return jobs.Options(
        address=cluster.address, token_path=cluster.token_path, working_dir=checkout
    )


def run(options: jobs.Options, action: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a submitted job."""
    lines: list[str] = []
    job = jobs.submit(action, arguments, options, read_study=read_study)
    assert not job.attached
    state = jobs.follow(job, lines.append)
    return jobs.exit_code(state), "".join(lines)


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_prepare_train_and_evaluate_run_as_jobs(options: jobs.Options, checkout: Path) -> None:
    code, told = run(options, "prepare", CONFIG)
    assert code == 0, told
    prepared = only(checkout / "prepared", "small-*/manifest.json").parent
    assert str(prepared) in told

    code, told = run(options, "train", CONFIG, "--set", "train.num_workers=2")
    assert code == 0, told
    folder = only(checkout / "runs", "small-*/record.json").parent
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "done"
    assert f"{folder}" in told.splitlines()[-1]
    assert "popularity" in told
    assert (folder / "report.html").exists()
    evaluated = json.loads((folder / "evaluation/test.json").read_text())

    code, told = run(options, "evaluate", f"runs/{folder.name}")
    assert code == 0, told
    again = json.loads((folder / "evaluation/test.json").read_text())
    assert again["summary"] == evaluated["summary"]

    out = ["-o", "out/shop"]
    code, told = run(options, "export", f"runs/{folder.name}", "--names", "brand", *out)
    assert code == 0, told
    assert told.splitlines()[-1] == f"{checkout}/out/shop"
    assert len(Export.open(checkout / "out/shop").recommend("q1", 5)) == 5


def test_a_search_runs_as_a_job_and_goes_on_as_another(
    options: jobs.Options, checkout: Path
) -> None:
    arguments = [CONFIG, "--space", "configs/space.yaml", "--trials", "2"]
    code, told = run(options, "search", *arguments)
    assert code == 0, told
    folder = only(checkout / "runs", "small-search-*")
    winner = load_config(folder / "best.yaml").config
    assert winner.name == "small-tuned"
    assert str(folder / "best.yaml") in told

    code, told = run(options, "resume", f"runs/{folder.name}", "--trials", "3")
    assert code == 0, told
    assert "3 trials, 2 of them from before" in told

    code, told = run(options, "report", f"runs/{folder.name}")
    assert code == 0, told
    assert "3 of 3" in told
    assert "best: trial" in told


def test_a_study_runs_as_a_job_and_its_ledger_stays_where_it_was_submitted(
    options: jobs.Options, checkout: Path
) -> None:
    document = STUDY | {
        "folder": "docs/little",
        "set": {"train.num_epochs": 1},
        "datasets": {"small": {"config": "small.yaml"}},
    }
    write_yaml(checkout / "configs/study.yaml", document)
    code, told = run(options, "study", "configs/study.yaml")
    assert code == 0, told
    assert told.splitlines()[-1] == "docs/little/index.html"
    assert "2 of 2 runs" in told
    lines = Ledger(Store(checkout / "docs/little")).runs()
    assert [line["trial"] for line in lines] == [0, 1]
    assert (checkout / "docs/little/index.html").exists()
    code, told = run(options, "study", "configs/study.yaml")
    assert code == 0, told
    assert Ledger(Store(checkout / "docs/little")).runs() == lines, "nothing was run again"


def test_the_documented_command_of_ray_itself_works(cluster: TokenCluster, checkout: Path) -> None:
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ray"), "job", "submit", "--working-dir", checkout,
            "--runtime-env-json",
            '{"env_vars": {"PYTHONPATH": "platform"}, "excludes": ["/runs", "/data"]}',
            "--", "python", "jobs/prepare.py", CONFIG,
            "--set", f"storage.prepared={checkout}/prepared",
        ],
        env=cluster.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing changed, nothing done" in done.stdout


def test_more_workers_than_the_cluster_has_end_with_exit_code_2(options: jobs.Options) -> None:
    code, told = run(options, "train", CONFIG, "--set", "train.num_workers=8", "--set", "seed=9")
    assert code == InputError.exit_code, told
    assert "train.num_workers: 8 workers need 8 CPUs, the cluster has 2" in told
    assert "Traceback" not in told


def test_a_running_job_is_attached_to_and_a_stopped_one_can_go_on(
    options: jobs.Options, checkout: Path
) -> None:
    arguments = [CONFIG, "--set", "train.num_epochs=100000", "--set", "name=long"]
    job = jobs.submit("train", arguments, options)
    again = jobs.submit("train", arguments, options)
    assert (again.id, again.attached) == (job.id, True)
    until = time.monotonic() + 300
    while not list((checkout / "runs").glob("long-*/best.json")):
        assert not jobs.status(job).ended, jobs.follow(job, print)
        assert time.monotonic() < until
        time.sleep(0.5)
    state = jobs.stop(jobs.attach(job.id, options))
    assert state.status == "STOPPED"
    record = json.loads(only(checkout / "runs", "long-*/record.json").read_text())
    assert record["status"] == "stopped"


def test_no_token_and_a_wrong_one_are_refused_and_start_nothing(
    options: jobs.Options,
    cluster: TokenCluster,
    checkout: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A local Ray, started by a test before this one, leaves a token in the home folder and its
    # mode in the variables of this process.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    before = len(jobs.listed(options))
    open_options = jobs.Options(address=cluster.address, working_dir=checkout)
    with pytest.raises(InputError, match=r"asks for a token; name its file by --token"):
        jobs.submit("prepare", [CONFIG], open_options)
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64)
    bad_options = jobs.Options(address=cluster.address, working_dir=checkout, token_path=wrong)
    with pytest.raises(InputError, match=rf"refuses the token of {wrong}"):
        jobs.submit("prepare", [CONFIG], bad_options)
    for method, path in (("GET", "/api/jobs/"), ("POST", "/api/jobs/"), ("DELETE", "/api/jobs/x")):
        request = urllib.request.Request(f"{cluster.address}{path}", b"{}", method=method)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == 401
        refused.value.close()
    assert len(jobs.listed(options)) == before


def test_no_secret_reaches_a_job(options: jobs.Options, cluster: TokenCluster) -> None:
    token = cluster.token_path.read_text()
    request = urllib.request.Request(
        f"{cluster.address}/api/jobs/", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        described = answer.read().decode()
    assert "jobs/prepare.py" in described
    assert token not in described
    assert str(cluster.token_path) not in described
    assert "canary" not in described
