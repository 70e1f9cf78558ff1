"""``UpstashRedisByteStore`` and ``UpstashRedisStore`` beside the archived classes, on a stand-in over a real Redis."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
import redis
import upstash_redis
import upstash_redis.asyncio
from langchain_core.documents import Document
from langchain_tests.integration_tests.base_store import BaseStoreAsyncTests, BaseStoreSyncTests

from embedding_models import Model, vector_of
from installed import need
from langchain_kv import (
    ConfigError,
    DamagedValueError,
    DocumentStore,
    EmbeddingCache,
    InvalidValueError,
    KVByteStore,
    KVStore,
    RedisStore,
    UpstashRedisByteStore,
    UpstashRedisStore,
)
from langchain_kv.cli.main import run
from redis_node import RedisNode, missing, running_redis
from upstash_server import TOKEN, UpstashServer, running_upstash

TEXTS = [("a", "1"), ("b", "\u00e9\U0001f600"), ("c/d", ""), ("\u00e9", "two\r\nlines"), ("e", '{"n":1}')]
BINARY = [("a", b"1"), ("b", bytes(range(256))), ("c/d", b""), ("\u00e9 %?&#/", b"\xff\xfe"), ("e+ e", b"\xf0\x28")]


class Archived(NamedTuple):
    """The archived classes."""

    text: Any
    bytes: Any


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisNode]:
    need(missing("redis"))
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def client(node: RedisNode) -> Iterator[Any]:
    """A client of the empty database behind the server, by TCP."""
    with redis.Redis(port=node.port) as client:
        client.flushdb()
        yield client


@pytest.fixture
def server(node: RedisNode, client: Any) -> Iterator[UpstashServer]:
    with running_upstash(node.port) as running:
        yield running


@pytest.fixture
def own(server: UpstashServer) -> Iterator[Any]:
    """A client of upstash-redis."""
    client = upstash_redis.Redis(server.url, TOKEN, allow_telemetry=False)
    yield client
    client.close()


@pytest.fixture(scope="module")
def archived() -> Archived:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of its end
        from langchain_community.storage import upstash_redis as module
    return Archived(module._UpstashRedisStore, module.UpstashRedisByteStore)


class StandardFixtures:
    @pytest.fixture
    def kv_store(self, server: UpstashServer) -> Iterator[UpstashRedisByteStore]:
        with UpstashRedisByteStore(url=server.url, token=TOKEN, namespace="standard") as store:
            yield store

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"1", b"\xff", b"3"


class TestStandard(StandardFixtures, BaseStoreSyncTests[bytes]):
    """LangChain's own tests."""


class TestStandardAsync(StandardFixtures, BaseStoreAsyncTests[bytes]):
    """LangChain's own tests."""


class TextFixtures:
    @pytest.fixture
    def kv_store(self, server: UpstashServer) -> Iterator[UpstashRedisStore]:
        with UpstashRedisStore(url=server.url, token=TOKEN) as store:
            yield store

    @pytest.fixture
    def three_values(self) -> tuple[str, str, str]:
        return "1", "\u00e9", "3"


class TestStandardText(TextFixtures, BaseStoreSyncTests[str]):
    """LangChain's own tests."""


class TestStandardTextAsync(TextFixtures, BaseStoreAsyncTests[str]):
    """LangChain's own tests."""


# -- both ways --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("namespace", [None, "ns"])
@pytest.mark.parametrize("is_text", [True, False])
def test_each_reads_and_lists_and_deletes_what_the_other_wrote(
    own: Any, archived: Archived, namespace: str | None, is_text: bool
) -> None:
    ours: Any = UpstashRedisStore if is_text else UpstashRedisByteStore
    theirs = archived.text if is_text else archived.bytes
    pairs: list[Any] = TEXTS if is_text else [(key, text.encode()) for key, text in TEXTS]
    for one, other in [(ours, theirs), (theirs, ours)]:
        writer, reader = one(client=own, namespace=namespace), other(client=own, namespace=namespace)
        writer.mset(pairs)
        assert reader.mget([key for key, _ in pairs]) == [value for _, value in pairs]
        assert sorted(reader.yield_keys()) == sorted(key for key, _ in pairs)
        reader.mdelete([key for key, _ in pairs])
        assert list(writer.yield_keys()) == []
        for store in (writer, reader):
            if isinstance(store, ours):
                store.close()


def test_both_writing_the_same_keys_leave_values_of_one_of_them(server: UpstashServer, archived: Archived) -> None:
    keys = ["a", "b", "c"]
    whole = {letter.encode() * 5_000 for letter in "ot"}

    def write(store: Any, letter: str) -> None:
        for _ in range(30):
            store.mset([(key, letter.encode() * 5_000) for key in keys])
            assert {value for value in store.mget(keys) if value} <= whole

    theirs = [archived.bytes(url=server.url, token=TOKEN, namespace="ns") for _ in range(2)]
    with UpstashRedisByteStore(url=server.url, token=TOKEN, namespace="ns") as ours, ThreadPoolExecutor(4) as pool:
        works = [pool.submit(write, ours, "o"), *(pool.submit(write, store, "t") for store in theirs)]
        for work in works:
            work.result()
        assert set(ours.mget(keys)) <= whole
    for store in theirs:
        store.underlying_store.client.close()


def test_what_it_keeps_are_the_bytes_themselves(server: UpstashServer, client: Any) -> None:
    with UpstashRedisByteStore(url=server.url, token=TOKEN, namespace="ns", ttl=60) as store:
        store.mset(BINARY)
        assert store.mget([key for key, _ in BINARY]) == [value for _, value in BINARY]
    assert {key.decode(): client.get(key) for key in client.scan_iter()} == {f"ns/{k}": v for k, v in BINARY}
    assert 50 < client.ttl("ns/b") <= 60
    with UpstashRedisByteStore(url=server.url, token=TOKEN) as store:
        store.mset([("lasts", b"\xff"), ("text", b"t")])
    assert (client.get("lasts"), client.ttl("lasts"), client.ttl("text")) == (b"\xff", -1, -1)
    assert RedisStore(client=client).mget(["ns/b"]) == [bytes(range(256))]


def test_values_of_a_url_and_of_the_class_are_the_same(server: UpstashServer) -> None:
    with (
        KVByteStore("kv", f"upstash+{server.url}", token=TOKEN) as values,
        UpstashRedisByteStore(url=f"upstash+{server.url}", token=TOKEN, namespace="kv") as store,
    ):
        values.mset(BINARY)
        assert store.mget([key for key, _ in BINARY]) == [value for _, value in BINARY]


# -- constructor ------------------------------------------------------------------------------------------------------


def test_its_attributes_are_those_of_the_archived_one(own: Any) -> None:
    with UpstashRedisStore(client=own, ttl=5, namespace="ns") as text:
        assert (text.client, text.ttl, text.namespace) == (own, 5, "ns")
    with UpstashRedisByteStore(client=own, ttl=5, namespace="ns") as store:
        under = store.underlying_store
        assert (under.client, under.ttl, under.namespace) == (own, 5, "ns")
        under.mset([("a", "\u00e9")])
        assert store.mget(["a"]) == ["\u00e9".encode()]


def test_its_arguments_are_refused_with_the_errors_of_the_archived_one(
    server: UpstashServer, own: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UPSTASH_REDIS_REST_TOKEN", raising=False)
    for kind in (UpstashRedisStore, UpstashRedisByteStore):
        with pytest.raises(ValueError, match="must be provided, not both"):
            kind(client=own, url=server.url)
        for arguments in ({}, {"url": server.url}, {"token": TOKEN}):
            with pytest.raises(ValueError, match="Either an Upstash Redis client or url and token must be provided"):
                kind(**arguments)
        with pytest.raises(TypeError, match="Expected Upstash Redis client, got str: give one, or url="):
            kind(client="redis")
        kind(client=own).close()
        kind(url=server.url, token=TOKEN).close()
        with pytest.raises(TypeError, match="Expected int or None"):
            kind(client=own, ttl="5")
        with pytest.raises(ValueError, match=r"or is upstash\+https://HOST: write that"):
            kind(url="redis://h", token=TOKEN)
        kind(url="upstash+https://HOST", token=TOKEN).close()


def test_the_token_of_the_environment_is_taken(server: UpstashServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTASH_REDIS_REST_TOKEN", TOKEN)
    with UpstashRedisByteStore(url=server.url) as store, KVStore("kv", f"upstash+{server.url}") as values:
        assert store.mget(["a"]) == values.mget(["a"]) == [None]


def test_an_asynchronous_client_names_the_place_too(server: UpstashServer) -> None:
    own = upstash_redis.asyncio.Redis(server.url, TOKEN)
    with UpstashRedisByteStore(client=own) as store:
        store.mset(BINARY)
        assert store.mget(["b"]) == [bytes(range(256))]


def test_a_client_that_does_not_tell_where_it_goes_is_refused(server: UpstashServer) -> None:
    class Later(upstash_redis.Redis):
        _headers = None  # type: ignore[assignment]

        def __init__(self) -> None:
            pass

    with pytest.raises(ConfigError, match="give url= and token="):
        UpstashRedisByteStore(client=Later())
    UpstashRedisByteStore(url=server.url, token=TOKEN).close()


def test_neither_its_text_nor_its_copies_show_the_token(
    server: UpstashServer, own: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with UpstashRedisByteStore(client=own, namespace="ns") as store:
        store.mset([("a", b"1")])
        assert TOKEN not in repr(store)
        pickled = pickle.dumps(store)
        assert TOKEN.encode() not in pickled
        with copy.deepcopy(store) as other:
            assert other.mget(["a"]) == [b"1"]
    monkeypatch.setenv("UPSTASH_REDIS_REST_TOKEN", TOKEN)
    with pickle.loads(pickled) as other:
        assert (other.mget(["a"]), other.namespace, other.client) == ([b"1"], "ns", None)


# -- the archived one's defects (by the order in which its review names them) -----------------------------------------


@pytest.fixture
def store(server: UpstashServer) -> Iterator[UpstashRedisByteStore]:
    with UpstashRedisByteStore(url=server.url, token=TOKEN, namespace="n") as store:
        yield store


def test_1_bytes_that_are_no_text_are_kept_and_read(store: UpstashRedisByteStore, client: Any) -> None:
    client.set("n/of another program", b"\xff")
    store.mset([("mine", b"\x80\x81")])
    assert store.mget(["of another program", "mine"]) == [b"\xff", b"\x80\x81"]


def test_2_a_batch_is_one_request_and_few_commands(store: UpstashRedisByteStore, server: UpstashServer) -> None:
    pairs = [(f"k{number}", b"x") for number in range(1_000)]
    store.mset(pairs)
    assert (len(server.requests), server.commands) == (1, ["MSET"])
    server.requests.clear()
    assert store.mget([key for key, _ in pairs]) == [b"x"] * 1_000
    assert (len(server.requests), server.commands) == (1, ["MGET", "EVAL"])
    server.requests.clear()
    store.mset(pairs, ttl_s=60)
    assert len(server.requests) == 1


def test_3_listing_is_a_request_for_each_thousand_keys(store: UpstashRedisByteStore, server: UpstashServer) -> None:
    store.mset([(f"k{number}", b"x") for number in range(2_000)])
    server.requests.clear()
    assert len(list(store.yield_keys())) == 2_000
    assert len(server.requests) <= 4


@pytest.mark.parametrize("namespace", ["n?", "*", "n[1]", "n\\"])
def test_4_no_character_of_a_prefix_or_a_namespace_is_a_pattern(server: UpstashServer, namespace: str) -> None:
    with (
        UpstashRedisByteStore(url=server.url, token=TOKEN, namespace="n1") as other,
        UpstashRedisByteStore(url=server.url, token=TOKEN, namespace=namespace) as store,
    ):
        other.mset([("hidden", b"")])
        store.mset([("a*c", b"1"), ("abc", b"2"), ("a?[b]", b"3"), ("foobar", b"4")])
        assert sorted(store.yield_keys()) == ["a*c", "a?[b]", "abc", "foobar"]
        assert list(store.yield_keys(prefix="a*c")) == ["a*c"]
        assert list(store.yield_keys(prefix="foo")) == ["foobar"]


def test_5_empty_batches_send_nothing_and_none_is_refused_by_name(
    store: UpstashRedisByteStore, server: UpstashServer
) -> None:
    store.mdelete([])
    store.mset([])
    assert store.mget([]) == []
    with pytest.raises(TypeError, match="'b'"):
        store.mset([("a", b"1"), ("b", None)])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"'b'.*bytes in UpstashRedisByteStore"):
        store.underlying_store.mset([("b", b"1")])  # type: ignore[list-item]
    assert server.requests == []
    store.mset([("b", b"1")])


def test_6_no_telemetry_is_sent_and_a_read_sees_the_writes_before_it(
    store: UpstashRedisByteStore, server: UpstashServer
) -> None:
    store.mset([("a", b"1")])
    store.mget(["a"])
    headers = server.requests[-1].headers
    assert headers["Upstash-Sync-Token"] == "token-1"
    assert not [name for name in headers if "Telemetry" in name]


# -- kinds ------------------------------------------------------------------------------------------------------------


def test_a_value_of_another_kind_is_an_error_that_names_the_key_and_the_class(server: UpstashServer) -> None:
    with (
        KVStore("kv", f"upstash+{server.url}", token=TOKEN) as values,
        UpstashRedisByteStore(url=server.url, token=TOKEN, namespace="kv") as blobs,
    ):
        values.mset([("json", {"n": 1})])
        blobs.mset([("bytes", b"\xff")])
        text = blobs.underlying_store
        with pytest.raises(DamagedValueError, match=r"'json'.*KVStore"):
            blobs.mget(["json", "bytes"])
        with pytest.raises(DamagedValueError, match=r"'bytes'.*KVByteStore"):
            values.mget(["bytes"])
        with pytest.raises(DamagedValueError, match=r"'bytes'.*UpstashRedisByteStore"):
            text.mget(["bytes"])
        with pytest.raises(DamagedValueError, match=r"'json'.*KVStore"):
            text.mget(["json"])
        with pytest.raises(InvalidValueError, match=r"'a'.*surrogate"):
            text.mset([("a", "x\ud800")])
        text.mset([("a", "x")])


def test_a_key_that_a_url_cannot_hold_is_told_and_the_rest_is_kept(server: UpstashServer) -> None:
    with UpstashRedisByteStore(url=server.url, token=TOKEN) as store:
        store.mset([(".", b"text")])
        with pytest.raises(ValueError, match="give it another key") as caught:
            store.mset([("..", b"\xff"), ("a", b"1"), ("b", b"\xff")])
        assert (caught.value.written, caught.value.unwritten) == (("a", "b"), ("..",))  # type: ignore[attr-defined]
        store.mset([("another", b"\xff")])
        assert store.mget([".", "..", "a", "b", "another"]) == [b"text", None, b"1", b"\xff", b"\xff"]


# -- bytes beyond text, in every verb ---------------------------------------------------------------------------------


def test_bytes_are_added_and_changed_in_one_step(store: UpstashRedisByteStore) -> None:
    assert store.add([("a", b"\xff"), ("b", b"text"), ("c", b"\xfe")]) == ["a", "b", "c"]
    assert store.add([("a", b"\x00"), ("d", b"\xfd")]) == ["d"]
    store.update("a", lambda old: (old or b"") + b"\xfe")
    store.update("e", lambda old: b"\xff" if old is None else old)
    store.update("b", lambda old: None)
    assert store.mget(["a", "b", "c", "d", "e"]) == [b"\xff\xfe", None, b"\xfe", b"\xfd", b"\xff"]


def test_large_values_are_written_and_read_and_listed(store: UpstashRedisByteStore, server: UpstashServer) -> None:
    server.size_max_bytes = 3_000_000
    pairs = [(f"t{number}", b"x" * 500_000) for number in range(10)]
    pairs += [(f"b{number}", b"\xff" * 2_000_000) for number in range(3)]
    store.mset(pairs)
    keys = [key for key, _ in pairs]
    assert store.mget(keys) == [value for _, value in pairs]
    assert dict(store.yield_items()) == dict(pairs)


def test_a_value_over_the_limit_is_told_by_its_key_and_the_rest_is_kept(
    store: UpstashRedisByteStore, server: UpstashServer
) -> None:
    server.size_max_bytes = 1_500_000
    with pytest.raises(ValueError, match=r"Key 'large'.*1500000 bytes.*smaller values") as caught:
        store.mset([("a", b"1"), ("large", b"x" * 2_000_000), ("b", b"\xff"), ("raw", b"\xff" * 2_000_000)])
    assert (caught.value.written, caught.value.unwritten) == (("a", "b"), ("large", "raw"))  # type: ignore[attr-defined]
    assert sorted(store.yield_keys()) == ["a", "b"]
    store.mset([("large", b"x" * 1_000_000)])
    server.size_max_bytes = 10_000_000  # another plan
    store.mset([("large", b"x" * 2_000_000), ("raw", b"\xff" * 2_000_000)])


# -- what is built on it ----------------------------------------------------------------------------------------------


def test_documents_vectors_and_the_command_are_kept_there(
    server: UpstashServer, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setenv("UPSTASH_REDIS_REST_TOKEN", TOKEN)
    url = f"upstash+{server.url}"
    with DocumentStore("docs", url) as documents:
        documents.mset([("a", Document("text", metadata={"n": 1}))])
        assert documents.mget(["a"]) == [Document("text", metadata={"n": 1})]
    model = Model()
    with EmbeddingCache(model, url, name="m") as cache:
        for _ in range(2):
            assert cache.embed_documents(["x", "y"]) == [vector_of("x"), vector_of("y")]
        assert len(model.calls) == 1
    assert run(["set", "k", '{"n":1}', "--collection", "kv", "--db", url]) == 0
    assert run(["get", "k", "--collection", "kv", "--db", url]) == 0
    assert json.loads(capsysbinary.readouterr().out) == {"n": 1}


@pytest.mark.parametrize("namespace", [None, "ns"])
def test_the_empty_key_that_a_redis_store_wrote_is_read_and_removed(
    client: Any, server: UpstashServer, namespace: str | None
) -> None:
    client.set(f"{namespace}/" if namespace else "", b"1")
    with UpstashRedisByteStore(url=server.url, token=TOKEN, namespace=namespace) as store:
        assert list(store.yield_items()) == [("", b"1")]
        store.mdelete([""])
        assert store.mget([""]) == [None]
