"""Faults of Upstash's REST interface and of the way to it: what is told, whether it was written, and what is stored."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from installed import need
from langchain_kv import (
    AuthError,
    BadReplyError,
    ConnectError,
    KVByteStore,
    LimitError,
    PartialWriteError,
    RequestTimeoutError,
    StoreClosedError,
    StoreError,
    TransportError,
)
from langchain_kv.backends.dataapi import retry
from redis_node import RedisNode, free_port, missing, running_redis
from upstash_server import TOKEN, Fault, UpstashServer, running_upstash

pytestmark = pytest.mark.usefixtures("no_waiting")

TEXT, RAW = b"text", b"\xff\x00raw"

LOST = [Fault("lost"), Fault("cut"), Fault("status", 502, b"<html><title>Bad Gateway</title>")]
"""After these nobody knows whether a write was carried out."""

REFUSED = [Fault("status", 429), Fault("status", 429, b'{"error":"ERR rate"}', retry_after="0")]
"""After these it was not."""


def named(fault: Fault) -> str:
    return f"{fault.kind} {fault.status}"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisNode]:
    need(missing("redis"))
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def stored(node: RedisNode) -> Iterator[Callable[[], dict[str, bytes]]]:
    """What is really stored."""
    with redis.Redis(port=node.port) as client:
        client.flushdb()

        def read() -> dict[str, bytes]:
            return {key.decode()[3:]: client.get(key) for key in client.scan_iter(match="kv/*", count=1_000)}

        yield read


@pytest.fixture
def server(node: RedisNode, stored: Any) -> Iterator[UpstashServer]:
    with running_upstash(node.port) as running:
        yield running


class Store:
    """The methods of a store, plain or awaited."""

    def __init__(self, store: KVByteStore, is_async: bool) -> None:
        self.store = store
        self._is_async = is_async

    def call(self, verb: str, *arguments: Any, **more: Any) -> Any:
        if not self._is_async:
            return getattr(self.store, verb)(*arguments, **more)
        return asyncio.run(getattr(self.store, f"a{verb}")(*arguments, **more))


@pytest.fixture(params=["sync", "async"])
def opened(request: pytest.FixtureRequest, server: UpstashServer) -> Iterator[Callable[..., Store]]:
    stores = []

    def make(**more: Any) -> Store:
        given = {"token": TOKEN, "deadline_s": 10.0, "setup_mode": "OFF", **more}
        stores.append(KVByteStore("kv", f"upstash+{server.url}", **given))
        return Store(stores[-1], request.param == "async")

    yield make
    for store in stores:
        store.close()


# -- faults that pass -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [*LOST, Fault("dropped"), *REFUSED], ids=named)
def test_what_may_be_sent_again_is(server: UpstashServer, opened: Any, stored: Any, fault: Fault) -> None:
    store = opened()
    server.faults.append(fault)
    store.call("mset", [("a", TEXT), ("b", RAW)])
    assert stored() == {"a": TEXT, "b": RAW}
    server.faults.append(fault)
    assert store.call("mget", ["b", "a", "x"]) == [RAW, TEXT, None]
    server.faults.append(fault)
    store.call("mset", [("c", TEXT)], ttl_s=100)
    server.faults.append(fault)
    assert store.call("count") == 3
    server.faults.append(fault)
    store.call("mdelete", ["a"])
    assert set(stored()) == {"b", "c"}
    assert server.faults == []


def test_requests_and_retries_are_logged_without_keys_values_and_token(
    server: UpstashServer, opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "langchain_kv")
    server.faults.append(Fault("status", 429))
    opened().call("mset", [("marked-key", b"marked-value"), ("marked-raw", b"\xffmarked")])
    told = [record.getMessage() for record in caplog.records if record.name == "langchain_kv"]

    assert any(
        re.fullmatch(r"MSET on upstash:\S+ \(1 commands\): HTTP 200 in [\d.]+ ms, try [12]", line) for line in told
    )
    assert any("HTTP 429" in line for line in told)
    assert any("sent again in" in line for line in told)
    assert "marked" not in repr([record.__dict__ for record in caplog.records])
    assert TOKEN not in repr([record.__dict__ for record in caplog.records])


@pytest.mark.parametrize("value", [TEXT, RAW], ids=["text", "raw"])
@pytest.mark.parametrize("fault", [*LOST, Fault("dropped")], ids=named)
def test_an_add_or_update_whose_answer_is_lost_is_sent_once_and_unknown(
    server: UpstashServer, opened: Any, stored: Any, fault: Fault, value: bytes
) -> None:
    store = opened()
    server.faults.append(fault)
    with pytest.raises(StoreError) as caught:
        store.call("add", [("a", value)])
    assert caught.value.applied is None
    assert server.commands == ["EVAL"]
    store.call("mset", [("n", value)])
    server.requests.clear()
    server.faults.append(fault._replace(only="EVAL"))
    store.call("mget", ["n"])  # the first EVAL reads, and is sent again: the fault is used up
    assert server.commands == ["EVAL", "EVAL"]
    calls = []

    def change(old: bytes | None) -> bytes:
        calls.append(old)
        server.faults.append(fault)  # for the request that follows
        return (old or b"") + value

    with pytest.raises(StoreError) as caught:
        store.call("update", "n", change)
    assert caught.value.applied is None
    assert calls == [value]
    assert stored()["n"] == (value if fault.kind in ("dropped", "status") else value + value)


@pytest.mark.parametrize("fault", REFUSED, ids=named)
def test_an_add_or_update_that_was_refused_in_passing_is_sent_again(
    server: UpstashServer, opened: Any, stored: Any, fault: Fault
) -> None:
    store = opened()
    server.faults.append(fault)
    assert store.call("add", [("a", RAW), ("b", TEXT)]) == ["a", "b"]
    server.faults.append(fault)
    store.call("update", "a", lambda old: old + RAW)
    assert stored() == {"a": RAW + RAW, "b": TEXT}


def test_the_part_of_an_add_that_was_answered_is_told_apart(server: UpstashServer, opened: Any, stored: Any) -> None:
    store = opened()
    store.call("mset", [("there", TEXT)])
    server.faults.append(Fault("lost"))
    with pytest.raises(PartialWriteError, match="Read the unknown ones") as caught:
        store.call("add", [("a", TEXT), ("there", TEXT), ("b", RAW)])
    error = caught.value
    assert set(error.unknown) in ({"a", "there"}, {"b"})
    assert set(error.written) == {"a", "b"} - set(error.unknown)
    assert error.applied is None
    assert stored() == {"a": TEXT, "there": TEXT, "b": RAW}


# -- faults that last -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "applied"),
    [
        (Fault("lost"), TransportError, None),
        (Fault("dropped"), TransportError, None),
        (Fault("cut"), BadReplyError, None),
        (Fault("status", 503), BadReplyError, None),
        (Fault("status", 200, b"<html>"), BadReplyError, None),
        (Fault("status", 200, b'[{"result":"T0s="},{}]'), BadReplyError, None),
        (Fault("status", 429), BadReplyError, False),
        (Fault("status", 404, b"nothing here"), BadReplyError, False),
    ],
    ids=lambda value: named(value) if isinstance(value, Fault) else "",
)
def test_a_fault_that_lasts_is_told(
    server: UpstashServer,
    opened: Any,
    fault: Fault,
    kind: type[StoreError],
    applied: bool | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A clock by which every request takes ten seconds: the deadline ends after a few, however fast this machine is.
    monkeypatch.setattr(retry, "monotonic", lambda: time.monotonic() + 10 * len(server.requests))
    store = opened(deadline_s=25)
    server.faults += [fault] * 1_000
    with pytest.raises(kind) as caught:
        store.call("mset", [("a", TEXT)])
    assert caught.value.applied is applied
    with pytest.raises(kind) as caught:
        store.call("mget", ["a"])
    assert caught.value.applied is False
    with pytest.raises(StoreError) as caught:
        store.call("mset", [("a", TEXT), ("b", RAW)])
    if applied is None:
        assert isinstance(caught.value, PartialWriteError)
        assert set(caught.value.unknown) == {"a", "b"}
    with pytest.raises(kind):
        list(store.store.yield_keys())
    server.faults.clear()
    store.call("mset", [("a", TEXT), ("b", RAW)])


def test_an_answer_that_does_not_come_is_told(server: UpstashServer, opened: Any) -> None:
    store = opened(deadline_s=0.2, request_timeout_s=0.1)
    server.faults += [Fault("late")] * 100
    with pytest.raises(RequestTimeoutError) as caught:
        store.call("mset", [("a", TEXT)])
    assert caught.value.applied is None


def test_a_host_that_is_not_there_is_told() -> None:
    port = free_port()
    with KVByteStore("kv", f"upstash+http://127.0.0.1:{port}", token=TOKEN, setup_mode="OFF", deadline_s=0.2) as store:
        with pytest.raises(ConnectError, match=str(port)) as caught:
            store.mset([("a", TEXT)])
    assert caught.value.applied is False


def test_what_was_acknowledged_is_stored_when_the_server_answers_no_more(
    opened: Any, server: UpstashServer, stored: Any
) -> None:
    store = opened(deadline_s=0.3)
    pairs = [[(f"k{number}", TEXT), (f"r{number}", RAW)] for number in range(30)]
    for some in pairs[:20]:
        store.call("mset", some)
    server.faults += [Fault("dropped"), Fault("lost")] * 10_000
    for some in pairs[20:]:
        with pytest.raises(StoreError) as caught:
            store.call("mset", some)
        assert caught.value.applied is None
    acknowledged = dict(each for some in pairs[:20] for each in some)
    assert acknowledged.items() <= stored().items()


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_a_wrong_token_is_told_and_never_shown(server: UpstashServer, opened: Any) -> None:
    store = opened(token="hunter2-of-another")
    for verb, arguments in [
        ("mget", ["a"]),
        ("mset", [("a", RAW), ("b", TEXT)]),
        ("mdelete", ["a"]),
        ("add", [("a", TEXT)]),
    ]:
        with pytest.raises(AuthError, match="UPSTASH_REDIS_REST_TOKEN") as caught:
            store.call(verb, arguments)
        assert caught.value.applied is False
        shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        assert "hunter2" not in "".join(shown.format())
    opened(token=TOKEN).call("mset", [("a", RAW)])


def test_a_fresh_token_is_asked_for_once_and_the_call_goes_on(server: UpstashServer, opened: Any, stored: Any) -> None:
    tokens = ["old", TOKEN]
    store = opened(token=lambda: tokens.pop(0) if len(tokens) > 1 else tokens[0])
    store.call("mset", [("a", TEXT), ("b", RAW), ("c", RAW)])
    assert tokens == [TOKEN]
    assert stored() == {"a": TEXT, "b": RAW, "c": RAW}


def test_a_large_batch_with_a_wrong_token_ends_with_its_first_part(server: UpstashServer, opened: Any) -> None:
    asked = []

    def token() -> str:
        asked.append(1)
        return "wrong"

    store = opened(token=token)
    with pytest.raises(AuthError):
        store.call("mset", [(f"k{number}", TEXT) for number in range(5_000)])
    assert len(asked) == 2


# -- servers that lack something --------------------------------------------------------------------------------------


@pytest.mark.parametrize("speaks_resp2", [False, "refuses"])
def test_a_server_without_resp2_is_asked_for_base64(
    server: UpstashServer, opened: Any, stored: Any, speaks_resp2: Any
) -> None:
    server.speaks_resp2 = speaks_resp2
    store = opened()
    assert store.call("add", [("n", RAW)]) == ["n"]
    store.call("mset", [("a", TEXT), ("b", RAW)])
    assert store.call("mget", ["a", "b", "n", "x"]) == [TEXT, RAW, RAW, None]
    assert stored() == {"a": TEXT, "b": RAW, "n": RAW}
    before = len(server.requests)
    store.call("mget", ["a"])
    assert len(server.requests) == before + 1


def test_what_the_service_refuses_is_told_in_its_words(server: UpstashServer, opened: Any) -> None:
    store = opened()
    server.faults.append(Fault("status", 400, b'{"error":"ERR max requests limit exceeded. Limit: 5, Usage: 5."}'))
    with pytest.raises(StoreError, match=r"max requests limit exceeded\. Limit: 5") as caught:
        store.call("mset", [("a", TEXT)])
    assert (caught.value.applied, caught.value.retryable) == (False, False)


@pytest.mark.parametrize("status", [413, 414])
def test_what_a_gateway_finds_too_large_is_told(server: UpstashServer, opened: Any, status: int) -> None:
    store = opened()
    server.faults.append(Fault("status", status, b"<html>"))
    with pytest.raises(LimitError, match=rf"Key 'a'.*HTTP {status}.*use a smaller one") as caught:
        store.call("mset", [("a", RAW * 100)])
    assert caught.value.applied is False
    store.call("mset", [("a", RAW)])


def test_a_token_that_the_service_quotes_is_masked(server: UpstashServer, opened: Any) -> None:
    store = opened()
    server.faults.append(Fault("status", 400, b'{"error":"ERR what is %s"}' % TOKEN.encode()))
    with pytest.raises(StoreError, match=r"ERR what is \*\*\*"):
        store.call("mset", [("a", TEXT)])


def test_a_closed_store_says_so(opened: Any) -> None:
    store = opened()
    store.call("mset", [("a", TEXT)])
    store.store.close()
    with pytest.raises(StoreClosedError):
        store.call("mget", ["a"])
