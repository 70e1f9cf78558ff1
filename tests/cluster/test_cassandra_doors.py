"""One collection by two doors, CQL and the local server's HTTP, raced; and the server on a cluster as a process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from cassandra_node import Node
from cluster.races import MIXES, UNTOLD, CQLDoor, Done, HTTPDoor, is_explained, lost_values, race
from cluster.serving import Served, served
from langchain_kv import AstraDBStore, KVStore
from langchain_kv.engines.base import CollectionName, Engine

ROUNDS = 20

_keys = (f"key {number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server(cassandra_node: Node) -> Iterator[Served]:
    with served(cassandra_node.url()) as running:
        yield running


@pytest.mark.parametrize("mix", MIXES)
def test_whatever_the_two_doors_do_at_once_some_order_explains(
    mix: str, cassandra_node: Node, server: Served, shared_engine: Engine, kv: CollectionName
) -> None:
    by_http = [HTTPDoor(server.url, server.token, kv.name) for _ in range(2)]
    with KVStore(kv.name, cassandra_node.url()) as store:
        tally = race(mix, ROUNDS, (by_http, CQLDoor(shared_engine, store, kv)), store, _keys)
    for door in by_http:
        door.close()

    assert (tally.illegal, tally.lost, tally.failed) == ([], [], [])


def test_what_one_door_writes_the_other_reads(cassandra_node: Node, server: Served, kv: CollectionName) -> None:
    values = [("a", {"n": 1}), ("b", [1.0, "é", None]), ("c" * 300, "x" * 10_000)]
    with (
        KVStore(kv.name, cassandra_node.url()) as by_cql,
        AstraDBStore(kv.name, api_endpoint=server.url, token=server.token) as by_http,
    ):
        by_cql.mset(values)
        assert by_http.mget([key for key, _ in values]) == [value for _, value in values]
        by_http.mset([("b", 2), ("d", "new")])
        by_http.mdelete(["a"])
        assert by_cql.mget(["a", "b", "d"]) == [None, 2, "new"]
        assert sorted(by_http.yield_keys()) == sorted(by_cql.yield_keys()) == ["b", "c" * 300, "d"]


@pytest.mark.parametrize(
    ("done", "end", "explained"),
    [
        ([Done("put", "x", None), Done("put", "y", "x")], "y", True),
        ([Done("put", "x", None), Done("put", "y", "x")], "x", False),
        ([Done("put", "x", None), Done("put", "y", None)], "y", False),
        ([Done("put", "x", UNTOLD), Done("delete", None, "x")], None, True),
        ([Done("put", "x", UNTOLD), Done("delete", None, "x")], "x", False),
    ],
)
def test_orders_that_cannot_have_been_are_noticed(done: list[Done], end: str | None, explained: bool) -> None:
    assert is_explained(None, done, end) is explained


def test_a_value_that_vanished_or_came_twice_is_noticed() -> None:
    assert lost_values("start", [Done("put", "x", "start")], "x") == []
    assert lost_values("start", [Done("put", "x", None)], "x") == ["start"]
    assert lost_values(None, [Done("put", "x", None), Done("put", "y", "x")], "x") == ["x", "y"]


@pytest.mark.parametrize(
    ("status", "document", "kind"),
    [
        ({"matchedCount": 1, "modifiedCount": 0}, None, "overtaken"),
        ({"matchedCount": 0, "modifiedCount": 0}, None, "overtaken"),
        ({"matchedCount": 0, "modifiedCount": 0, "upsertedId": "k"}, None, "put"),
        ({"matchedCount": 1, "modifiedCount": 1}, {"_id": "k", "value": "x"}, "put"),
    ],
)
def test_an_upsert_that_a_delete_overtook_is_not_taken_for_a_write(
    monkeypatch: pytest.MonkeyPatch, status: dict[str, object], document: dict[str, object] | None, kind: str
) -> None:
    door = HTTPDoor("http://127.0.0.1:1", "token", "kv")
    monkeypatch.setattr(door, "_ask", lambda command: {"data": {"document": document}, "status": status})
    done = door.operation("put")("k", "y")
    assert done.kind == kind
    deleted = Done("delete", None, "start")
    if kind == "overtaken":
        assert is_explained("start", [done, deleted], None)
        assert lost_values("start", [done, deleted], None) == []
        assert lost_values("start", [done, Done("delete", None, None)], None) == ["start"]
