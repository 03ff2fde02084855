"""A Ray cluster of our own for tests: token-authenticated, loopback only, ended by its processes."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT_S = 180.0


@dataclass(frozen=True)
class TokenCluster:
    """A running cluster."""

    address: str
    token_path: Path

    def environment(self) -> dict[str, str]:
        """Variables by which Ray's own command line finds it, and our Python as `python`."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return {
            **own,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_path),
            "RAY_API_SERVER_ADDRESS": self.address,
        }


@contextmanager
def token_cluster(num_cpus: int) -> Iterator[TokenCluster]:
    """Start a head with so many CPUs and end it; its folder is short for the sockets' paths."""
    folder = Path(tempfile.mkdtemp(prefix="tt-", dir="/tmp"))
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    ports = _free_ports(7)
    cluster = TokenCluster(f"http://127.0.0.1:{ports[1]}", token)
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
        "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--include-dashboard=true",
        f"--port={ports[0]}", f"--dashboard-port={ports[1]}", f"--num-cpus={num_cpus}",
        f"--ray-client-server-port={ports[2]}", f"--dashboard-agent-listen-port={ports[3]}",
        f"--dashboard-agent-grpc-port={ports[4]}", f"--metrics-export-port={ports[5]}",
        f"--runtime-env-agent-port={ports[6]}", f"--temp-dir={folder / 'ray'}",
        f"--object-store-memory={150 << 20}", "--disable-usage-stats",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        head = subprocess.Popen(
            command,
            env=cluster.environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_up(cluster.address, head, folder / "log")
        yield cluster
    finally:
        _end_group(head)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_up(address: str, head: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until:
        if head.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=5).close()
        except urllib.error.HTTPError as error:
            if error.code == 401:
                return
        except OSError:
            pass
        time.sleep(0.3)
    raise RuntimeError(f"the cluster did not start:\n{log.read_text(errors='replace')[-3000:]}")


def _end_group(head: subprocess.Popen[bytes]) -> None:
    """End the head and what it started: all of it is in the session that we made."""
    for number, patience_s in ((signal.SIGTERM, 5), (signal.SIGKILL, 10)):
        try:
            os.killpg(head.pid, number)
        except ProcessLookupError:
            break
        try:
            head.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue
    head.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
