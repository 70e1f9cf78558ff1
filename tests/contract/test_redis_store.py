"""``RedisStore`` beside the archived class on one Redis: each reads what the other wrote, and none of its defects."""

from __future__ import annotations

import asyncio
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from langchain_tests.integration_tests.base_store import BaseStoreAsyncTests, BaseStoreSyncTests

from installed import need
from langchain_kv import (
    AuthError,
    ConfigError,
    ConnectError,
    DamagedValueError,
    KVStore,
    PartialWriteError,
    RedisClientPlace,
    RedisStore,
    RequestTimeoutError,
    SetupMode,
    StoreClosedError,
    StoreError,
    TransportError,
    UsageError,
)
from redis_node import RedisNode, free_port, missing, running_redis

PAIRS = [("a", b"1"), ("b", bytes(range(256))), ("c/d", b""), ("\u00e9", b"\xff\xfe")]


@pytest.fixture(scope="module", params=["redis", "valkey"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisNode]:
    need(missing(request.param))
    with running_redis(tmp_path_factory.mktemp(request.param), request.param) as running:
        yield running


@pytest.fixture
def client(node: RedisNode) -> Iterator[Any]:
    """A client of an empty database."""
    with redis.Redis(port=node.port) as client:
        client.flushdb()
        yield client


@pytest.fixture
def archived() -> Any:
    """The archived class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of its end
        from langchain_community.storage.redis import RedisStore as Archived
    return Archived


class StandardFixtures:
    @pytest.fixture
    def kv_store(self, client: Any) -> RedisStore:
        return RedisStore(client=client, namespace="standard")

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"1", b"\xff", b"3"


class TestStandard(StandardFixtures, BaseStoreSyncTests[bytes]):
    """LangChain's own tests."""


class TestStandardAsync(StandardFixtures, BaseStoreAsyncTests[bytes]):
    """LangChain's own tests."""


# -- both ways --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("namespace", [None, "ns"])
def test_each_reads_and_lists_and_deletes_what_the_other_wrote(client: Any, archived: Any, namespace: Any) -> None:
    for one, other in [(RedisStore, archived), (archived, RedisStore)]:
        writer, reader = one(client=client, namespace=namespace), other(client=client, namespace=namespace)
        writer.mset(PAIRS)
        assert reader.mget([key for key, _ in PAIRS]) == [value for _, value in PAIRS]
        assert sorted(reader.yield_keys()) == sorted(key for key, _ in PAIRS)
        reader.mdelete([key for key, _ in PAIRS])
        assert list(writer.yield_keys()) == []


def test_what_it_keeps_is_what_the_archived_one_keeps(client: Any) -> None:
    RedisStore(client=client, namespace="ns", ttl=60).mset([("a", b"\x00\xff")])
    RedisStore(client=client).mset([("b", b"2")])
    assert {key: client.get(key) for key in client.scan_iter()} == {b"ns/a": b"\x00\xff", b"b": b"2"}
    assert 50 < client.ttl("ns/a") <= 60
    assert client.ttl("b") == -1


def test_its_attributes_are_those_of_the_archived_one(client: Any) -> None:
    store = RedisStore(client=client, ttl=5, namespace="ns")
    assert (store.client, store.ttl, store.namespace) == (client, 5, "ns")


def test_its_arguments_are_refused_with_the_errors_of_the_archived_one(node: RedisNode, client: Any) -> None:
    with pytest.raises(ValueError, match="but not both"):
        RedisStore(client=client, redis_url=node.url)
    with pytest.raises(ValueError, match="must be provided"):
        RedisStore()
    with pytest.raises(TypeError, match="Expected Redis client, got str instead"):
        RedisStore(client="redis")
    with pytest.raises(TypeError, match="Expected int or None"):
        RedisStore(client=client, ttl="5")  # type: ignore[arg-type]
    assert RedisStore(client=client).mget(["a"]) == [None]


def test_a_clients_connections_stay_open_and_those_of_a_url_are_closed(node: RedisNode, client: Any) -> None:
    RedisStore(client=client).close()
    assert client.ping()
    before = len(client.client_list())
    with RedisStore(redis_url=node.url) as store:
        store.mset([("a", b"1")])
        assert len(client.client_list()) == before + 1
    end = time.monotonic() + 10
    while len(client.client_list()) != before:  # the server sees the end of a connection a moment later
        assert time.monotonic() < end
    with pytest.raises(StoreClosedError):
        store.mget(["a"])


# -- the archived one's defects (by the order in which its review names them) -----------------------------------------


@pytest.fixture
def store(client: Any) -> RedisStore:
    return RedisStore(client=client, namespace="n")


def test_1_a_prefix_finds_the_keys_that_begin_with_it(store: RedisStore) -> None:
    store.mset([("foo", b"1"), ("foobar", b"2"), ("bar", b"3")])
    assert sorted(store.yield_keys(prefix="foo")) == ["foo", "foobar"]


@pytest.mark.parametrize("namespace", ["n?", "*", "n[1]", "n\\"])
def test_2_no_character_of_a_prefix_or_a_namespace_is_a_pattern(client: Any, namespace: str) -> None:
    RedisStore(client=client, namespace="n1").mset([("hidden", b"")])
    store = RedisStore(client=client, namespace=namespace)
    store.mset([("a*c", b"1"), ("abc", b"2"), ("a?[b]", b"3")])
    assert sorted(store.yield_keys()) == ["a*c", "a?[b]", "abc"]
    assert list(store.yield_keys(prefix="a*c")) == ["a*c"]
    assert list(store.yield_keys(prefix="a?[")) == ["a?[b]"]


def test_3_empty_batches_do_nothing_and_none_is_refused_by_name(store: RedisStore) -> None:
    store.mdelete([])
    store.mset([])
    assert store.mget([]) == []
    with pytest.raises(TypeError, match="'b'"):
        store.mset([("a", b"1"), ("b", None)])  # type: ignore[list-item]
    assert store.mget(["a"]) == [None]


def test_4_a_foreign_key_that_is_no_text_is_left_out(client: Any) -> None:
    client.set(b"\xff", b"1")
    client.set("a", b"2")
    client.rpush("a list", b"3")
    store = RedisStore(client=client)
    assert list(store.yield_keys()) == ["a"]
    assert store.mget(["a", "a list"]) == [b"2", None]


def test_5_a_client_that_makes_text_of_bytes_is_refused_by_name(node: RedisNode) -> None:
    with redis.Redis(port=node.port, decode_responses=True) as client:
        with pytest.raises(ConfigError, match="decode_responses=True"):
            RedisStore(client=client)
    with redis.Redis(port=node.port) as client:
        assert RedisStore(client=client).mget(["no such key"]) == [None]
    with pytest.raises(ConfigError, match="decode_responses=True"):
        RedisStore(redis_url=node.url, client_kwargs={"decode_responses": True})


def test_6_a_ttl_that_is_no_time_is_refused_when_the_store_is_made(client: Any) -> None:
    for ttl in (0, -1):
        with pytest.raises(ValueError, match="over 0"):
            RedisStore(client=client, ttl=ttl)
    with pytest.raises(TypeError):
        RedisStore(client=client, ttl=True)


def test_7_a_key_that_scan_repeats_is_listed_once(client: Any) -> None:
    # Redis makes its table smaller during the listing: SCAN answers keys of one bucket again.
    store = RedisStore(client=client)
    store.mset([(f"k{number}", b"") for number in range(20_000)])
    listing = store.yield_keys()
    seen = [next(listing)]
    store.mdelete([f"k{number}" for number in range(100, 20_000)])
    seen += listing
    assert len(seen) == len(set(seen))
    assert {key for key in seen if int(key[1:]) < 100} == {f"k{number}" for number in range(100)}


def test_8_a_large_batch_is_sent_in_bounded_commands(client: Any, store: RedisStore) -> None:
    store.mset([(f"k{number}", b"x" * 100) for number in range(5_000)])
    client.config_resetstat()
    store.mset([(f"k{number}", b"x" * 100) for number in range(5_000)])
    assert store.mget([f"k{number}" for number in range(5_000)]) == [b"x" * 100] * 5_000
    calls = client.info("commandstats")
    assert (calls["cmdstat_mset"]["calls"], calls["cmdstat_mget"]["calls"]) == (5, 5)


def test_9_coroutines_of_an_asynchronous_client_run_in_its_loop(node: RedisNode, client: Any) -> None:
    async def main() -> None:
        async with redis.asyncio.Redis(port=node.port) as own:
            store = RedisStore(client=own, namespace="n")
            await store.amset(PAIRS)
            assert await store.amget(["b", "x"]) == [PAIRS[1][1], None]
            assert sorted([key async for key in store.ayield_keys()]) == sorted(key for key, _ in PAIRS)
            with pytest.raises(UsageError, match="await the method with a leading a"):
                store.mget(["a"])

    asyncio.run(main())
    assert RedisStore(client=client, namespace="n").mget(["a"]) == [b"1"]


# -- kinds ------------------------------------------------------------------------------------------------------------


def test_a_value_of_the_other_kind_is_an_error_that_names_the_key_and_the_class(node: RedisNode, client: Any) -> None:
    with KVStore("kv", node.url) as values:
        values.mset([("json", {"n": 1})])
        blobs = RedisStore(client=client, namespace="kv")
        blobs.mset([("bytes", b'{"n":1}')])
        with pytest.raises(DamagedValueError, match=r"'json'.*KVStore"):
            blobs.mget(["json", "bytes"])
        with pytest.raises(DamagedValueError, match=r"'bytes'.*KVByteStore"):
            values.mget(["json", "bytes"])


def test_bytes_that_begin_as_json_does_are_bytes(client: Any, node: RedisNode) -> None:
    with KVStore("kv", node.url) as values:
        values.mset([("a", 1)])
    kept = client.get("kv/a")
    assert kept.strip() == b"1"
    store = RedisStore(client=client)
    for value in (kept, kept[:8], kept[:7], kept[:7] + b"\0", kept[:7] + b"\0\0"):
        store.mset([("a", value)])
        assert store.mget(["a"]) == [value]


# -- what fails -------------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_told(client: Any) -> None:
    port = free_port()
    store = RedisStore(redis_url=f"redis://user:hunter2@127.0.0.1:{port}")
    with pytest.raises(ConnectError, match=str(port)) as caught:
        store.mset([("a", b"1"), ("b", b"2")])
    assert caught.value.applied is False
    assert "hunter2" not in f"{store!r} {caught.value}"


def test_a_server_that_does_not_answer_in_time_is_told(client: Any, node: RedisNode) -> None:
    with RedisStore(redis_url=node.url, client_kwargs={"socket_timeout": 0.1}) as hasty:
        client.client_pause(60_000, all=False)
        try:
            with pytest.raises(RequestTimeoutError, match="give it more time") as caught:
                hasty.mset([("a", b"1")])
            assert caught.value.applied is None
        finally:
            client.client_unpause()
    with RedisStore(redis_url=node.url) as patient:
        patient.mset([("a", b"1")])
        assert patient.mget(["a"]) == [b"1"]


def test_wrong_credentials_are_told(node: RedisNode) -> None:
    with RedisStore(redis_url=f"redis://user:hunter2@127.0.0.1:{node.port}") as store:
        with pytest.raises(AuthError) as caught:
            store.mget(["a"])
    assert "hunter2" not in str(caught.value)


def test_what_a_full_server_refuses_is_told_and_the_rest_is_kept(client: Any, store: RedisStore) -> None:
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 8_000_000)
    try:
        with pytest.raises(PartialWriteError, match="maxmemory") as caught:
            store.mset([(f"k{number}", b"x" * 1_000_000) for number in range(20)])
    finally:
        client.config_set("maxmemory", 0)
    assert caught.value.written
    assert caught.value.unwritten
    assert sorted(store.yield_keys()) == sorted(caught.value.written)


def test_a_server_that_dies_is_told(tmp_path: Any) -> None:
    need(missing("redis"))
    with running_redis(tmp_path) as dying, RedisStore(redis_url=dying.url) as store:
        store.mset([("a", b"1")])
        dying.process.kill()
        dying.process.wait()
        for call in (lambda: store.mget(["a"]), lambda: store.mset([("a", b"2")]), lambda: store.add([("a", b"2")])):
            with pytest.raises(TransportError) as caught:
                call()
            assert isinstance(caught.value, StoreError)
            assert caught.value.retryable


def _crash(store: KVStore, node: RedisNode, count: int) -> tuple[dict[str, set[int | None]], StoreError | None]:
    """Write batches while the server is killed; return what may stand under each key, and how it was told."""
    keys = [f"k{number}" for number in range(20)]
    may_be: dict[str, set[int | None]] = {key: {None} for key in keys}
    killer = threading.Timer(0.05 * count, node.process.kill)
    killer.start()
    for number in range(1_000_000):
        try:
            store.mset([(key, number) for key in keys])
        except StoreError as error:
            partial = isinstance(error, PartialWriteError)
            unknown = error.unknown if partial else keys if error.applied is None else ()
            for key in error.written if partial else ():
                may_be[key] = {number}
            for key in unknown:
                may_be[key].add(number)
            killer.join()
            node.process.wait()
            return may_be, error
        may_be = {key: {number} for key in keys}
    return may_be, None


@pytest.mark.slow
@pytest.mark.parametrize("given", [False, True], ids=["url", "client"])
def test_a_killed_server_has_what_was_acknowledged_and_not_what_was_called_unwritten(
    tmp_path: Path, given: bool
) -> None:
    need(missing("redis"))
    for count in range(1, 4):
        directory = tmp_path / str(count)
        directory.mkdir()
        log = ("--appendonly", "yes", "--appendfsync", "always")
        with running_redis(directory, "redis", *log) as node:
            place = RedisClientPlace(redis.Redis(port=node.port)) if given else node.url
            with KVStore("kv", place) as store:
                may_be, error = _crash(store, node, count)
        assert error is not None
        assert error.retryable
        with running_redis(directory, "redis", *log) as node, KVStore("kv", node.url) as store:
            found = dict(zip(may_be, store.mget(list(may_be)), strict=True))
        assert {key: value for key, value in found.items() if value not in may_be[key]} == {}


def test_a_write_that_may_have_arrived_is_not_called_unwritten_because_the_next_try_did_not(
    node: RedisNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langchain_kv.backends.redis._wait_s", lambda number: 0.0)
    errors = [redis.ConnectionError("Connection closed by server.")]
    errors += [redis.ConnectionError("Error 111 connecting to h:1. Connection refused.")] * 2

    def fail(*args: Any, **options: Any) -> Any:
        raise errors.pop(0)

    with RedisStore(redis_url=node.url) as store:
        monkeypatch.setattr(store.client, "execute_command", fail)
        with pytest.raises(TransportError) as caught:
            store.mset([("a", b"1")])
    assert errors == []
    assert caught.value.applied is None


def test_a_client_that_sends_again_by_itself_leaves_open_what_it_could_not_reach(node: RedisNode) -> None:
    for owned, applied in ((True, False), (False, None)):
        place = f"redis://127.0.0.1:{free_port()}" if owned else RedisClientPlace(redis.Redis(port=free_port()))
        with KVStore("kv", place, setup_mode=SetupMode.OFF) as store, pytest.raises(ConnectError) as caught:
            store.mset([("a", 1)])
        assert caught.value.applied is applied


def test_what_is_not_sure_of_an_update_is_not_to_be_repeated_blindly(
    node: RedisNode, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (node.url, RedisClientPlace(redis.Redis(port=node.port, retry=None))):
        with KVStore("kv", place) as store:
            store.mset([("n", 1)])
            given = store._connection.backend.client  # type: ignore[attr-defined]
            sent = given.execute_command

            def send(*command: Any, sent: Any = sent, **more: Any) -> Any:
                reply = sent(*command, **more)
                if "string.sub(both" in str(command[1]) or "added[i]" in str(command[1]):
                    raise redis.ConnectionError("Connection closed by server.")
                return reply

            monkeypatch.setattr(given, "execute_command", send)
            for call in (lambda: store.update("n", lambda old: old + 1), lambda: store.add([("a", 1)])):
                with pytest.raises(TransportError, match="read the key before") as caught:
                    call()
                assert (caught.value.applied, caught.value.retryable) == (None, False)
            assert store.mget(["n", "a"]) == [2, 1]
            monkeypatch.undo()
            store.clear()


def test_a_read_that_was_not_answered_has_changed_nothing(client: Any, node: RedisNode) -> None:
    with KVStore("kv", RedisClientPlace(redis.Redis(port=node.port, socket_timeout=0.1, retry=None))) as hasty:
        client.client_pause(1_500, all=True)
        for call in (lambda: hasty.mget(["a"]), lambda: list(hasty.yield_keys()), lambda: hasty.update("a", str)):
            with pytest.raises(RequestTimeoutError) as caught:
                call()
            assert caught.value.applied is False
        assert client.ping()  # until then it answers nobody


def test_a_pool_without_a_free_connection_is_told(node: RedisNode) -> None:
    with redis.Redis(port=node.port, max_connections=1) as given, KVStore("kv", RedisClientPlace(given)) as store:
        taken = given.connection_pool.get_connection()
        with pytest.raises(ConnectError, match="max_connections") as caught:
            store.add([("a", 1)])
        assert (caught.value.applied, caught.value.retryable) == (False, True)
        given.connection_pool.release(taken)
        assert store.add([("a", 1)]) == ["a"]
        store.clear()


def test_what_expires_between_its_value_and_its_moment_is_absent(
    node: RedisNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    with KVStore("kv", node.url) as store:
        keys = [f"k{number}" for number in range(20)]
        store.mset([(key, 1) for key in keys])
        given = store._connection.backend.client  # type: ignore[attr-defined]
        made = given.pipeline

        def pipeline(**options: Any) -> Any:
            """One in which a key expires between the commands."""
            inner = made(**options)
            add, count = inner.execute_command, [0]

            def execute_command(*command: Any) -> Any:
                count[0] += 1
                if count[0] == 2:
                    add("DEL", "kv/k7")
                return add(*command)

            def execute(**options: Any) -> Any:
                replies = type(inner).execute(inner, **options)
                return [replies[0], replies[2]]

            inner.execute_command, inner.execute = execute_command, execute
            return inner

        monkeypatch.setattr(given, "pipeline", pipeline)
        assert store.mget(keys) == [1] * 7 + [None] + [1] * 12
        monkeypatch.undo()
        store.clear()


@pytest.mark.parametrize(("before", "between"), [(100, None), (None, 100), (100, 200)])
def test_an_update_keeps_the_moment_that_came_between(
    node: RedisNode, before: float | None, between: float | None
) -> None:
    with KVStore("kv", node.url) as store:
        store.mset([("k", 1)], ttl_s=before)
        calls: list[Any] = []

        def change(value: Any) -> Any:
            calls.append(value)
            if len(calls) == 1:
                store.mset([("k", 1)], ttl_s=between)
            return value

        store.update("k", change)
        with redis.Redis(port=node.port) as raw:
            left = raw.ttl("kv/k")
        assert len(calls) == 2
        assert left == -1 if between is None else left > between - 50
        store.clear()
