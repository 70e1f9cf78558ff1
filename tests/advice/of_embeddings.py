"""Advice on the cache of embeddings, followed."""

from __future__ import annotations

from typing import Any

from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.stores import InMemoryByteStore

from advice.world import Case, World, named
from langchain_kv import EmbeddingCache, KVByteStore, OlderCache

MODEL = DeterministicFakeEmbedding(size=3)
LARGE = [1e39, 0.0]


class Large(DeterministicFakeEmbedding):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [LARGE] * len(texts)


def works(**arguments: Any) -> None:
    with EmbeddingCache(MODEL, "memory:advice", **{"name": "fake", **arguments}) as cache:
        assert cache.embed_documents(["a"]) == MODEL.embed_documents(["a"])


def named_as_it_says(_: World, message: str) -> None:
    works(name=named(r"give name='([\w-]+)'", message))


def large() -> EmbeddingCache:
    return EmbeddingCache(Large(size=2), InMemoryByteStore(), name="large")


def returned_as_lists(_: World, __: str) -> None:
    assert large().embed_documents(["a"]) == [LARGE]


def given_to_the_store(_: World, __: str) -> None:
    with KVByteStore("kv", "memory:advice", ttl_s=60) as store:
        EmbeddingCache(MODEL, store, name="fake").embed_documents(["a"])


def pruned(_: World, __: str) -> None:
    with KVByteStore("kv", "memory:advice") as store:
        assert EmbeddingCache(MODEL, store, name="fake").prune() == 0


CASES = [
    Case("does not say its model's name", lambda w: EmbeddingCache(MODEL, "memory:advice"), named_as_it_says),
    Case("A model's name is text that is not empty", lambda w: works(name=""), named_as_it_says),
    Case(
        "read_through must be an OlderCache",
        lambda w: works(read_through=InMemoryByteStore()),
        lambda w, _: works(read_through=OlderCache(InMemoryByteStore(), namespace="fake")),
    ),
    Case(
        "A key_encoder of your own leaves no room for a namespace",
        lambda w: OlderCache(InMemoryByteStore(), "fake", lambda text: text),
        lambda w, _: works(read_through=OlderCache(InMemoryByteStore(), key_encoder=lambda text: f"fake{text}")),
    ),
    Case(
        "give them to the store, not to the cache",
        lambda w: EmbeddingCache(MODEL, InMemoryByteStore(), name="fake", ttl_s=60),
        given_to_the_store,
    ),
    Case(
        "texts must be a list of strings, got one",
        lambda w: large().embed_documents("a"),  # type: ignore[arg-type]
        lambda w, _: large().embed_documents(["a"]),
    ),
    Case(
        "does not say what has expired: use a KVByteStore",
        lambda w: EmbeddingCache(MODEL, InMemoryByteStore(), name="fake").prune(),
        pruned,
    ),
    Case(
        "A vector holds a number that is beyond float32: use embed_documents",
        lambda w: large().embed_documents_array(["a"]),
        returned_as_lists,
    ),
]
