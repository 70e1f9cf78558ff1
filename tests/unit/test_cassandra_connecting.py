"""How long a cluster is waited for when it is first asked: by what its nodes did, and what the error advises."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("cassandra")

from cassandra import OperationTimedOut
from cassandra.cluster import NoHostAvailable

from langchain_kv import ConnectError
from langchain_kv.engines.cassandra import connect
from langchain_kv.engines.cassandra.settings import ClusterSettings
from langchain_kv.limits import FIRST_CONTACT_S
from unit.fake_cassandra import Clock

SETTINGS = ClusterSettings(("h",), deadline_s=60)
SLOW = OperationTimedOut()
NEVER_CONNECTED = OperationTimedOut("Timed out creating connection (10.0 seconds)")


class Driver:
    """The driver, whose attempts to connect each take a second and fail as a test says."""

    def __init__(self, clock: Clock, failures: list[Exception]) -> None:
        self.attempts = self.shut_down = 0
        self._clock = clock
        self._failures = failures

    def __call__(self, *_: Any, **__: Any) -> Driver:
        return self

    def connect(self) -> str:
        self.attempts += 1
        self._clock.now_s += 1
        if self._failures:
            raise NoHostAvailable("none", {"h": self._failures.pop(0)})
        return "session"

    def shutdown(self) -> None:
        self.shut_down += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(connect, "time", clock)
    return clock


def driver(monkeypatch: pytest.MonkeyPatch, clock: Clock, *failures: Exception, count: int = 1) -> Driver:
    made = Driver(clock, list(failures) * count)
    monkeypatch.setattr(connect, "_cluster", made)
    monkeypatch.setattr(connect, "PROTOCOLS", (5,))
    return made


def test_a_node_that_is_slow_to_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    made = driver(monkeypatch, clock, SLOW, count=20)

    assert connect.connect(SETTINGS) == (made, "session")
    assert made.attempts == 21
    assert made.shut_down == 20


@pytest.mark.parametrize(
    ("failure", "waited_s", "advice"),
    [
        (SLOW, 60, "answered, but not all that the driver asks first within 10 s: .* raise connect_timeout_s="),
        (ConnectionRefusedError(), FIRST_CONTACT_S, "check the hosts, the port"),
        (NEVER_CONNECTED, 1, "Timed out creating connection.*check the hosts, the port"),
        (OSError("no route"), 1, "no route.*check the hosts, the port"),
    ],
)
def test_a_cluster_that_does_not_come_is_given_up_and_told(
    failure: Exception, waited_s: float, advice: str, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    made = driver(monkeypatch, clock, failure, count=1_000)
    begun_s = clock.now_s

    with pytest.raises(ConnectError, match=advice):
        connect.connect(SETTINGS)
    assert waited_s - 1 <= clock.now_s - begun_s <= waited_s + 1
    assert made.shut_down == made.attempts


def test_no_wait_is_longer_than_the_deadline(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    for failure in (SLOW, ConnectionRefusedError()):
        driver(monkeypatch, clock, failure, count=1_000)
        begun_s = clock.now_s
        with pytest.raises(ConnectError):
            connect.connect(ClusterSettings(("h",), deadline_s=3))
        assert clock.now_s - begun_s <= 4
