"""Advice on expiry, namespaces, updates, statistics and encryption, followed."""

from __future__ import annotations

import pickle
from typing import Any

from advice.world import Case, World, named
from langchain_kv import Encryption, KVStore

KEY = bytes(range(32))


def store(**arguments: Any) -> KVStore:
    return KVStore("kv", "memory:advice", **arguments)


def encrypted() -> KVStore:
    return store(encryption=Encryption({"name": KEY}))


def of_a_store_that_was_closed(_: World) -> None:
    whole = store()
    inner = whole.namespace("users")
    whole.close()
    inner.mget(["a"])


def on_a_new_store(_: World, __: str) -> None:
    with store() as whole:
        inner = whole.namespace("users")
        inner.mset([("a", 1)])
        assert inner.mget(["a"]) == [1]


def made_where_it_is_used(_: World, __: str) -> None:
    with encrypted() as one:
        one.mset([("secret", 1)])
        assert one.mget(["secret"]) == [1]
    with store() as one:
        one.mdelete(["secret"])


def over_http(w: World, **arguments: Any) -> KVStore:
    """Return a store whose collection another one has made; nobody closes it but the server's end."""
    return w.server.store("forms", **arguments)


def opened_otherwise_than_it_was_made(w: World) -> None:
    over_http(w, atomic=True)
    over_http(w)


def opened_as_it_was_made(w: World, message: str) -> None:
    over_http(w, **{named(r"with (atomic)=True", message): True}).update("n", lambda old: 1)


def in_a_namespace_of(w: World, labels: int) -> None:
    w.server.store("labels", namespaced=True).namespace(*["a"] * labels).mset([("k", 1)])


def written_again_in_time(w: World, _: str) -> None:
    with KVStore("kv", w.server.url, token=w.server.token, ttl_s=60) as one:
        one.mset([("a", 1)])
        one.mset([("a", 1)])
        assert one.mget(["a"]) == [1]


CASES = [
    Case(
        "An Encryption is not pickled",
        lambda w: pickle.dumps(encrypted()),
        made_where_it_is_used,
    ),
    Case(
        "is a sequence of labels, got one",
        lambda w: store().namespaces(prefix="users"),
        lambda w, _: store().namespaces(prefix=("users",)),
    ),
    Case(
        "update takes a function of the value",
        lambda w: store().update("n", 1),  # type: ignore[arg-type]
        lambda w, _: store().update("n", lambda old: (old or 0) + 1),
    ),
    Case(
        "This store does not count: make it with statistics=True",
        lambda w: store().statistics(),
        lambda w, _: store(statistics=True).statistics(),
    ),
    Case(
        "A namespace needs a label: store.namespace('users')",
        lambda w: store().namespace(),
        lambda w, _: store().namespace("users").mset([("a", 1)]),
    ),
    Case(
        "a key with them may take",
        lambda w: store().namespace("x" * 8_000),
        lambda w, _: store().namespace("x" * 1_000).mset([("a", 1)]),
    ),
    Case("of which this one is a namespace was closed", of_a_store_that_was_closed, on_a_new_store),
    Case(
        "encryption must be an Encryption",
        lambda w: store(encryption=KEY),
        lambda w, _: encrypted().close(),
    ),
    Case(
        "is not the id of one of the keys: give one of",
        lambda w: Encryption({"name": KEY}, primary="another"),
        lambda w, message: Encryption({"name": KEY}, primary=named(r"give one of '(\w+)'", message)),
    ),
    Case(
        "open it so, over HTTP",
        opened_otherwise_than_it_was_made,
        opened_as_it_was_made,
    ),
    Case(
        "use fewer labels",
        lambda w: in_a_namespace_of(w, 1_000),
        lambda w, _: in_a_namespace_of(w, 999),
    ),
    Case(
        "Write values again in time instead, with ttl_s",
        lambda w: KVStore("kv", w.server.url, token=w.server.token, ttl_s=60, refresh_on_read=True),
        written_again_in_time,
    ),
]
