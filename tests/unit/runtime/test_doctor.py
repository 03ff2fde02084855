"""The doctor finds what was broken on purpose, and says how to mend it."""

import socket
from pathlib import Path

import pytest

from twotower.core.config import Storage
from twotower.runtime import doctor


def test_a_sound_machine_passes_without_starting_ray(tmp_path: Path) -> None:
    storage = Storage(runs=str(tmp_path / "runs"), prepared=str(tmp_path / "prepared"))
    found = {check.name: check for check in doctor.checks(storage, start_ray=False)}
    assert {"python", "versions", "torch", "disk", "data files", "storage.runs"} <= found.keys()
    for check in found.values():
        assert bool(check.mend) == (check.status != "ok"), check
    assert found["storage.runs"].status == "ok"
    assert not list(tmp_path.iterdir())


def test_storage_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = doctor.writable("runs", str(tmp_path / "file" / "runs"))
    assert (check.name, check.status) == ("storage.runs", "fail")


def test_versions_that_differ_from_the_pins_are_listed(tmp_path: Path) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text("numpy==1.0.0\nnot-installed==3\n")
    check = doctor.versions(pins)
    assert check.status == "warn"
    assert "(pinned 1.0.0)" in check.detail
    assert "not-installed" not in check.detail
    assert doctor.versions(None).status == "warn"


def test_variables_that_let_data_run_code_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.autoload().status == "ok"
    monkeypatch.setenv("RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE", "1")
    check = doctor.autoload()
    assert check.status == "fail"
    assert "unset RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE" in check.mend


def test_a_token_that_others_can_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("canary")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    token.chmod(0o644)
    check = doctor.token_file()
    assert (check.status, check.mend) == ("warn", f"chmod 600 {token}")
    assert "canary" not in repr(check)
    token.chmod(0o600)
    assert doctor.token_file().status == "ok"


def test_a_ray_port_open_to_the_network_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        monkeypatch.setattr(doctor, "_PORTS", {port: "dashboard"})
        monkeypatch.setattr(doctor, "_outside_address", lambda: "127.0.0.1")
        check = doctor.open_ports()
        assert check.status == "warn"
        assert f"{port} (dashboard)" in check.detail
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        assert doctor.open_ports().status == "ok"
