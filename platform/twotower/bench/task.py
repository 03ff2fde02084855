"""One measurement in a process of its own, with its threads and CPUs pinned."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from twotower.core.errors import RunError

_TIMEOUT_S = 1800.0
"""Longest that a measurement may take; what hangs is ended."""

_THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_CLUSTER_SETTINGS = ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR")
"""A submitted job's: a measurement starts a cluster of its own."""


def run_task(module: str, spec: Mapping[str, Any], *, threads: int, cpus: int) -> dict[str, Any]:
    """Run `python -m module SPEC` and return the JSON document of its last line.

    Args:
        module: one whose `main` is `serve`.
        spec: plain JSON.
        threads: threads of every numeric library in the process.
        cpus: CPUs that the process and its children may use.

    Raises:
        RunError: it failed; the last line that it wrote to stderr is in the message.
    """
    process = start_task(module, spec, threads=threads, cpus=cpus)
    return finish_task(process, module)


def start_task(
    module: str, spec: Mapping[str, Any], *, threads: int, cpus: int
) -> subprocess.Popen[str]:
    """Start a measurement; `finish_task` waits for it."""
    command = [sys.executable, "-m", module, json.dumps({"cpus": cpus, "spec": dict(spec)})]
    settings = dict.fromkeys(_THREAD_SETTINGS, str(threads))
    kept = {key: value for key, value in os.environ.items() if key not in _CLUSTER_SETTINGS}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**kept, **settings},
    )


def finish_task(process: subprocess.Popen[str], module: str) -> dict[str, Any]:
    """Wait for a measurement; its document, or RunError."""
    try:
        stdout, stderr = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        process.terminate()
        raise RunError(f"{module}: no result within {_TIMEOUT_S:g} s") from error
    except BaseException:
        process.terminate()  # not kill: a task may have a cluster to end
        process.wait()
        raise
    if process.returncode:
        said = stderr.strip().splitlines() or ["it wrote nothing"]
        raise RunError(f"{module}: ended with {process.returncode}: {said[-1]}")
    return json.loads(stdout.splitlines()[-1])


def serve(measure: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """The `main` of a measuring module: read the spec, measure, print the document."""
    given = json.loads(sys.argv[1])
    # Before torch's first parallel work: its threads inherit the CPUs. So do Ray's processes.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given["cpus"]])
    document = measure(given["spec"])
    sys.stdout.write("\n" + json.dumps(document) + "\n")
