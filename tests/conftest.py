"""Fixtures for every test."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from cassandra_node import what_it_does
from langchain_kv.testing.contract import StoreFace
from meta.lengthy import lengthy
from places import PLACES, Place, open_place

# Started in a shell's background, a process ignores Ctrl-C, and below nohup a hang-up, too, and hands that on to the
# programs that tests send signals.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The driver's threads log at any time, and so in the middle of tests that look at all that is logged.
logging.getLogger("cassandra").propagate = False

# A machine that runs the tests may be slow, and a random value then takes long to make: that is no fault of a test.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

MARKS = {"http+memory": [pytest.mark.slow], "cassandra": [pytest.mark.slow, pytest.mark.cassandra]}
MARKED = [pytest.param(name, marks=MARKS.get(name, [])) for name in PLACES]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    left_out = lengthy()
    for item in items:
        if "cluster" in item.path.parts:
            item.add_marker("cassandra")
        if item.nodeid.partition("[")[0] in left_out:
            item.add_marker("lengthy")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what Cassandra's node did while a test of it failed: the node is gone when somebody reads that it failed."""
    report = yield
    if report.failed and item.get_closest_marker("cassandra"):
        report.sections.append(("Cassandra's node", what_it_does()))
    return report


@pytest.fixture(scope="session", params=MARKED, ids=PLACES)
def shared_place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with open_place(request.param, tmp_path_factory.mktemp("place")) as place:
        yield place


@pytest.fixture
def place(shared_place: Place) -> Iterator[Place]:
    """Each place in turn. Tests share it, each with collections of its own."""
    yield shared_place
    shared_place.tidy()


@pytest.fixture
def http_place(tmp_path: Path) -> Iterator[Place]:
    with open_place("http+memory", tmp_path) as place:
        yield place


@pytest.fixture
def memory_place(tmp_path: Path) -> Iterator[Place]:
    with open_place("memory", tmp_path) as place:
        yield place


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Iterator[Place]:
    with open_place("sqlite", tmp_path) as place:
        yield place


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A function that shows a store's sync or async face."""
    with asyncio.Runner() as runner:
        yield lambda store: StoreFace(store, request.param == "async", runner.run)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that failed in passing are sent again at once."""
    from langchain_kv.backends.dataapi import retry

    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.0005)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LCKV_URL", "ASTRA_DB_API_ENDPOINT", "ASTRA_DB_APPLICATION_TOKEN", "ASTRA_DB_KEYSPACE", "LCKV_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
