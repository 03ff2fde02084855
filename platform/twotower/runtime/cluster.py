"""The Ray cluster a command works on: joined where there is one, else started quietly and ended."""

import logging
import os
import re
import signal
import site
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
from ray._private.ray_logging import stdout_deduplicator
from ray.data import DataContext

import twotower
from twotower.core.config import Cluster
from twotower.core.errors import ResourceError, StoppedError, TwotowerError
from twotower.runtime.environment import environment

_ADDRESS = "RAY_ADDRESS"
_POLL_S = 0.5
_PROBE_S = 10.0
"""Longest wait for a connection to a cluster's address."""
_EVERY_LINE = re.compile("")
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or Ray warns of a change to come
    # A hung worker never leaves its process group. 30 s by default; read by Ray Train's controller,
    # which takes it from its node alone.
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "2",
}
"""Environment of the processes of a local cluster."""


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """What a cluster has in all, busy or not."""

    cpus: float
    gpus: float
    nodes: int
    is_local: bool
    """Whether this process started it, and will end it."""


@contextmanager
def connect(cluster: Cluster, *, verbose: bool = False) -> Iterator[ClusterInfo]:
    """Be connected to a cluster inside the block.

    A connection that this process already has is used and kept; so is the cluster of a submitted
    job (`RAY_ADDRESS`) or of `cluster.address`. Otherwise a local cluster lives for the block.

    Args:
        cluster: the config's section.
        verbose: let Ray's own logs and the workers' output reach the console.

    Raises:
        ResourceError: no cluster answers at the address, or it refuses the connection.
    """
    if ray.is_initialized():
        yield _info(is_local=False)
        return
    address = cluster.address or os.environ.get(_ADDRESS)
    level = logging.INFO if verbose else logging.ERROR
    where = "cluster: a local one"
    if address:
        where = f"{'cluster.address' if cluster.address else _ADDRESS} {address!r}"
        _probe(address, where)
    try:
        with _signals_kept():
            _init(cluster, address, verbose, level)
    except TwotowerError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ResourceError(f"{where}: can't be used: {reason}") from error
    try:
        _hush(verbose)
        yield _info(is_local=not address)
    finally:
        ray.shutdown()


def require(what: str, cpus: float, gpus: float = 0) -> None:
    """Refuse at once what the cluster can never give.

    Args:
        what: who asks, beginning with the config's key: "train.num_workers: 8 workers".
        cpus: CPUs asked for in all.
        gpus: GPUs asked for in all.

    Raises:
        ResourceError: the cluster has less in all; the message says of what and how much.
    """
    has = ray.cluster_resources()
    for name, wanted in (("CPU", cpus), ("GPU", gpus)):
        if wanted > has.get(name, 0):
            raise ResourceError(
                f"{what} need {wanted:g} {name}s, the cluster has {has.get(name, 0):g}; "
                "ask for less or use a larger cluster"
            )


def wait_free(what: str, cpus: float, gpus: float = 0, *, timeout_s: float) -> None:
    """Wait until what others hold is free; ResourceError after ``timeout_s`` seconds."""
    until = time.monotonic() + timeout_s
    wanted = {"CPU": cpus, "GPU": gpus}
    while True:
        free = ray.available_resources()
        if all(free.get(name, 0) >= amount for name, amount in wanted.items()):
            return
        if time.monotonic() > until:
            short = next(name for name, amount in wanted.items() if free.get(name, 0) < amount)
            raise ResourceError(
                f"{what} need {wanted[short]:g} {short}s, only {free.get(short, 0):g} came free "
                f"within {timeout_s:g} s (train.start_timeout_s); other work holds the rest"
            )
        time.sleep(_POLL_S)


def _probe(address: str, where: str) -> None:
    """Refuse an address where nothing listens: Ray tries for many minutes, and prints each try."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ResourceError(f"{where}: must be host:port, ray://host:port or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S).close()
    except (OSError, OverflowError) as error:
        raise ResourceError(f"{where}: no cluster answers there: {error}") from error


def _init(cluster: Cluster, address: str | None, verbose: bool, level: int) -> None:
    if address:
        ray.init(address=address, log_to_driver=verbose, logging_level=level)
    else:
        _start(cluster, verbose, level)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back a handler of SIGTERM that this process has set: Ray replaces it when it connects.

    Until then Ray answers SIGTERM with an exit, which becomes StoppedError.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as end:
        if end.code == signal.SIGTERM and callable(before):
            raise StoppedError("stopped while Ray started; the same command goes on") from end
        raise
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _start(cluster: Cluster, verbose: bool, level: int) -> None:
    """Start a local cluster whose workers find this package, installed or not."""
    paths = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    root = str(Path(twotower.__file__).parents[1])
    if root not in site.getsitepackages():
        paths.insert(0, root)
    # Absolute: Ray Train changes its workers' directory.
    absolute = os.pathsep.join(str(Path(entry).absolute()) for entry in paths)
    # What the user has set wins, the path aside.
    wanted = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    if absolute:
        wanted["PYTHONPATH"] = absolute
    with environment(wanted):
        ray.init(
            address="local",
            num_cpus=cluster.num_cpus,
            object_store_memory=cluster.object_store_mb << 20,
            include_dashboard=False,
            log_to_driver=verbose,
            logging_level=level,
        )


def _hush(verbose: bool) -> None:
    """Keep Ray off the console.

    Its listener prints the deaths of workers to stdout, `log_to_driver` or not, and has no public
    switch once Ray is imported.
    """
    stdout_deduplicator.skip_re = None if verbose else _EVERY_LINE
    DataContext.get_current().enable_progress_bars = verbose
    logging.getLogger("ray.data").setLevel(logging.INFO if verbose else logging.ERROR)


def _info(*, is_local: bool) -> ClusterInfo:
    has = ray.cluster_resources()
    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    return ClusterInfo(has.get("CPU", 0), has.get("GPU", 0), nodes, is_local)
