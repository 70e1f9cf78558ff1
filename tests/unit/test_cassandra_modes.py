"""The engine on Cassandra sync and async, on a driver that is none: where operations run, and what ends with what."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bodies import row
from langchain_kv.backends.base import Found, Kind, Record
from langchain_kv.backends.cassandra import CassandraBackend
from langchain_kv.engines.cassandra import cluster as cassandra_cluster
from langchain_kv.engines.cassandra.cluster import Session
from langchain_kv.engines.cassandra.engine import CassandraEngine
from langchain_kv.engines.cassandra.settings import ClusterSettings
from langchain_kv.errors import StoreClosedError, UsageError
from langchain_kv.testing.backend_contract import Face
from unit.fake_cassandra import KV, FakeCassandra, doc, value_of


class HeldCassandra(FakeCassandra):
    """A session that owes its answers while it holds them.

    Attributes:
        holds: whether it does.
        owed: give the answers that it owes.
        sent_one: set when it owes one.
        was_shut_down: whether it was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.holds = False
        self.owed: list[Callable[[], None]] = []
        self.sent_one = threading.Event()
        self.was_shut_down = False

    def shutdown(self) -> None:
        self.was_shut_down = True

    def execute_async(self, cql: str, values: Any, execution_profile: str) -> Any:
        answer = super().execute_async(cql, values, execution_profile)
        return Owed(self, answer) if self.holds else answer


class Owed:
    """The driver's future of an answer that is held."""

    def __init__(self, driver: HeldCassandra, answer: Any) -> None:
        self._driver = driver
        self._answer = answer

    def add_callbacks(self, *args: Any, **kwargs: Any) -> None:
        self._driver.owed.append(lambda: self._answer.add_callbacks(*args, **kwargs))
        self._driver.sent_one.set()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> HeldCassandra:
    driver = HeldCassandra()
    monkeypatch.setattr(cassandra_cluster, "connect", lambda settings: (driver, driver))
    return driver


@pytest.fixture
def engine(driver: HeldCassandra) -> Iterator[CassandraEngine]:
    engine = CassandraEngine(ClusterSettings(("nowhere",)))
    engine.write(KV, [row("a", doc("a", 1))])
    assert engine.read(KV, ["a"]) == [row("a", doc("a", 1))]  # the statements are prepared from now on
    yield engine
    engine.close()


def test_a_change_runs_on_the_loop_thread_or_on_the_callers_own_loop(engine: CassandraEngine) -> None:
    seen: list[int] = []

    def change(doc_id: Any, found: Any) -> Any:
        seen.append(threading.get_ident())
        return found

    engine.modify(KV, ["a"], change)
    asyncio.run(engine.amodify(KV, ["a"], change))
    assert seen[0] != threading.get_ident()
    assert seen[1] == threading.get_ident()


def test_a_change_that_makes_a_plain_call_is_refused_and_changes_nothing(
    engine: CassandraEngine, driver: HeldCassandra
) -> None:
    def change(doc_id: Any, found: Any) -> Any:
        engine.read(KV, ["a"])
        return row("a", doc("a", 2))

    with pytest.raises(UsageError, match="async method"):
        engine.modify(KV, ["a"], change)
    assert value_of(driver, "a") == 1


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_closing_waits_for_what_is_under_way(
    engine: CassandraEngine, driver: HeldCassandra, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    closes = threading.Event()
    ending = property(lambda _: closes.is_set(), lambda _, value: closes.set() if value else None)
    monkeypatch.setattr(Session, "is_ending", ending, raising=False)
    found: list[Any] = []

    def read() -> None:
        call = engine.read(KV, ["a"]) if mode == "sync" else asyncio.run(engine.aread(KV, ["a"]))
        found.append((call, driver.was_shut_down))

    driver.holds = True
    reading, closing = threading.Thread(target=read), threading.Thread(target=engine.close)
    reading.start()
    driver.sent_one.wait()
    closing.start()
    closes.wait()
    driver.owed[0]()
    reading.join()
    closing.join()
    assert found[0][0] == [row("a", doc("a", 1))]
    assert driver.was_shut_down
    with pytest.raises(StoreClosedError):
        engine.read(KV, ["a"])


async def test_closing_on_a_loop_does_not_wait_for_that_loops_own_operations(
    engine: CassandraEngine, driver: HeldCassandra
) -> None:
    driver.holds = True
    reading = asyncio.ensure_future(engine.aread(KV, ["a"]))
    await asyncio.sleep(0)
    assert driver.owed
    engine.close()
    assert driver.was_shut_down
    driver.owed[0]()
    assert await reading == [row("a", doc("a", 1))]


def test_an_answer_that_comes_after_its_loop_was_closed_is_nobodys(
    engine: CassandraEngine, driver: HeldCassandra
) -> None:
    async def give_up() -> None:
        reading = asyncio.ensure_future(engine.aread(KV, ["a"]))
        await asyncio.sleep(0)
        reading.cancel()

    driver.holds = True
    asyncio.run(give_up())
    driver.owed[0]()
    driver.holds = False
    assert engine.read(KV, ["a"]) == [row("a", doc("a", 1))]


def test_a_batch_that_is_given_up_sends_nothing_more(engine: CassandraEngine, driver: HeldCassandra) -> None:
    keys = [f"k{number}" for number in range(200)]

    async def give_up() -> None:
        writing = asyncio.ensure_future(engine.awrite(KV, [row(key, doc(key)) for key in keys]))
        await asyncio.sleep(0)
        writing.cancel()

    driver.holds = True
    asyncio.run(give_up())
    sent = len(driver.owed)
    assert 0 < sent < len(keys)
    for answer in driver.owed[:sent]:
        answer()
    assert len(driver.owed) == sent


def test_a_write_of_a_value_that_expires_reads_nothing(
    engine: CassandraEngine, driver: HeldCassandra, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    execute = driver.execute_async

    def noted(cql: str, *args: Any, **kwargs: Any) -> Any:
        sent.append(cql.split(maxsplit=1)[0])
        return execute(cql, *args, **kwargs)

    monkeypatch.setattr(driver, "execute_async", noted)
    CassandraBackend(engine, KV).put_many([Record("b", b"1", Kind.JSON, 2**60)])
    assert sent == ["UPDATE"]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_backend_stores_adds_changes_and_finds_both_ways(
    engine: CassandraEngine, driver: HeldCassandra, mode: str
) -> None:
    backend = CassandraBackend(engine, KV)
    face = Face(backend, mode == "async")
    driver.rows["bad"] = ("tx_id", "{")
    face.put_many([Record("b", b"[1]"), Record("c", b"raw", Kind.BYTES)])
    assert face.add_many([Record("b", b"2"), Record("d", b"4")]) == [False, True]
    face.update("d", lambda found: Record("d", b"%d" % (found.value + 1)))
    face.delete_many(["a"])
    good = [None, Found([1]), Found("cmF3"), Found(5)]
    assert face.get_many(["a", "b", "c", "d"]) == good
    (damaged,) = face.get_many(["bad"])
    assert "not valid JSON" in damaged.reason
    face.close()
    with pytest.raises(StoreClosedError):
        face.get_many(["a"])
