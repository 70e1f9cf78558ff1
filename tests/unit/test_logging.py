"""What the logger ``langchain_kv`` says at DEBUG of requests, and that no key, value or token is ever in it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from cassandra.cluster import NoHostAvailable

from langchain_kv import StoreError
from langchain_kv.backends.dataapi import retry
from langchain_kv.engines.cassandra import cluster as cassandra_cluster
from langchain_kv.engines.cassandra import operation as cassandra_operation
from langchain_kv.engines.cassandra.engine import CassandraEngine
from langchain_kv.engines.cassandra.settings import ClusterSettings
from langchain_kv.testing import DataAPIServer
from unit.fake_cassandra import KV, FakeCassandra, doc

TOKEN = "AstraCS:marked-token-5f0c"
KEY = "marked-key-of-ada@example.org"
VALUE = "marked-value-4711"
HTTP = re.compile(r"(?P<command>\w+) on default_keyspace\.kv(, \d+ keys?)?: .*")


@pytest.fixture
def server() -> Iterator[DataAPIServer]:
    with DataAPIServer(token=TOKEN) as server:
        yield server


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return what gives the lines so far; at the end nothing that was marked is in any record."""
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.001)
    caplog.set_level(logging.DEBUG, "langchain_kv")
    yield lambda: [record.getMessage() for record in caplog.records if record.name == "langchain_kv"]
    assert "marked" not in caplog.text
    assert "marked" not in repr([record.__dict__ for record in caplog.records])


def test_a_request_is_one_line_with_command_collection_count_status_and_time(server: DataAPIServer, lines: Any) -> None:
    store = server.store("kv")
    store.mset([(KEY, VALUE), ("b", 2)])
    assert store.mget([KEY, "b", "c"]) == [VALUE, 2, None]

    found = [line for line in lines() if line.startswith("find on")]
    assert len(found) == 1
    assert re.fullmatch(r"find on default_keyspace\.kv, 3 keys: HTTP 200 in [\d.]+ ms, try 1", found[0])


async def test_retries_their_causes_and_their_waits_are_told(server: DataAPIServer, lines: Any) -> None:
    store = server.store("kv", setup_mode="ASYNC")
    await store.amset([(KEY, VALUE)])
    server.fail(2, status=503)
    assert await store.amget([KEY]) == [VALUE]

    told = [line for line in lines() if line.startswith("find on")]
    kinds = [re.sub(r"[\d.]+ ms", "N ms", HTTP.sub(lambda match: match[0].partition(": ")[2], line)) for line in told]
    assert kinds[0::3] == [
        "HTTP 503 (BadReplyError) after N ms, try 1",
        "HTTP 503 (BadReplyError) after N ms, try 2",
        "HTTP 200 in N ms, try 3",
    ]
    assert kinds[1::3] == ["the service is overloaded; at most 1 requests at once from now on"] * 2
    assert kinds[2::3] == ["sent again in N ms"] * 2


def test_a_lost_connection_and_a_code_are_told_by_their_names(server: DataAPIServer, lines: Any) -> None:
    store = server.store("kv")
    server.fail(drop=True)
    server.fail(code="UNAVAILABLE_DATABASE")
    store.mset([(KEY, VALUE)])
    text = "\n".join(lines())

    assert re.search(r"findOneAndReplace on default_keyspace\.kv, 1 key: no answer \(TransportError\) after", text)
    assert re.search(r"HTTP \d+ \(\w+ UNAVAILABLE_DATABASE\) after", text)


def test_a_refused_request_is_told_without_the_words_that_may_quote_it(server: DataAPIServer, lines: Any) -> None:
    store = server.store("kv")
    server.fail(None, status=401)
    with pytest.raises(StoreError):
        store.mset([(KEY, VALUE)])

    assert any("try 1" in line and "HTTP 401" in line for line in lines())


def test_a_request_that_waited_for_its_turn_says_so(server: DataAPIServer, lines: Any) -> None:
    store = server.store("kv")
    store.mset([(f"{KEY}{number}", VALUE) for number in range(300)])
    server.fail(8, status=429)  # after which few requests are under way at once
    server.fail(20, delay_s=0.01)
    store.mset([(f"{KEY}{number}", VALUE) for number in range(300)])

    assert any(re.fullmatch(r"\w+ on default_keyspace\.kv: waited \d+ ms for its turn", line) for line in lines())
    assert any(re.search(r"at most \d+ requests at once", line) for line in lines())


def test_nothing_is_said_where_the_level_is_higher(server: DataAPIServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "langchain_kv")
    store = server.store("kv")
    store.mset([(KEY, VALUE)])

    assert [record for record in caplog.records if record.name == "langchain_kv"] == []


# -- a cluster, on a driver that is none ------------------------------------------------------------------------------


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeCassandra:
    driver = FakeCassandra()
    monkeypatch.setattr(cassandra_cluster, "connect", lambda settings: (driver, driver))
    monkeypatch.setattr(cassandra_operation, "FIRST_DELAY_S", 0.001)
    return driver


async def test_statements_of_a_cluster_are_counted_and_timed(driver: FakeCassandra, lines: Any) -> None:
    engine = CassandraEngine(ClusterSettings(("nowhere",)))
    await engine.awrite(KV, [(KEY, doc(KEY)), ("b", doc("b"))])
    engine.close()

    assert any(re.fullmatch(r"2 write statements on ks\.kv: [\d.]+ ms, 0 failed", line) for line in lines())


def test_failures_of_a_cluster_and_the_waits_after_them_are_told(driver: FakeCassandra, lines: Any) -> None:
    engine = CassandraEngine(ClusterSettings(("nowhere",)))
    left = [2]

    def decide(manner: str, key: str) -> Any:
        left[0] -= 1
        return ("before", NoHostAvailable(f"marked by {key}", {})) if left[0] >= 0 else None

    driver.decide = decide
    engine.write(KV, [(KEY, doc(KEY))])
    engine.close()
    told = lines()

    assert sum("1 failed (ConnectError)" in line for line in told) == 2
    assert [line for line in told if re.fullmatch(r"ks\.kv: tried again in \d+ ms, after [12] tries", line)]
