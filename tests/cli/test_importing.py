"""``lckv import-from`` and ``pack-embeddings``: what the archived classes and LangChain's own wrote, in a target."""

from __future__ import annotations

import json
import random
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.storage import LocalFileStore
from langchain_core.embeddings import Embeddings
from langgraph.store.sqlite import SqliteStore

from installed import need
from langchain_kv import BackendOptions, EmbeddingCache, KVByteStore
from langchain_kv.cli.main import run
from langchain_kv.places.schemes import parse_url
from langchain_kv.runtime.clock import now_ms
from langchain_kv.values.namespaces import decode_key
from redis_node import RedisNode, missing, running_redis
from sql_servers import alchemy_url, running
from upstash_server import TOKEN, running_upstash

Lckv = Callable[..., tuple[int, list[str]]]

PAIRS = [("a", b"1"), ("b/c", bytes(range(256))), ("d.e-f_g", b"")]
TO = "sqlite:kv.db"


@pytest.fixture
def lckv(capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lckv:
    """Run a command in an empty directory; answer its exit code and what it says."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, list[str]]:
        capsysbinary.readouterr()
        code = run(arguments)
        return code, capsysbinary.readouterr().err.decode().splitlines()

    return call


@contextmanager
def archived(module: str, name: str) -> Iterator[Any]:
    """The archived class, which warns of its end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield getattr(__import__(f"langchain_community.storage.{module}", fromlist=[name]), name)


def imported(lckv: Lckv, source: str, layout: str, *more: str) -> dict[str, bytes]:
    """Import; answer what a store of bytes has then."""
    code, error = lckv("import-from", source, TO, "--layout", layout, "--collection", "kv", "--verify", *more)
    assert (code, error[-1].endswith(", 0 not")) == (0, True), error
    with KVByteStore("kv", TO) as store:
        keys = list(store.yield_keys())
        return {key: value for key, value in zip(keys, store.mget(keys), strict=True) if value is not None}


def expiries() -> dict[str, int | None]:
    with closing(parse_url(TO).open(BackendOptions("kv", "default_keyspace"))) as backend:
        pages = backend.scan("", values=True)
        return {key: getattr(found, "expires_at_ms", None) for page in pages for key, found in page}


# -- each layout, written by its class --------------------------------------------------------------------------------


def test_a_folder_of_a_local_file_store(lckv: Lckv, tmp_path: Path) -> None:
    LocalFileStore(tmp_path / "cache").mset(PAIRS)

    assert imported(lckv, "cache", "files") == dict(PAIRS)
    assert lckv("import-from", "cache", TO, "--layout", "files", "--collection", "kv")[1] == [
        "lckv: read 3, written 0, replaced 0, same 3, skipped 0, failed 0"
    ]


def test_a_large_folder_goes_in_pages_and_links_out_of_it_do_not_lead(lckv: Lckv, tmp_path: Path) -> None:
    pairs = [(f"{number % 7}/{number}", b"%d" % number * 1_000) for number in range(1_500)]
    LocalFileStore(tmp_path / "cache").mset(pairs)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/secret").write_bytes(b"secret")
    (tmp_path / "cache/out").symlink_to(tmp_path / "elsewhere")

    assert imported(lckv, "cache", "files") == dict(pairs)
    assert lckv("get", "out/secret", "--db", TO, "--collection", "kv")[0] == 1


@pytest.mark.parametrize("server", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_a_table_of_a_sql_store(lckv: Lckv, tmp_path: Path, server: str) -> None:
    # Not pytest's directory, which only its owner may enter.
    with tempfile.TemporaryDirectory(prefix="lckv-") as folder, running(server, Path(folder)) as url:
        with archived("sql", "SQLStore") as kind:
            for namespace in ("mine", "theirs"):
                store = kind(namespace=namespace, db_url=alchemy_url(url))
                store.create_schema()
                store.mset(PAIRS[:2] if namespace == "mine" else PAIRS)
                store.engine.dispose()

        assert imported(lckv, url, "sql", "--name", "mine") == dict(PAIRS[:2])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RedisNode]:
    need(missing("redis"))
    with running_redis(tmp_path) as running:
        yield running


def test_the_keys_of_a_redis_store_with_their_expiry(lckv: Lckv, node: RedisNode) -> None:
    with redis.Redis(port=node.port) as client, archived("redis", "RedisStore") as kind:
        kind(client=client, namespace="mine", ttl=1_000).mset(PAIRS)
        kind(client=client).mset([("other", b"1")])
    began = now_ms()

    assert imported(lckv, node.url, "redis", "--name", "mine") == dict(PAIRS)
    assert all(began + 900_000 < moment <= began + 1_000_000 for moment in expiries().values() if moment)
    assert None not in expiries().values()
    assert imported(lckv, node.url, "redis", "--prefix", "oth") == {**dict(PAIRS), "other": b"1"}


def test_the_keys_of_an_upstash_store(lckv: Lckv, node: RedisNode, monkeypatch: pytest.MonkeyPatch) -> None:
    import upstash_redis

    monkeypatch.setenv("UPSTASH_REDIS_REST_TOKEN", TOKEN)
    with running_upstash(node.port) as server, archived("upstash_redis", "UpstashRedisByteStore") as kind:
        with upstash_redis.Redis(server.url, TOKEN, allow_telemetry=False) as client:
            kind(client=client, namespace="mine").mset([("a", b"1"), ("b", "\xe4".encode())])

        assert imported(lckv, f"upstash+{server.url}", "upstash", "--name", "mine") == {"a": b"1", "b": b"\xc3\xa4"}


def items_of(url: str) -> dict[tuple[tuple[str, ...], str], Any]:
    with closing(parse_url(url).open(BackendOptions("kv", "default_keyspace"))) as backend:
        return {decode_key(key) or ((), key): found for page in backend.scan("", values=True) for key, found in page}


def test_items_of_langgraphs_sqlite_store(lckv: Lckv, tmp_path: Path) -> None:
    with SqliteStore.from_conn_string(str(tmp_path / "memory.db")) as store:
        store.setup()
        for number in range(1_100):
            store.put(("users", f"u{number % 5}"), f"k{number:04}", {"n": number, "ä": [None, 1.5]})
        store.put(("short",), "k", {"n": 1}, ttl=60)
        there = {(item.namespace, item.key): item for item in store.search((), limit=2_000)}
    with closing(sqlite3.connect(tmp_path / "memory.db")) as connection, connection:
        connection.execute("UPDATE store SET expires_at = '2020-01-01 00:00:00+00:00' WHERE key = 'k0003'")
    code, error = lckv("import-from", "memory.db", TO, "--layout", "langgraph", "--collection", "kv", "--verify")
    found = items_of(TO)
    short = found.pop((("short",), "k"))

    assert (code, error[-1]) == (0, "lckv: verified: 1,100 the same, 0 not")
    assert found.keys() == there.keys() - {(("short",), "k"), (("users", "u3"), "k0003")}
    for key, stored in found.items():
        item = there[key]
        assert stored.value["value"] == item.value
        assert [*stored.value] == ["value", "updated_at", "created_at"]
        assert stored.value["created_at"][:19] == str(item.created_at)[:19].replace(" ", "T")
    assert [*short.value] == ["value", "updated_at", "ttl", "created_at"]
    assert short.value["ttl"] == 60
    assert abs(short.expires_at_ms - now_ms() - 3_600_000) < 120_000


@pytest.mark.parametrize(
    ("source", "layout", "what"),
    [
        ("missing", "files", "no folder"),
        ("cache", "sql", "needs the namespace"),
        ("mongodb://h/db", "mongodb", "needs the name of the collection"),
        ("mongodb://h", "mongodb", "names no database"),
        ("cassandra://h", "cassandra", "names no keyspace"),
        ("cache", "other", "one of files, sql"),
    ],
)
def test_what_cannot_be_taken_is_told_and_makes_nothing(lckv: Lckv, source: str, layout: str, what: str) -> None:
    names = [] if "needs" in what else ["--name", "x"]
    code, error = lckv("import-from", source, TO, "--layout", layout, "--collection", "kv", *names)

    assert (code, len(error)) == (2, 1)
    assert what in error[0]
    assert not Path("kv.db").exists()


def test_a_database_without_the_table_is_told(lckv: Lckv) -> None:
    with closing(sqlite3.connect("other.db")) as other:
        other.execute("CREATE TABLE items(a)")

    code, error = lckv("import-from", "other.db", TO, "--layout", "langgraph", "--collection", "kv")

    assert (code, len(error)) == (3, 1)
    assert "The table store of sqlite" in error[0]


def test_a_database_that_is_not_there_is_told_and_not_made(lckv: Lckv) -> None:
    code, error = lckv("import-from", "new.db", TO, "--layout", "langgraph", "--collection", "kv")

    assert (code, len(error)) == (2, 1)
    assert "give the database of LangGraph's store" in error[0]
    assert not Path("new.db").exists()


# -- embeddings -------------------------------------------------------------------------------------------------------


class Model(Embeddings):
    """Makes vectors of a text's own random numbers, and counts them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.embedded = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.embedded += len(texts)
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        numbers = random.Random(text)
        return [numbers.gauss(0, 1) for _ in range(self.size)]


@pytest.mark.parametrize("count", [50, pytest.param(2_500, marks=pytest.mark.slow)])
def test_vectors_of_a_cache_are_packed_and_equal(lckv: Lckv, tmp_path: Path, count: int) -> None:
    model = Model(256)
    texts = [f"text {number}" for number in range(count)]
    files = LocalFileStore(tmp_path / "cache")
    vectors = CacheBackedEmbeddings.from_bytes_store(
        model, files, namespace="m", key_encoder="blake2b"
    ).embed_documents(texts)
    pack = ("pack-embeddings", "cache", TO, "--layout", "files", "--collection", "vectors", "--verify")
    code, error = lckv(*pack)
    before, after = (int("".join(filter(str.isdigit, part))) for part in error[0].split("became"))
    model.embedded = 0
    with KVByteStore("vectors", TO) as store:
        cache = EmbeddingCache.from_bytes_store(model, store, namespace="m", key_encoder="blake2b")
        found = cache.embed_documents(texts)

    assert (code, error[-1]) == (0, f"lckv: verified: {count:,} the same, 0 not")
    assert found == vectors
    assert model.embedded == 0
    assert before == sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert after == count * (8 + 256 * 8) < before / 2
    assert lckv(*pack)[1][1].startswith(f"lckv: read {count:,}, written 0, replaced 0, same {count:,}")


def test_vectors_of_a_store_of_ours_go_into_another_collection_and_what_is_none_is_told(lckv: Lckv) -> None:
    model = Model(8)
    with KVByteStore("old", TO) as store:
        vectors = CacheBackedEmbeddings.from_bytes_store(
            model, store, namespace="m", key_encoder="sha256"
        ).embed_documents(["a", "b"])
        store.mset([("letter", b"dear"), ("infinite", b"[1e999]")])
    pack = ("pack-embeddings", TO, TO, "--collection", "old", "--to-collection", "new")
    code, error = lckv(*pack)
    model.embedded = 0
    with KVByteStore("new", TO) as store:
        cache = EmbeddingCache.from_bytes_store(model, store, namespace="m", key_encoder="sha256")
        assert cache.embed_documents(["a", "b"]) == vectors

    assert (code, model.embedded) == (5, 0)
    assert "read 4, written 2, replaced 0, same 0, skipped 0, failed 2" in error[-2]
    assert json.loads(json.dumps(error[-1])).endswith("Values that failed: 'infinite', 'letter'")


def test_a_cache_is_not_packed_onto_itself(lckv: Lckv) -> None:
    lckv("set", "a", "1", "--db", TO, "--collection", "old")
    code, error = lckv("pack-embeddings", TO, TO, "--collection", "old")

    assert (code, len(error)) == (2, 1)


@pytest.mark.parametrize("command", ["import-from", "pack-embeddings"])
def test_from_may_be_a_file_with_the_url_whose_password_is_nobodys_business(lckv: Lckv, command: str) -> None:
    Path("url").write_text("redis://:hunter2@127.0.0.1:1\n")
    code, error = lckv(command, "@url", TO, "--layout", "redis", "--collection", "kv")

    assert code == 4
    assert "127.0.0.1:1" in error[-1]
    assert "hunter2" not in str(error)


def test_a_folder_may_begin_with_an_at_sign(lckv: Lckv) -> None:
    Path("@cache").mkdir()
    Path("@cache/a").write_bytes(b"1")

    assert lckv("import-from", "@cache", TO, "--layout", "files", "--collection", "kv")[0] == 0
