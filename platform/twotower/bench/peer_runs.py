"""Runs the peers' own scripts for W1, each in the interpreter of its environment.

The scripts are in `peers/`, each beside the file of what its environment holds. A folder of
environments has `torch/bin/python` and `tf/bin/python`.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent / "peers"


@dataclass(frozen=True, slots=True)
class Peer:
    """One script of `peers/`."""

    environment: str
    """Folder of its environment."""
    module: str
    """What its environment must be able to import."""
    precisions: tuple[str, ...] = ("float32",)


PEERS = {
    "torch_tuned": Peer("torch", "torch", ("float32", "bf16")),
    "torchrec_fused": Peer("torch", "torchrec", ("float32", "bf16")),
    "tfrs": Peer("tf", "tensorflow_recommenders"),
    "torch_naive": Peer("torch", "torch"),
}
"""By name of the script, without `.py`."""


def interpreter(environments: Path, name: str) -> Path:
    """Where the Python of a peer is expected."""
    return environments / PEERS[name].environment / "bin" / "python"


def run_peer(  # noqa: PLR0913 - the case of a run is its arguments
    name: str,
    python: Path,
    folder: Path,
    batch: int,
    *,
    ssl: bool,
    precision: str = "float32",
    threads: int = 2,
    seconds: float = 5.0,
    windows: int = 3,
    timeout_s: float = 900.0,
) -> dict[str, Any]:
    """Run one peer on one case of the workload in ``folder`` and return the line it printed.

    A peer that can't run here gives its case and `skipped`, the reason; one that started and broke
    gives its case and `failed`, the end of what it said. Never raises for a peer's fault.
    """
    case = {
        "peer": name,
        "batch": batch,
        "ssl": ssl,
        "precision": precision,
        "threads": threads,
    }
    if reason := _reason_to_skip(name, python, precision):
        return {**case, "skipped": reason}
    command = [str(python), str(SCRIPTS / f"{name}.py"), str(folder), "--batch", str(batch)]
    command += ["--threads", str(threads), "--seconds", str(seconds), "--windows", str(windows)]
    command += ["--ssl"] * ssl + ["--bf16"] * (precision == "bf16")
    try:
        done = subprocess.run(
            command,
            env=_environment(threads),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {**case, "failed": f"no result within {timeout_s:g} s"}
    return _parse(case, done)


def _reason_to_skip(name: str, python: Path, precision: str) -> str | None:
    peer = PEERS[name]
    if precision not in peer.precisions:
        return f"{name} runs in {' and '.join(peer.precisions)} only"
    recipe = f"make an environment of peers/{name}.txt there"
    if not python.exists():
        return f"{python} is missing: {recipe}"
    # find_spec looks without running the package: seconds less, and nothing printed.
    look = f"import importlib.util as u, sys; sys.exit(u.find_spec({peer.module!r}) is None)"
    found = subprocess.run(
        [str(python), "-I", "-c", look], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return f"{python} has no {peer.module}: {recipe}" if found.returncode else None


def _environment(threads: int) -> dict[str, str]:
    """Our environment without our own paths: the peer has its own packages."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return {**kept, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def _parse(case: dict[str, Any], done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """Take the last line of a script's output."""
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
    if done.returncode:
        return {**case, "failed": f"exit code {done.returncode}: {' / '.join(said)}"}
    try:
        line = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {**case, "failed": f"no line of JSON at the end of its output: {' / '.join(said)}"}
    if any(line.get(key) != value for key, value in case.items()):
        return {**case, "failed": f"it measured another case: {line}"}
    return line
