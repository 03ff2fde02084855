"""What `twotower doctor` looks at: can this machine do the work, and does it leave a door open."""

import os
import re
import shutil
import socket
import stat
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import ray
import torch

from twotower.core.config import Cluster, Storage
from twotower.core.errors import InputError, ResourceError, RunError
from twotower.core.storage import Store
from twotower.runtime.cluster import connect

_GIB = 2**30
_MIN_DISK_GIB = 5.0
_MIN_SHM_GIB = 1.0
_PORTS = {8265: "dashboard and job server", 6379: "cluster store", 10001: "client server"}
_AUTOLOAD = (
    "RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR",
    "RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE",
    "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA",
)
"""Variables that make Ray Data unpickle what a Parquet file brings (CVE-2026-41486)."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at and found."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    mend: str = ""
    """What to do; empty where all is well."""


def checks(storage: Storage | None = None, *, start_ray: bool = True) -> list[Check]:
    """Run every check.

    Args:
        storage: where runs and prepared data would go; None = the defaults, in this folder.
        start_ray: also start and end a local Ray, which takes some seconds.
    """
    looks: list[Callable[[], Check]] = [
        _python,
        lambda: versions(_constraints()),
        _torch,
        _accelerator,
        _disk,
        _shared_memory,
        autoload,
        token_file,
        open_ports,
    ]
    found = [look() for look in looks]
    places = storage or Storage()
    found += [writable("runs", places.runs), writable("prepared", places.prepared)]
    if start_ray:
        found.append(_ray())
    return found


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Check("python", "ok", f"{version} at {sys.executable}")


def _constraints() -> Path | None:
    """`constraints.txt` beside the source root or in the current folder."""
    beside = Path(__file__).parents[3] / "constraints.txt"
    return next((p for p in (beside, Path("constraints.txt")) if p.is_file()), None)


def versions(constraints: Path | None) -> Check:
    """Installed versions against the pins they were tested with."""
    if constraints is None:
        return Check("versions", "warn", "no constraints.txt found", "run in a checkout to compare")
    text = constraints.read_text(encoding="utf-8")
    other: list[str] = []
    for match in re.finditer(r"^([\w.-]+)==(\S+)", text, re.MULTILINE):
        name, pinned = match.group(1), match.group(2)
        try:
            installed = metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            continue
        if installed != pinned:
            other.append(f"{name} {installed} (pinned {pinned})")
    if other:
        mend = f"pip install --constraint {constraints} twotower"
        return Check("versions", "warn", ", ".join(other), mend)
    return Check("versions", "ok", f"as in {constraints}")


def _torch() -> Check:
    capability = torch.backends.cpu.get_cpu_capability()
    detail = f"torch {torch.__version__}, {capability}, {torch.get_num_threads()} threads"
    if not bool(torch.isfinite(torch.ones(8, 8) @ torch.ones(8, 8)).all()):
        return Check("torch", "fail", detail, "a product of ones is not finite: reinstall torch")
    if capability in ("DEFAULT", "NO AVX"):
        return Check("torch", "warn", detail, "this CPU has no AVX2: steps will be slow")
    return Check("torch", "ok", detail)


def _accelerator() -> Check:
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Check("accelerator", "ok", f"CUDA {torch.version.cuda}: {', '.join(names)}")
    if Path("/proc/driver/nvidia").exists():
        mend = "install a CUDA build of torch, see https://pytorch.org/get-started"
        return Check("accelerator", "warn", "an NVIDIA driver, but torch can't use it", mend)
    return Check("accelerator", "ok", "none; training runs on the CPU")


def _disk() -> Check:
    free = shutil.disk_usage(Path()).free / _GIB
    temporary = shutil.disk_usage("/tmp").free / _GIB if Path("/tmp").is_dir() else free
    detail = f"{free:.1f} GiB free here, {temporary:.1f} GiB in /tmp (where Ray spills)"
    if min(free, temporary) < _MIN_DISK_GIB:
        return Check("disk", "warn", detail, f"free {_MIN_DISK_GIB:g} GiB in both")
    return Check("disk", "ok", detail)


def _shared_memory() -> Check:
    path = Path("/dev/shm")
    if not path.is_dir():
        return Check("shared memory", "ok", "no /dev/shm on this system; Ray uses files")
    size = shutil.disk_usage(path).total / _GIB
    if size < _MIN_SHM_GIB:
        mend = "start the container with --shm-size=2g, or lower cluster.object_store_mb"
        return Check("shared memory", "warn", f"/dev/shm has {size:.2f} GiB", mend)
    return Check("shared memory", "ok", f"/dev/shm has {size:.1f} GiB")


def autoload() -> Check:
    """The variables that let a data file run code must be unset."""
    if named := [name for name in _AUTOLOAD if os.environ.get(name)]:
        mend = f"unset {' '.join(named)}: with it a Parquet file can run code on every worker"
        return Check("data files", "fail", f"{', '.join(named)} is set", mend)
    return Check("data files", "ok", "no variable lets a Parquet file run code")


def token_file() -> Check:
    """A token that others can read is none."""
    default = Path.home() / ".ray" / "auth_token"
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or default)
    if not path.is_file():
        return Check("token", "ok", "no token file")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return Check("token", "warn", f"{path} has mode {mode:04o}", f"chmod 600 {path}")
    return Check("token", "ok", f"{path} is readable by its owner only")


def open_ports() -> Check:
    """A Ray without a token that listens beyond this machine gives everyone a shell."""
    if os.environ.get("RAY_AUTH_MODE") == "token":
        return Check("open cluster", "ok", "RAY_AUTH_MODE=token")
    address = _outside_address()
    heard = [port for port in _PORTS if address and _answers(address, port)]
    if not heard:
        return Check("open cluster", "ok", "no Ray port answers from outside this machine")
    what = ", ".join(f"{port} ({_PORTS[port]})" for port in heard)
    mend = (
        "start it with RAY_AUTH_MODE=token and --dashboard-host 127.0.0.1: whoever reaches an "
        "open cluster can run code on it"
    )
    return Check("open cluster", "warn", f"{address} answers on {what}, no token here", mend)


def writable(key: str, location: str) -> Check:
    """A file can be written to and deleted from a storage location."""
    probe = f".doctor-{uuid.uuid4().hex}"
    try:
        store = Store(location)
        existed = store.exists()
        store.write_bytes(probe, b"probe")
        store.delete(probe)
        if not existed:
            store.delete()
    except (OSError, InputError, RunError) as error:
        told = str(error).splitlines()[0]
        return Check(f"storage.{key}", "fail", told, f"set storage.{key} to a place you can write")
    return Check(f"storage.{key}", "ok", f"{location} can be written")


def _ray() -> Check:
    try:
        with connect(Cluster(num_cpus=1, object_store_mb=80)) as info:
            detail = f"Ray {ray.__version__} starts ({info.cpus:g} CPUs given)"
    except ResourceError as error:
        return Check("ray", "fail", str(error), "look into /tmp/ray/session_latest/logs")
    return Check("ray", "ok", detail)


def _outside_address() -> str | None:
    """This machine's address towards the network; None where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # UDP: nothing is sent
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False
