"""Addresses of clusters that can't be joined: refused at once, Ray not started."""

import time

import pytest

from twotower.core.config import Cluster
from twotower.core.errors import ResourceError
from twotower.runtime.cluster import connect


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1"])
def test_a_dead_cluster_is_named_within_seconds(address: str) -> None:
    began = time.monotonic()
    with (
        pytest.raises(ResourceError, match=r"cluster\.address '.*': no cluster answers there"),
        connect(Cluster(address=address)),
    ):
        pass
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("address", ["nonsense", "host:", ":6379", "host:port"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with (
        pytest.raises(ResourceError, match=r"must be host:port"),
        connect(Cluster(address=address)),
    ):
        pass


def test_the_address_of_the_environment_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ResourceError, match="RAY_ADDRESS"), connect(Cluster()):
        pass
