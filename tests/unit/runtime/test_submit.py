"""What is wrong with a submission is said in one line, before anything is sent.

Real: HTTP servers on loopback that answer as a job server would, or don't.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray

from job_checkout import write_checkout
from twotower.core.errors import ConfigError, InputError
from twotower.runtime import submit
from twotower.runtime.job_access import Access, check_cluster, find_access
from twotower.runtime.job_options import Options, load_options
from twotower.runtime.submit import JobState

ROOT = Path(__file__).parents[3]
TOKEN = "0123456789abcdef"


class Answers(BaseHTTPRequestHandler):
    status = 200
    body = b""
    token: str | None = None

    def do_GET(self) -> None:
        sent = self.headers.get("Authorization")
        code = self.status
        if self.token is not None and sent != f"Bearer {self.token}":
            code = 403 if sent else 401
        self.send_response(code)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


@contextmanager
def server(**answers: Any) -> Iterator[str]:
    handler = type("Handler", (Answers,), answers)
    with HTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


def version(text: str) -> bytes:
    return json.dumps({"ray_version": text}).encode()


@pytest.fixture(autouse=True)
def _no_ray_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return write_checkout(tmp_path)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:8265", "ray://head:10001", "ftp://head", "http://", "auto", "http://u:p@head:1"],
)
def test_an_address_of_no_job_server_is_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"^cluster address") as error:
        find_access(address)
    assert "u:p" not in str(error.value)


def test_a_cluster_that_answers_well_is_accepted() -> None:
    with server(body=version(ray.__version__), token=TOKEN) as address:
        assert check_cluster(Access(address, TOKEN)) == ray.__version__


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"token": TOKEN}, "asks for a token; name its file by --token or RAY_AUTH_TOKEN_PATH"),
        ({"status": 404}, "answers HTTP 404"),
        ({"body": b"<html>"}, "is no Ray job server"),
        ({"body": version("1.13.0")}, f"runs Ray 1.13.0, here is {ray.__version__}"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_named_with_the_reason(
    answers: dict[str, Any], told: str
) -> None:
    with server(**answers) as address, pytest.raises(InputError) as error:
        check_cluster(Access(address))
    assert str(error.value).startswith(f"cluster address {address}: ")
    assert told in str(error.value)


def test_a_dead_cluster_and_an_unknown_host_are_said() -> None:
    with server() as address:
        pass
    with pytest.raises(InputError, match="nothing answers there"):
        check_cluster(Access(address))
    with pytest.raises(InputError, match=r"no machine of that name|can't be reached"):
        check_cluster(Access("http://nowhere.invalid:8265"))


def test_ray_s_own_token_is_taken_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert find_access(None).token is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text(TOKEN)
    assert find_access(None).token == TOKEN


def test_the_token_comes_from_the_argument_then_from_rays_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(f"{TOKEN}\n")
    second.write_text("other")
    assert find_access(None).token is None
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(second))
    assert find_access(None).token == "other"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "third")
    assert find_access(None).token == "third"
    access = find_access(None, first)
    assert (access.token, access.token_source) == (TOKEN, str(first))
    assert TOKEN not in repr(access)
    with server(token="another") as address, pytest.raises(InputError) as error:
        check_cluster(Access(address, TOKEN, str(first)))
    assert f"refuses the token of {first}" in str(error.value)
    assert TOKEN not in str(error.value)


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"two\nlines"])
def test_a_token_file_that_holds_none_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"^token file {path}: "):
        find_access(None, path)


SEARCH = ["configs/tiny.yaml", "--space", "configs/space.yaml"]
BAD = {
    "action": ("tarin", [], "choose one of prepare, train"),
    "no config": ("train", [], "jobs/train.py: the following arguments are required: CONFIG"),
    "unknown option": ("train", ["configs/tiny.yaml", "--sett", "a=b"], "--sett"),
    "missing config": ("train", ["configs/tyni.yaml"], "has to be a file inside"),
    "outside": ("train", ["../tiny.yaml"], "has to be a file inside"),
    "absolute": ("train", ["/etc/hosts"], "has to be a file inside"),
    "override": ("train", ["configs/tiny.yaml", "--set", "ssl.wieght=1"], "ssl.wieght"),
    "value": ("train", ["configs/tiny.yaml", "--set", "loss.temperature=0"], "loss.temperature"),
    "space": ("search", ["configs/tiny.yaml", "--space", "configs/tiny.yaml"], "configs/tiny.yaml"),
    **{
        f"{flag}={count}": (
            "search",
            [*SEARCH, flag, count],
            f"argument {flag}: {count!r}: must be",
        )
        for flag in ("--trials", "--max-concurrent")
        for count in ("0", "-3", "x", "1.5", "")
    },
    "more trials": ("resume", ["/s/search", "--trials", "0"], "argument --trials: '0': must be"),
    "repeats": ("benchmark", ["/s/bench", "--repeats", "0"], "argument --repeats: '0': must be"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_job_that_would_fail_there_fails_here(name: str, checkout: Path) -> None:
    action, arguments, told = BAD[name]
    with pytest.raises(InputError) as error:
        submit.submit(action, arguments, Options(working_dir=checkout))
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 2, 2),
        ("FAILED", 4, 4),
        ("FAILED", -9, 3),
        ("FAILED", None, 3),
        ("STOPPED", None, 130),
    ],
)
def test_a_jobs_end_is_an_exit_code(status: str, code: int | None, expected: int) -> None:
    state = JobState("job", status, code, "")
    assert state.ended
    assert submit.exit_code(state) == expected


@pytest.mark.parametrize("name", ["loopback", "remote"])
def test_the_shipped_cluster_files_fit(name: str) -> None:
    options = load_options(ROOT / f"configs/cluster/{name}.yaml")
    assert options.shares_disk is (None if name == "loopback" else False)
    assert find_access(options.address).is_loopback
    assert options.token_path
    assert options.token_path.is_absolute()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("adress: http://h:1", "adress: unknown key; known keys: address"),
        ("max_mb: 0", "max_mb: "),
        ("num_cpus: -1", "num_cpus: "),
        ("token_path: 5", "token_path: "),
        ("- 1", "config: "),
    ],
)
def test_a_broken_cluster_file_is_refused_with_its_key(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"^{path}: {told}"):
        load_options(path)
    with pytest.raises(ConfigError, match="can't be read"):
        load_options(tmp_path / "missing.yaml")
