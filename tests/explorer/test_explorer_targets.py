"""The explorer on every kind of target that a test can have here: collections, kinds and expiry are alike."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from langchain_core.documents import Document

import mongodb_servers
from installed import need
from langchain_kv import DocumentStore, KVByteStore, KVStore
from langchain_kv.embeddings.vectors import pack
from langchain_kv.explorer.routes import Routes
from langchain_kv.explorer.targets import BACKENDS_MAX, target_of_place
from langchain_kv.places.arguments import resolve
from langchain_kv.places.schemes import parse_url
from langchain_kv.testing import DataAPIServer
from redis_node import missing, running_redis
from upstash_server import TOKEN as UPSTASH_TOKEN
from upstash_server import running_upstash

TARGETS = ["file", "Data API", "SQL", "MongoDB", "Redis", "Upstash"]


class Reached(NamedTuple):
    url: str
    token: str | None


@pytest.fixture(params=TARGETS)
def reached(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reached]:
    with ExitStack() as stack:
        if request.param == "file":
            yield Reached(f"sqlite:{tmp_path / 'kv.db'}", None)
        elif request.param == "Data API":
            server = stack.enter_context(DataAPIServer())
            yield Reached(server.url, server.token)
        elif request.param == "SQL":
            yield Reached(f"sqlite+sqlalchemy:{tmp_path / 'sql.db'}", None)
        elif request.param == "MongoDB":
            need(mongodb_servers.missing("secantus"))
            yield Reached(stack.enter_context(mongodb_servers.running_server("secantus", tmp_path)), None)
        else:
            need(missing("redis"))
            node = stack.enter_context(running_redis(tmp_path))
            if request.param == "Redis":
                yield Reached(node.url, None)
            else:
                upstash = stack.enter_context(running_upstash(node.port))
                yield Reached(f"upstash+{upstash.url}", UPSTASH_TOKEN)


@pytest.fixture
def routes(reached: Reached) -> Iterator[Routes]:
    place = parse_url(reached.url)
    options = resolve("any", place, token=reached.token, keyspace=None, component=None, deadline_s=20)
    routes = Routes(target_of_place(place, options), edits=True)
    yield routes
    routes.close()


def ask(routes: Routes, route: str, collection: str = "kv", **fields: Any) -> Any:
    sent = json.dumps({"keyspace": "default_keyspace", "collection": collection, **fields}).encode()
    reply = routes.answer(route, sent)
    assert reply.status == 200, reply.body
    return json.loads(reply.body)


def listed(routes: Routes, **fields: Any) -> list[str]:
    part = ask(routes, "keys", limit=100, **fields)
    keys: list[str] = part["keys"]
    while part["cursor"] is not None:
        part = ask(routes, "keys", cursor=part["cursor"], number=part["number"] + 1, limit=100, **fields)
        keys += part["keys"]
    return keys


def test_every_target_is_shown_alike(reached: Reached, routes: Routes) -> None:
    vector = pack([[0.5, -0.5]])[0]
    assert isinstance(vector, bytes)
    with KVStore("kv", reached.url, token=reached.token) as store:
        store.mset([(f"k/{number:03}", {"n": number}) for number in range(320)])
        store.mset([("text", "a text"), ("odd", {"$a": 1})])
        store.mset([("expires", 1)], ttl_s=3_600)
        store.namespace("ns").mset([("inside", [1])])
    with DocumentStore("documents", reached.url, token=reached.token) as documents:
        documents.mset([("d", Document("The text.", metadata={"page": 1}))])
    with KVByteStore("raw", reached.url, token=reached.token) as raw:
        raw.mset([("b", b"\x00\xff"), ("v", vector)])

    names = [each["name"] for each in ask(routes, "collections")["collections"]]
    assert names == ["documents", "kv", "raw"]
    assert sorted(listed(routes, prefix="k/")) == [f"k/{number:03}" for number in range(320)]
    assert "\x1fns\x1einside" in listed(routes)
    assert ask(routes, "value", key="k/007")["text"] == '{"n":7}'
    assert ask(routes, "value", key="text")["shape"] == "text"
    odd = ask(routes, "value", key="odd")
    assert (odd["shape"], odd["text"]) == ("json", '{"$a":1}')
    assert ask(routes, "value", "documents", key="d")["content"] == "The text."
    found = ask(routes, "value", "raw", key="b")
    assert found.get("base64") == "AP8=" or (found["text"], found["is_base64"]) == ("AP8=", True)  # a document's text
    assert ask(routes, "value", "raw", key="v")["numbers"] == [0.5, -0.5]
    left_s = ask(routes, "value", key="expires")["expires_at_ms"] / 1_000 - time.time()
    assert 3_000 < left_s <= 3_601


def test_the_url_for_other_programs_is_one_that_a_store_takes(reached: Reached, routes: Routes) -> None:
    with KVStore("kv", reached.url, token=reached.token) as store:
        store.mset([("a", 1)])

    told = json.loads(routes.answer("about", b"{}").body)["url"]
    with KVStore("kv", told, token=reached.token, setup_mode="OFF") as store:
        assert store.mget(["a"]) == [1]


def test_a_value_is_edited_and_removed_on_every_target(reached: Reached, routes: Routes) -> None:
    with KVStore("kv", reached.url, token=reached.token) as store:
        store.mset([("a", {"n": 1})], ttl_s=3_600)
        before = ask(routes, "value", key="a")
        after = ask(routes, "put", key="a", version=before["version"], text='{"n": 2}')

        assert store.mget(["a"]) == [{"n": 2}]
        assert after["expires_at_ms"] == before["expires_at_ms"]
        stale = routes.answer("delete", json.dumps({**WHERE, "key": "a", "version": before["version"]}).encode())
        assert stale.status == 409
        assert ask(routes, "delete", key="a", version=after["version"]) == {"deleted": True}
        assert store.mget(["a"]) == [None]


WHERE = {"keyspace": "default_keyspace", "collection": "kv"}
EXACT = '{"price":12345678901234567.89,"n":1.00000000000000000001,"huge":1E+400,"tiny":1E-400,"f":0.1,"s":"x"}'


@pytest.mark.parametrize("atomic", [False, True])
def test_numbers_that_a_float_would_round_are_shown_and_never_rounded(atomic: bool) -> None:
    """Other clients of a Data API keep them: a value that only a digit of theirs changed is not overwritten."""
    with DataAPIServer() as server, KVStore("kv", server.url, token=server.token, atomic=atomic) as store:
        store.mset([("a", 1)])
        place = parse_url(server.url)
        options = resolve("any", place, token=server.token, keyspace=None, component=None, atomic=atomic)
        routes = Routes(target_of_place(place, options), edits=True)

        def command(text: str) -> str:
            headers = {"Content-Type": "application/json", "Token": server.token}
            request = urllib.request.Request(f"{server.url}/v1/default_keyspace/kv", text.encode(), headers)
            with urllib.request.urlopen(request, timeout=30) as reply:
                return str(reply.read().decode())

        def put(version: str, text: str) -> Any:
            fields = {**WHERE, "key": "p", "version": version, "text": text}
            reply = routes.answer("put", json.dumps(fields).encode())
            return reply.status, json.loads(reply.body).get("error", {}).get("code")

        command(f'{{"insertOne":{{"document":{{"_id":"p","value":{EXACT},"version":"1"}}}}}}')
        before = ask(routes, "value", key="p")
        assert before["text"] == EXACT
        assert routes.answer("download", json.dumps({**WHERE, "key": "p"}).encode()).body.decode() == EXACT
        assert put(before["version"], EXACT.replace('"x"', '"y"')) == (400, "NOT_EXACT")
        new = '"value.n":1.00000000000000000002,"version":"2"'
        command(f'{{"updateOne":{{"filter":{{"_id":"p"}},"update":{{"$set":{{{new}}}}}}}}}')
        assert put(before["version"], '{"s":"y"}') == (409, "CHANGED")
        assert EXACT.replace("001,", "002,") in command('{"findOne":{"filter":{"_id":"p"}}}')
        assert put(ask(routes, "value", key="p")["version"], '{"s":"y"}') == (200, None)
        assert store.mget(["p"]) == [{"s": "y"}]
        routes.close()


@pytest.mark.parametrize("reached", ["file", "Data API"], indirect=True)
@pytest.mark.parametrize("name", ["", "../kv", "kv/../x", "a b", "k" * 60, "\x00"], ids=repr)
def test_what_is_no_name_of_a_collection_goes_nowhere(reached: Reached, routes: Routes, name: str) -> None:
    for where in ({**WHERE, "collection": name}, {**WHERE, "keyspace": name}):
        for route in ("keys", "value"):
            reply = routes.answer(route, json.dumps({**where, "key": "a"}).encode())
            assert (reply.status, json.loads(reply.body)["error"]["code"]) == (400, "ConfigError")


def test_backends_that_nobody_uses_are_closed(tmp_path: Path) -> None:
    place = parse_url(f"sqlite:{tmp_path / 'kv.db'}")
    options = resolve("any", place, token=None, keyspace=None, component=None)
    names = [f"c{number}" for number in range(BACKENDS_MAX + 3)]
    for name in names:
        with KVStore(name, place) as store:
            store.mset([(f"{key:04}", 1) for key in range(2_000)])
    opened, closed = [], []
    target = target_of_place(place, options)

    def open_backend(name: Any) -> Any:
        backend = target.open(name)
        opened.append(name.name)
        close = backend.close
        backend.close = lambda: (closed.append(name.name), close())[1]  # type: ignore[method-assign,func-returns-value]
        return backend

    routes = Routes(target._replace(open=open_backend), edits=False)
    first = ask(routes, "keys", names[0], limit=500)
    for name in names:
        assert ask(routes, "value", name, key="0001")["text"] == "1"

    assert opened == names  # each once
    assert closed == names[1:4]  # not the first, which a scan uses
    assert ask(routes, "keys", names[0], cursor=first["cursor"], number=2)["keys"]  # and goes on
    routes.close()
    assert sorted(closed) == sorted(names)
