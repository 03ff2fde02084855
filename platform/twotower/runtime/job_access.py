"""Where a cluster's job server is and with which token; found out before anything is sent.

The token travels in a header only: never in a job's variables, which Ray shows in clear text.
"""

import json
import os
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import ray

from twotower.core.errors import InputError

_TIMEOUT_S = 10.0
_PORT = 8265
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class Access:
    """The way to a job server."""

    address: str
    """Such as `http://127.0.0.1:8265`."""

    token: str | None = field(default=None, repr=False)
    token_source: str = ""
    """Where the token came from, for messages."""

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine."""
        return urllib.parse.urlsplit(self.address).hostname in _LOOPBACK

    def headers(self) -> dict[str, str]:
        """HTTP headers that carry the token."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}


def find_access(address: str | None, token_path: str | Path | None = None) -> Access:
    """Address and token from the arguments, else from Ray's own variables.

    Raises:
        InputError: the address is none of a job server, or the token file can't be read.
    """
    given = address or os.environ.get("RAY_API_SERVER_ADDRESS") or f"http://127.0.0.1:{_PORT}"
    if given.startswith("ray://") or "://" not in given:
        raise InputError(
            f"cluster address {given!r}: give the job server's, such as http://HOST:{_PORT}"
        )
    parts = urllib.parse.urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"cluster address {given!r}: give http://HOST:{_PORT} or https://HOST")
    if parts.username or parts.password:
        raise InputError("cluster address: must hold no user or password; use a token file")
    token, source = _find_token(token_path)
    return Access(given.rstrip("/"), token, source)


def check_cluster(access: Access) -> str:
    """Ask the server for its version; returns it.

    Raises:
        InputError: nothing answers, it is no Ray, the token is missing or wrong, or its Ray is
            another version than ours; the message says which.
    """
    where = f"cluster address {access.address}"
    request = urllib.request.Request(f"{access.address}/api/version", headers=access.headers())
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            body = answer.read(1 << 16)
    except urllib.error.HTTPError as error:
        raise InputError(f"{where}: {_refusal(error.code, access)}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: {_no_answer(error)}") from None
    try:
        version = str(json.loads(body)["ray_version"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{where}: answers, but is no Ray job server") from None
    if version.split(".")[:2] != ray.__version__.split(".")[:2]:
        raise InputError(
            f"{where}: runs Ray {version}, here is {ray.__version__}; install the same on both"
        )
    return version


def _find_token(token_path: str | Path | None) -> tuple[str | None, str]:
    if token_path is None and (token := os.environ.get("RAY_AUTH_TOKEN")):
        return token.strip(), "RAY_AUTH_TOKEN"
    path = token_path or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if path is None:
        if os.environ.get("RAY_AUTH_MODE") != "token":
            return None, ""
        path = Path.home() / ".ray" / "auth_token"
        if not path.exists():  # without one the server's own answer says what is missing
            return None, ""
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"token file {path}: can't be read: {type(error).__name__}") from None
    if not token or not token.isascii() or not token.isprintable():
        raise InputError(f"token file {path}: holds no token")
    return token, str(path)


def _refusal(code: int, access: Access) -> str:
    if code == 401 and access.token is None:
        return "asks for a token; name its file by --token or RAY_AUTH_TOKEN_PATH"
    if code in (401, 403):
        return f"refuses the token of {access.token_source}; take the cluster's own"
    return f"answers HTTP {code}; is it a Ray job server?"


def _no_answer(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ConnectionRefusedError):
        return (
            f"nothing answers there; is the cluster up, and is this its dashboard port ({_PORT})?"
        )
    if isinstance(reason, TimeoutError):
        return f"no answer within {_TIMEOUT_S:g} s"
    if isinstance(reason, socket.gaierror):
        return "no machine of that name is known"
    if isinstance(reason, ssl.SSLError):
        return f"no trusted TLS connection: {reason}"
    return f"can't be reached: {reason}"
