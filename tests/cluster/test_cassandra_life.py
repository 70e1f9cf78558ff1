"""Connecting, failing, forking, closing: the engine on a real node, and what its errors say."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import cassandra
import pytest
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionShutdown

from bodies import Bodies, row
from cassandra_node import Node
from langchain_kv import KVStore, SetupMode
from langchain_kv.engines.base import CollectionName, DocId, Engine
from langchain_kv.engines.cassandra import scan as cassandra_scan
from langchain_kv.engines.cassandra.engine import CassandraEngine
from langchain_kv.engines.cassandra.failures import translated
from langchain_kv.engines.cassandra.rows import serialized
from langchain_kv.engines.cassandra.scan import Scan
from langchain_kv.errors import (
    AuthError,
    ConnectError,
    DataAPIError,
    PartialWriteError,
    StoreClosedError,
    StoreError,
    UnknownKeyspaceError,
)
from langchain_kv.places.clusters import read_cluster_url

pytestmark = pytest.mark.slow


def doc(key: str, value: int = 1) -> bytes:
    return f'{{"_id":"{key}","value":{value}}}'.encode()


@pytest.fixture
def own_engine(cassandra_node: Node) -> Iterator[Callable[[str], CassandraEngine]]:
    """Makes engines of a URL, closed at the end."""
    made: list[CassandraEngine] = []

    def make(url: str = "") -> CassandraEngine:
        made.append(
            Bodies(CassandraEngine(read_cluster_url((url or cassandra_node.url()).removeprefix("cassandra:"))[0]))
        )
        return made[-1]

    yield make
    for engine in made:
        engine.close()


# -- connecting -------------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_told_and_not_shown(cassandra_node: Node, own_engine: Any) -> None:
    engine = own_engine(cassandra_node.url(password="s3cret"))
    with pytest.raises(AuthError, match="password") as caught:
        engine.keyspaces()
    assert "s3cret" not in str(caught.value)
    assert caught.value.applied is False


def test_no_login_where_one_is_asked_for(cassandra_node: Node, own_engine: Any) -> None:
    with pytest.raises(AuthError):
        own_engine(f"cassandra://{cassandra_node.host}:{cassandra_node.port}").keyspaces()


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_an_unreachable_host_is_told(own_engine: Any, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConnectError, match=f"{host}:{port}") as caught:
        own_engine(f"cassandra://a:s3cret@{host}:{port}").keyspaces()
    assert caught.value.applied is False
    assert "s3cret" not in str(caught.value)


def test_one_host_of_several_is_enough(cassandra_node: Node, own_engine: Any) -> None:
    url = cassandra_node.url(query="local_dc=datacenter1&consistency=all").replace("@", "@127.0.0.77,")
    assert "system" not in own_engine(url).keyspaces()


def test_a_keyspace_is_made_by_set_up_only(cassandra_node: Node, shared_engine: Engine) -> None:
    keyspace = f"ks_{uuid.uuid4().hex[:8]}"
    url = cassandra_node.url(keyspace)
    with KVStore("kv", url, setup_mode=SetupMode.OFF) as store, pytest.raises(UnknownKeyspaceError, match=keyspace):
        store.mget(["a"])
    assert keyspace not in shared_engine.keyspaces()
    with KVStore("kv", url) as store:
        store.mset([("a", 1)])
        assert store.mget(["a"]) == [1]
    assert keyspace in shared_engine.keyspaces()
    shared_engine.drop_keyspace(keyspace)


def test_new_keyspaces_have_the_replication_that_the_url_names(
    cassandra_node: Node, own_engine: Any, shared_engine: Engine, cql: Any
) -> None:
    own_engine(cassandra_node.url(query="replication=2")).create_keyspace("two_replicas")
    ((replication,),) = cql("SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = 'two_replicas'")
    assert dict(replication)["datacenter1"] == "2"
    shared_engine.drop_keyspace("two_replicas")


def test_the_clusters_own_keyspaces_are_neither_listed_nor_dropped(shared_engine: Engine) -> None:
    assert not [name for name in shared_engine.keyspaces() if name.startswith("system")]
    with pytest.raises(DataAPIError, match="system_auth"):
        shared_engine.drop_keyspace("system_auth")


def test_stores_of_one_target_share_an_engine_that_ends_with_the_last(cassandra_node: Node, kv: CollectionName) -> None:
    url = cassandra_node.url("default_keyspace")
    one, two = KVStore(kv.name, url), KVStore(kv.name, url)
    assert one._backend._opened_engine is two._backend._opened_engine
    one.mset([("a", 1)])
    one.close()
    assert two.mget(["a"]) == [1]
    two.close()
    with pytest.raises(StoreClosedError):
        two.mget(["a"])
    assert two._backend._opened_engine._session is None


async def test_closing_on_the_loop_does_not_wait_for_its_own_operations(own_engine: Any, kv: CollectionName) -> None:
    engine = own_engine()
    reads = [asyncio.ensure_future(engine.aread(kv, ["a"])) for _ in range(3)]
    await asyncio.sleep(0)
    engine.close()
    results = await asyncio.gather(*reads, return_exceptions=True)
    assert all(isinstance(result, StoreError) or result == [None] for result in results)


# -- the guardrail --------------------------------------------------------------------------------------------------


def test_many_keys_are_read_one_by_one_where_a_guardrail_refuses_more(
    cassandra_node: Node, cql: Any, own_engine: Any, kv: CollectionName
) -> None:
    cql("CREATE ROLE IF NOT EXISTS app WITH PASSWORD = 'app' AND LOGIN = true")
    cql("GRANT ALL PERMISSIONS ON KEYSPACE default_keyspace TO app")
    keys = [f"k{number}" for number in range(cassandra_node.in_max + 20)]
    engine = own_engine(cassandra_node.url(user="app", password="app", query="in_chunk=100"))
    engine.write(kv, [(key, doc(key)) for key in keys])

    assert engine.read(kv, [*keys, "x"]) == [*[doc(key) for key in keys], None]
    assert engine._tables[kv].in_refused
    engine.modify(kv, keys, lambda doc_id, body: None)
    assert engine.count(kv) == 0


def test_what_a_user_may_not_do_is_told(cassandra_node: Node, cql: Any, own_engine: Any, kv: CollectionName) -> None:
    cql("CREATE ROLE IF NOT EXISTS reader WITH PASSWORD = 'reader' AND LOGIN = true")
    cql("GRANT SELECT ON KEYSPACE default_keyspace TO reader")
    engine = own_engine(cassandra_node.url(user="reader", password="reader"))
    assert engine.read(kv, ["a"]) == [None]
    with pytest.raises(AuthError, match="reader") as caught:
        engine.write(kv, [("a", doc("a"))])
    assert caught.value.applied is False


# -- failures ---------------------------------------------------------------------------------------------------------


class Flaky:
    """Stands before the driver's session and lets statements fail, before or after they were carried out."""

    def __init__(self, session: Any, decide: Callable[[str, int], Any]) -> None:
        self._session = session
        self._decide = decide
        self.sent = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def execute_async(self, statement: Any, values: Any, execution_profile: str) -> Any:
        self.sent += 1
        return Answer(self, statement, values, execution_profile, self._decide(execution_profile, self.sent))


class Answer:
    def __init__(self, flaky: Flaky, statement: Any, values: Any, profile: str, fault: Any) -> None:
        self._future = None
        self._fault = fault
        if fault is None or fault[0] == "after":
            self._future = flaky._session.execute_async(statement, values, execution_profile=profile)

    def add_callbacks(self, callback: Any, errback: Any, callback_args: Any, errback_args: Any) -> None:
        if self._fault is None:
            self._future.add_callbacks(callback, errback, callback_args=callback_args, errback_args=errback_args)
            return
        if self._future is not None:
            self._future.result()
        errback(self._fault[1], *errback_args)


@pytest.fixture
def flaky(own_engine: Any) -> Callable[[Callable[[str, int], Any]], CassandraEngine]:
    """Makes an engine whose statements fail as ``decide(manner, number)`` says: ("before" | "after", the error)."""

    def make(decide: Callable[[str, int], Any]) -> CassandraEngine:
        engine: CassandraEngine = own_engine()
        session = engine._connected()
        session._session = Flaky(session._session, decide)
        return engine

    return make


CAS_TIMEOUT = cassandra.WriteTimeout("cas", write_type=cassandra.WriteType.CAS)
UNAVAILABLE = cassandra.Unavailable("few", consistency=6, required_replicas=2, alive_replicas=1)
TIMED_OUT = cassandra.OperationTimedOut()
LOST = ConnectionShutdown("gone")


def writes_fail(*faults: Any) -> Callable[[str, int], Any]:
    left = list(faults)

    def decide(manner: str, number: int) -> Any:
        return left.pop(0) if manner == "write" and left else None

    return decide


@pytest.mark.parametrize("error", [CAS_TIMEOUT, TIMED_OUT, LOST], ids=["cas-timeout", "timed-out", "lost"])
def test_an_unknown_write_that_happened_is_found_out(flaky: Any, kv: CollectionName, error: Any) -> None:
    engine = flaky(writes_fail(("after", error)))
    engine.write(kv, [("a", doc("a"))])
    assert engine.read(kv, ["a"]) == [doc("a")]
    engine = flaky(writes_fail(("after", error)))
    assert engine.delete(kv, ["a"]) == 1
    engine = flaky(writes_fail(("after", error)))
    engine.modify(kv, ["a"], lambda doc_id, body: doc("a", 2))
    assert engine.read(kv, ["a"]) == [doc("a", 2)]


@pytest.mark.parametrize("error", [CAS_TIMEOUT, TIMED_OUT, LOST], ids=["cas-timeout", "timed-out", "lost"])
def test_an_unknown_write_is_reported_as_unknown_and_not_repeated(flaky: Any, kv: CollectionName, error: Any) -> None:
    engine = flaky(writes_fail(("before", error)))
    with pytest.raises(StoreError) as caught:
        engine.write(kv, [("a", doc("a"))])
    assert caught.value.applied is None
    assert engine.read(kv, ["a"]) == [None]


def test_a_write_that_another_writer_overtook_stays_unknown(flaky: Any, shared_engine: Any, kv: CollectionName) -> None:
    def decide(manner: str, number: int) -> Any:
        if manner == "serial":  # another writer comes between the own write and the question what became of it
            write = shared_engine.awrite(kv, [row("a", doc("a", 99))])
            with ThreadPoolExecutor() as thread:  # here it is the event loop's own, which must not wait for itself
                thread.submit(asyncio.run, write).result()
        return ("after", CAS_TIMEOUT) if manner == "write" else None

    with pytest.raises(StoreError) as caught:
        flaky(decide).write(kv, [("a", doc("a"))])
    assert caught.value.applied is None
    assert shared_engine.read(kv, ["a"]) == [doc("a", 99)]


def test_what_certainly_did_not_happen_is_tried_again(flaky: Any, kv: CollectionName) -> None:
    engine = flaky(writes_fail(("before", UNAVAILABLE), ("before", NoHostAvailable("none", {}))))
    engine.write(kv, [("a", doc("a"))])
    assert engine.read(kv, ["a"]) == [doc("a")]


def test_unavailable_for_good_changed_nothing(flaky: Any, kv: CollectionName) -> None:
    engine = flaky(lambda manner, number: ("before", UNAVAILABLE))
    for call in (
        lambda: engine.write(kv, [("a", doc("a"))]),
        lambda: engine.delete(kv, ["a"]),
        lambda: engine.read(kv, ["a", "b"]),
        lambda: engine.scan_ids(kv, limit=1),
        lambda: engine.modify(kv, ["a"], lambda doc_id, body: doc("a")),
    ):
        with pytest.raises(DataAPIError, match="1 of 2") as caught:
            call()
        assert caught.value.code == "UNAVAILABLE_DATABASE"
        assert (caught.value.applied, caught.value.retryable) == (False, True)


def test_a_batch_that_fails_in_part_names_every_key(flaky: Any, kv: CollectionName) -> None:
    faults = [("before", CAS_TIMEOUT), None, ("before", cassandra.InvalidRequest("too large")), ("after", CAS_TIMEOUT)]
    engine = flaky(writes_fail(*faults))
    with pytest.raises(PartialWriteError) as caught:
        engine.write(kv, [(key, doc(key)) for key in ("unknown", "good", "refused", "found out", "good too")])
    assert caught.value.written == ("good", "found out", "good too")
    assert caught.value.unwritten == ("refused",)
    assert caught.value.unknown == ("unknown",)
    assert caught.value.errors.keys() == {"refused", "unknown"}


def test_a_cluster_that_has_gone_is_not_asked_for_every_key(flaky: Any, kv: CollectionName) -> None:
    engine = flaky(lambda manner, number: ("before", TIMED_OUT) if number > 20 else None)
    assert engine._session is not None
    engine._session.settings = replace(engine._session.settings, deadline_s=0)  # one round: how many follow is random
    keys = [f"k{number}" for number in range(1_000)]
    with pytest.raises(PartialWriteError) as caught:
        engine.write(kv, [(key, doc(key)) for key in keys])
    error = caught.value
    assert sorted([*error.written, *error.unwritten, *error.unknown]) == sorted(keys)
    assert len(error.unwritten) > 800
    assert error.unknown
    assert engine._session._session.sent < 100


def test_a_read_that_fails_in_passing_is_repeated(flaky: Any, shared_engine: Engine, kv: CollectionName) -> None:
    shared_engine.write(kv, [(f"k{number}", doc(f"k{number}")) for number in range(200)])
    read_timeout = cassandra.ReadTimeout("slow")
    engine = flaky(lambda manner, number: ("before", read_timeout) if number in (2, 3) else None)
    assert len([body for body in engine.read(kv, [f"k{number}" for number in range(200)]) if body]) == 200
    assert len(engine.scan_ids(kv, limit=1_000)) == 200


async def test_a_scan_goes_on_after_an_error_and_meets_each_row_once(
    flaky: Any, shared_engine: Engine, kv: CollectionName
) -> None:
    keys = {f"k{number}" for number in range(300)}
    shared_engine.write(kv, [(key, doc(key)) for key in keys])
    is_down = threading.Event()
    engine = flaky(lambda manner, number: ("before", UNAVAILABLE) if is_down.is_set() else None)
    scan = Scan(prefix="", with_bodies=False, limit=20)
    found: list[DocId | None] = []
    errors = 0
    while True:
        try:
            page = await engine.anext_page(kv, scan)
        except DataAPIError:
            errors += 1
            is_down.clear()
            continue
        if page is None:
            break
        found += [doc_id for doc_id, _ in page]
        if not errors:
            is_down.set()
    assert errors == 1
    assert len(found) == 300
    assert set(found) == keys


@pytest.mark.parametrize("bits", [1, 4])
async def test_ids_of_one_token_are_each_met_once(monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    """Rows are cut into pages within a token, too: seen here by a stand-in for the table with a poor hash."""
    keys = [(1, f"k{number}") for number in range(99)]
    rows = sorted((hash_of(key[1], bits), serialized(key), key) for key in keys)
    monkeypatch.setattr(cassandra_scan, "token_of", lambda key: hash_of(key[9:].decode(), bits))

    class Operation:
        async def statement(self, name: str) -> str:
            return name

        async def outcomes(self, batch: Any) -> list[Any]:
            ranges = [values for _, values in batch.calls]
            return [[(key,) for token, _, key in rows if start <= token <= end][:most] for start, end, most in ranges]

    operation: Any = Operation()
    scan = Scan(prefix="", with_bodies=False, limit=10)
    found: list[DocId | None] = []
    while (page := await scan.next_page(operation)) is not None:
        found += [doc_id for doc_id, _ in page]
    assert sorted(found) == sorted(key for _, _, (_, key) in rows)
    paged: list[DocId | None] = []
    where: dict[str, Any] = {"prefix": "", "limit": 7, "size_bytes": None, "with_bodies": False}
    while page := await cassandra_scan.page(operation, after=paged[-1] if paged else None, **where):
        paged += [doc_id for doc_id, _ in page]
    assert paged == [key for _, _, (_, key) in rows]


def hash_of(text: str, bits: int) -> int:
    return (sum(text.encode()) % (1 << bits)) - (1 << bits - 1)


@pytest.mark.parametrize("manner", ["read", "write"])
def test_every_exception_of_the_driver_becomes_one_of_ours(manner: str) -> None:
    kinds = [kind for kind in vars(cassandra).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 15
    for kind in [*kinds, OSError, NoHostAvailable, ValueError]:
        error = kind.__new__(kind)
        error.args = ("text",)
        for name in ("alive_replicas", "required_replicas"):
            if kind is cassandra.Unavailable:
                setattr(error, name, 1)
        found = translated(error, CollectionName("ks", "kv"), writes=manner == "write")
        assert isinstance(found, StoreError)
        assert found.applied is False if manner == "read" else found.applied in (False, None)


# -- processes ------------------------------------------------------------------------------------------------------

FORKING = """
import os, sys
from langchain_kv import KVStore
name, url = sys.argv[1:]
store = KVStore(name, url)
store.mset([("parent", 1)])
children = []
for number in range(3):
    pid = os.fork()
    if not pid:
        assert store.mget(["parent"]) == [1]
        store.mset([(f"child{number}", number)])
        if number == 0:
            store.close()
        if number == 1:
            os._exit(0)
        sys.exit(0)  # with all that an interpreter does at its end
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
store.mset([("after", 2)])
assert store.mget(["parent", "child0", "child1", "child2", "after"]) == [1, 0, 1, 2, 2]
store.close()
print("good")
"""


def test_forked_children_connect_anew_and_leave_the_parent_alone(cassandra_node: Node, kv: CollectionName) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING, kv.name, cassandra_node.url("default_keyspace")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("good\n", "", 0)


UNCLOSED = """
import asyncio, sys
from langchain_kv import KVStore
store = KVStore(*sys.argv[1:])
store.mset([("a", 1)])
async def main():
    assert await store.amget(["a"]) == [1]
asyncio.run(main())
asyncio.run(main())
print("good")
"""


def test_a_store_that_is_never_closed_lets_its_process_end_in_silence(cassandra_node: Node, kv: CollectionName) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNCLOSED, kv.name, cassandra_node.url("default_keyspace")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("good\n", "", 0)


class Silent:
    """Stands for the driver's session and the answers it owes: Ctrl-C is pressed while they are waited for."""

    def execute_async(self, *_: Any, **__: Any) -> Silent:
        return self

    def add_callbacks(self, *_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_interrupts_and_the_engine_goes_on(own_engine: Any, kv: CollectionName) -> None:
    engine = own_engine()
    assert engine.count(kv) == 0
    assert engine.read(kv, ["a"]) == [None]
    session = engine._session._session
    engine._session._session = Silent()
    with pytest.raises(KeyboardInterrupt):
        engine.read(kv, ["a"])
    engine._session._session = session
    assert engine.read(kv, ["a"]) == [None]
