"""Jobs on a running cluster: submitted once, followed, stopped; every failure one clear message."""

import asyncio
import importlib.util
import logging
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from twotower.core.command_line import INTERRUPTED
from twotower.core.errors import InputError, RunError
from twotower.runtime.job_access import Access, check_cluster, find_access
from twotower.runtime.job_command import ReadStudy, checked_command
from twotower.runtime.job_options import Options
from twotower.runtime.upload import write_package

STOP_WAIT_S = 60
"""Time a stopped job has to write its checkpoint; Ray's own default of 3 s is too short."""

_MAX_NAMESAKES = 1000
_POLL_S = 0.5
_ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)


@dataclass(frozen=True, slots=True)
class Job:
    """A submitted job."""

    id: str
    access: Access
    attached: bool = False
    """Whether it was running already."""


@dataclass(frozen=True, slots=True)
class JobState:
    """How a job stands."""

    id: str
    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""

    code: int | None
    """Exit code of the entry; None while it runs, or where Ray ended it."""

    message: str
    """Ray's own words."""

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.status in {str(status) for status in _ENDED}


def submit(
    action: str,
    arguments: Sequence[str],
    options: Options | None = None,
    *,
    read_study: ReadStudy | None = None,
) -> Job:
    """Start a job, or attach to the one that is doing the same already.

    Args:
        action: a key of `entry.ACTIONS`.
        arguments: what its entry file takes, such as `configs/debian.yaml --set seed=1`.
        options: where it goes.
        read_study: reads the file of the action `study`, which a layer above knows.

    Raises:
        InputError: arguments, config, package or cluster can't be used; nothing was started.
    """
    options = options or Options()
    folder = options.working_dir.absolute()
    access = find_access(options.address, options.token_path)
    shares_disk = access.is_loopback if options.shares_disk is None else options.shares_disk
    here = folder if shares_disk else None
    command, base = checked_command(action, arguments, folder, here, read_study)
    check_cluster(access)
    client = _client(access)
    known = {job.submission_id: job for job in _jobs(client)}
    with tempfile.TemporaryDirectory(prefix="twotower-job-") as scratch:
        package = Path(scratch) / "package.zip"
        write_package(folder, package, options.max_mb)
        for attempt in range(1, _MAX_NAMESAKES):
            name = base if attempt == 1 else f"{base}-{attempt}"
            if name not in known:
                return _start(client, Job(name, access), command, package, options)
            if known[name].status not in _ENDED:
                return Job(name, access, attached=True)
    raise InputError(f"job {base}: was submitted too often; delete old ones with ray job delete")


def follow(job: Job, write: Callable[[str], object]) -> JobState:
    """Pass a job's output on until it ends.

    Raises:
        RunError: the connection broke; the job itself goes on.
    """
    client = _client(job.access)
    import aiohttp  # noqa: PLC0415 - of the extra `jobs`, as is the client

    async def tail() -> None:
        async for text in client.tail_job_logs(job.id):
            write(text)

    state = status(job)
    while not state.ended:
        try:
            asyncio.run(tail())
        except (aiohttp.ClientError, RuntimeError, OSError) as error:
            raise RunError(
                f"job {job.id}: its output broke off ({_first_line(error)}); the job goes on, "
                "submitting the same again attaches to it"
            ) from error
        time.sleep(_POLL_S)
        state = status(job)
    return state


def exit_code(state: JobState) -> int:
    """The exit code of a job that ended, as if its command had run here."""
    if state.status == str(JobStatus.SUCCEEDED):
        return 0
    if state.code is not None and state.code > 0:
        return state.code
    return INTERRUPTED if state.status == str(JobStatus.STOPPED) else RunError.exit_code


def attach(name: str, options: Options | None = None) -> Job:
    """A job that was submitted earlier; InputError if the cluster knows none of that name."""
    options = options or Options()
    access = find_access(options.address, options.token_path)
    check_cluster(access)
    job = Job(name, access, attached=True)
    status(job)
    return job


def listed(options: Options | None = None) -> list[JobState]:
    """All jobs of a cluster, those that others submitted too."""
    options = options or Options()
    access = find_access(options.address, options.token_path)
    check_cluster(access)
    return [_state(job) for job in _jobs(_client(access))]


def status(job: Job) -> JobState:
    """How a job stands; InputError if the cluster doesn't know it."""
    for found in _jobs(_client(job.access)):
        if found.submission_id == job.id:
            return _state(found)
    raise InputError(f"job {job.id}: the cluster at {job.access.address} has none of that name")


def stop(job: Job) -> JobState:
    """Ask a job to end and wait for it: it writes a checkpoint and can be resumed."""
    state = status(job)
    if state.ended:
        return state
    with _clear(f"job {job.id}"):
        _client(job.access).stop_job(job.id)
    until = time.monotonic() + 2 * STOP_WAIT_S
    while not state.ended:
        if time.monotonic() > until:
            raise RunError(f"job {job.id}: still {state.status} {2 * STOP_WAIT_S} s after the stop")
        time.sleep(_POLL_S)
        state = status(job)
    return state


def _start(
    client: JobSubmissionClient,
    job: Job,
    command: Sequence[str],
    package: Path,
    options: Options,
) -> Job:
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), "PYTHONUNBUFFERED": "1"}
    if (options.working_dir / "platform" / "twotower").is_dir():
        variables["PYTHONPATH"] = "platform"
    try:
        client.submit_job(
            entrypoint=shlex.join(command),
            submission_id=job.id,
            runtime_env={"working_dir": str(package), "env_vars": variables},
            entrypoint_num_cpus=options.num_cpus or None,
        )
    except RuntimeError as error:
        if "already exists" in str(error):  # another submit of the same was a moment faster
            return Job(job.id, job.access, attached=True)
        raise RunError(f"job {job.id}: the cluster refused it: {_first_line(error)}") from error
    return job


def _state(job: JobDetails) -> JobState:
    name = job.submission_id or job.job_id or ""
    return JobState(name, str(job.status), job.driver_exit_code, job.message or "")


def _jobs(client: JobSubmissionClient) -> list[JobDetails]:
    with _clear("jobs"):
        return client.list_jobs()


def _client(access: Access) -> JobSubmissionClient:
    """A client of that address and token; Ray would let variables overrule both."""
    if importlib.util.find_spec("aiohttp") is None:
        raise InputError("submit: needs the extra `jobs`: pip install 'twotower[jobs]'")
    for name in ("dashboard_sdk", "job.sdk"):  # they set themselves to INFO
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
    variables = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    before = {name: os.environ.pop(name) for name in variables if name in os.environ}
    try:
        with _clear(f"cluster address {access.address}"):
            return JobSubmissionClient(access.address, headers=access.headers())
    finally:
        os.environ |= before


@contextmanager
def _clear(what: str) -> Iterator[None]:
    """Turn the client's failures into one line."""
    try:
        yield
    except (RuntimeError, OSError, RayError) as error:
        raise RunError(f"{what}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
