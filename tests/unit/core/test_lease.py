"""One writer a directory. Real: processes, the kernel's locks, signals."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from crash_bucket import Bucket
from twotower.core.errors import InputError, RunError
from twotower.core.lease import Fence, Lease
from twotower.core.storage import Store
from twotower.runtime.checkpoint import CheckpointStore
from twotower.runtime.snapshot import Snapshot

SOURCE = Path(__file__).parents[3] / "platform"

RACE = """
import json, os, sys
from pathlib import Path
from twotower.core.errors import InputError
from twotower.core.lease import Lease
from twotower.core.storage import Store

def contend(folder, start, told, done):
    os.read(start, 1)  # both wait for the same byte
    try:
        with Lease(Store(folder)):
            os.write(told, json.dumps([os.getpid(), None]).encode() + b"\\n")
            os.read(done, 1)
    except InputError as error:
        os.write(told, json.dumps([os.getpid(), str(error)]).encode() + b"\\n")
    os._exit(0)

for race in range(int(sys.argv[2])):
    start, told, done = os.pipe(), os.pipe(), os.pipe()
    pids = []
    for _ in range(2):
        pids.append(os.fork())
        if pids[-1] == 0:
            contend(f"{sys.argv[1]}/{race % 20}", start[0], told[1], done[0])
    os.write(start[1], b"go")
    text = b""
    while text.count(b"\\n") < 2:
        text += os.read(told[0], 4096)
    os.write(done[1], b"x")
    for pid in pids:
        os.waitpid(pid, 0)
    for end in (*start, *told, *done):
        os.close(end)
    print(json.dumps([json.loads(line) for line in text.splitlines()]))
"""

HOLD = """
import sys, time
from twotower.core.lease import Lease
from twotower.core.storage import Store
with Lease(Store(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def run_code(code: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_of_two_processes_that_race_for_a_directory_one_wins_and_is_named(tmp_path: Path) -> None:
    """200 pairs; from the 21st on the directory bears the name of a holder that is gone."""
    out, _ = run_code(RACE, tmp_path, 200).communicate(timeout=200)
    races = [json.loads(line) for line in out.splitlines()]
    assert len(races) == 200
    for pair in races:
        winners = [pid for pid, message in pair if message is None]
        messages = [message for _, message in pair if message is not None]
        assert (len(winners), len(messages)) == (1, 1)
        assert f'"pid": {winners[0]}' in messages[0]
        assert socket.gethostname() in messages[0]


def test_a_killed_holder_is_followed_at_once(tmp_path: Path) -> None:
    holder = run_code(HOLD, tmp_path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f'in use by .*"pid": {holder.pid}'):
        Lease(Store(tmp_path)).__enter__()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    began = time.monotonic()
    with Lease(Store(tmp_path)):
        assert time.monotonic() - began < 1
    holder.stdout.close()


def test_the_name_of_a_dead_holder_is_not_taken_for_the_holder(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    path = tmp_path / ".lease"
    path.write_text(json.dumps({"pid": dead.pid, "host": host}))
    with path.open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # a holder that has not written its name yet

        def write() -> None:
            path.write_text(json.dumps({"pid": os.getpid(), "host": host}))

        threading.Timer(0.3, write).start()
        with pytest.raises(InputError, match=f'"pid": {os.getpid()}'):
            Lease(Store(tmp_path)).__enter__()
        path.write_text("")
        with pytest.raises(InputError, match="in use by another process"):
            Lease(Store(tmp_path)).__enter__()


def test_who_takes_a_directory_sweeps_what_a_crash_left(tmp_path: Path) -> None:
    Store(tmp_path).write_bytes("checkpoints/step-1/a", b"")
    left = [tmp_path / ".tmp-1", tmp_path / "checkpoints" / "step-1" / ".tmp-2"]
    for path in left:
        path.write_bytes(b"torn")
    with Lease(Store(tmp_path)):
        assert not any(path.exists() for path in left)
        assert (tmp_path / "checkpoints" / "step-1" / "a").exists()


def stores(tmp_path: Path) -> dict[str, Store]:
    return {"local": Store(tmp_path), "objects": Bucket().store()}


@pytest.mark.parametrize("where", ["local", "objects"])
def test_of_two_writers_the_later_one_goes_on(tmp_path: Path, where: str) -> None:
    store = stores(tmp_path)[where]
    first, second = Fence(store), Fence(store)
    first.check()  # who has not begun holds nothing
    assert first.take() == 1
    first.check()
    assert second.take() == 2
    second.check()
    with pytest.raises(
        RunError, match=rf"taken over by process {os.getpid()} on .*number 1\) stops"
    ):
        first.check()
    assert Fence(store).take() == 3


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"number": "x"}'])
def test_a_torn_fence_stops_its_writer_and_not_the_next_one(tmp_path: Path, content: bytes) -> None:
    fence = Fence(Store(tmp_path))
    fence.take()
    (tmp_path / ".writer").write_bytes(content)
    with pytest.raises(RunError, match="taken over"):
        fence.check()
    again = Fence(Store(tmp_path))
    again.take()
    again.check()


LATE = """
import sys, time
import torch
from twotower.core.lease import Fence
from twotower.core.storage import Store
from twotower.runtime.checkpoint import CheckpointStore
from twotower.runtime.snapshot import Snapshot
store = Store(sys.argv[1])
fence = Fence(store)
fence.take()
checkpoints = CheckpointStore(store.child("checkpoints"), 1, fence.check)
for step in range(1, 10**6):
    checkpoints.save(step, Snapshot().take({"model": {"w": torch.full((9,), step)}}, {"best": None}))
    print(step, flush=True)
"""


def test_a_writer_that_wakes_up_late_writes_and_deletes_nothing(tmp_path: Path) -> None:
    """The hung worker of a driver that is gone: stopped, overtaken, woken."""
    late = run_code(LATE, tmp_path)
    assert late.stdout is not None
    while int(late.stdout.readline()) < 5:
        pass
    late.send_signal(signal.SIGSTOP)
    fence = Fence(Store(tmp_path))
    fence.take()
    checkpoints = CheckpointStore(Store(tmp_path).child("checkpoints"), 1, fence.check)
    checkpoints.take_over()
    found, _ = checkpoints.newest()
    assert found is not None
    wanted: dict[str, Any] = {"model": {"w": torch.full((9,), -1)}}
    mine = found.step + 100
    checkpoints.save(mine, Snapshot().take(wanted, {"best": None}))
    late.send_signal(signal.SIGCONT)
    late.stdout.read()
    assert late.wait() == 1
    assert checkpoints.newest()[0] is not None
    assert checkpoints.load(mine).tensors["model"]["w"].tolist() == [-1] * 9
    late.stdout.close()
