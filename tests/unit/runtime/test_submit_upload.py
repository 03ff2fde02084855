"""The upload of a job holds code and configs, says its size beforehand, and equals itself."""

import subprocess
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotower.core.errors import InputError
from twotower.runtime.upload import is_sent, write_package

SENT = {
    "platform/twotower/data/order.py": b"code",
    "platform/twotower/runs/x.py": b"a package of that name",
    "jobs/train.py": b"entry",
    "configs/a.yaml": b"name: a",
}
KEPT = {
    ".git/config": b"x",
    ".venv/lib/y.py": b"x",
    "runs/a/model.safetensors": b"x",
    "prepared/a/items.parquet": b"x",
    "tests/test_a.py": b"x",
    "platform/twotower/__pycache__/a.pyc": b"x",
    ".env": b"SECRET",
    "configs/auth_token": b"SECRET",
    "deep/server.key": b"SECRET",
}


def fill(folder: Path) -> None:
    for name, data in (SENT | KEPT).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "link").symlink_to("/etc/passwd")


def test_code_is_sent_and_runs_data_and_secrets_are_not(tmp_path: Path) -> None:
    fill(tmp_path / "work")
    names = write_package(tmp_path / "work", tmp_path / "a.zip")
    assert names == sorted(SENT)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == SENT
    write_package(tmp_path / "work", tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_what_git_ignores_is_not_sent(tmp_path: Path) -> None:
    work = tmp_path / "work"
    fill(work)
    subprocess.run(["git", "init", "-q", work], check=True)
    (work / "big.bin").write_bytes(b"x")
    (work / ".gitignore").write_text("*.bin\n")
    names = write_package(work, tmp_path / "a.zip")
    assert names == sorted([*SENT, ".gitignore"])


def test_too_large_an_upload_names_the_largest_entries(tmp_path: Path) -> None:
    fill(tmp_path / "work")
    (tmp_path / "work/logs/old").mkdir(parents=True)
    (tmp_path / "work/logs/old/a.parquet").write_bytes(bytes(3 << 20))
    with pytest.raises(InputError, match=r"3 MiB to upload, more than 1; largest: logs/old \(3\.0"):
        write_package(tmp_path / "work", tmp_path / "a.zip", max_mb=1)
    assert not (tmp_path / "a.zip").exists()


@given(st.lists(st.sampled_from([".git", ".venv", "__pycache__", "a", "b"]), min_size=1))
def test_forbidden_folders_are_left_out_at_any_depth(folders: list[str]) -> None:
    forbidden = {".git", ".venv", "__pycache__"} & set(folders)
    assert is_sent("/".join([*folders, "x.py"])) == (not forbidden)
