"""Advice on memory for agents, followed."""

from __future__ import annotations

from typing import Any

from langchain_core.embeddings import DeterministicFakeEmbedding
from langgraph.store.base import GetOp

from advice.world import Case, World
from langchain_kv import LangGraphStore

AGENTS = ("memories",)


def memory(**arguments: Any) -> LangGraphStore:
    return LangGraphStore("memory:advice", collection="agents", **arguments)


def put(value: Any = None, namespace: tuple[str, ...] = AGENTS, **arguments: Any) -> Any:
    """Put an item and return what is kept of it."""
    with memory() as store:
        store.put(namespace, "k", {"kind": "note"} if value is None else value, **arguments)
        return store.get(namespace, "k").value  # type: ignore[union-attr]


def found(wanted: Any) -> int:
    put()
    with memory() as store:
        return len(store.search(AGENTS, filter=wanted))


def asked(*ops: Any) -> list[Any]:
    with memory() as store:
        return store.batch(ops)


def meaning(dims: int = 4, **more: Any) -> LangGraphStore:
    return memory(index={"dims": dims, "embed": DeterministicFakeEmbedding(size=4), **more})


def put_by_meaning(dims: int) -> None:
    with meaning(dims) as store:
        store.put(AGENTS, "k", {"text": "a note"})


def unlabelled(_: World) -> Any:
    from langgraph.store.base import PutOp

    return asked(PutOp((), "k", {"kind": "note"}))


CASES = [
    Case("filter must be a mapping of fields", lambda w: found([1]), lambda w, _: found({"kind": "note"})),
    Case("An item's namespace has at least one label", unlabelled, lambda w, _: put(namespace=("memories",))),
    Case(
        "index must be None, False or a list of paths",
        lambda w: put(index="text"),
        lambda w, _: put(index=["text"]),
    ),
    Case("An item's value must be a mapping", lambda w: put("a note"), lambda w, _: put({"text": "a note"})),
    Case(
        'index must be a mapping with "embed"',
        lambda w: memory(index={"dims": 4}),
        lambda w, _: meaning().close(),
    ),
    Case(
        "fields of index must be a list of paths",
        lambda w: meaning(fields="text"),
        lambda w, _: meaning(fields=["text"]).close(),
    ),
    Case("set dims of index right", lambda w: put_by_meaning(5), lambda w, _: put_by_meaning(4)),
    Case(
        "ttl must be a mapping",
        lambda w: memory(ttl=60),
        lambda w, _: memory(ttl={"default_ttl": 60}).close(),
    ),
    Case("Unknown operation: got", lambda w: asked("get"), lambda w, _: asked(GetOp(AGENTS, "k"))),
]
