"""What programs read of a store beside its interface, as LangGraph's own stores have it."""

from __future__ import annotations

from langchain_core.embeddings import DeterministicFakeEmbedding
from langgraph.store.base import IndexConfig, TTLConfig
from langgraph.store.memory import InMemoryStore

from langchain_kv import LangGraphStore


def test_the_configuration_of_a_store_is_told() -> None:
    index: IndexConfig = {"dims": 4, "embed": DeterministicFakeEmbedding(size=4), "fields": ["text"]}
    ttl: TTLConfig = {"default_ttl": 60.0}
    with LangGraphStore("memory:", index=index, ttl=ttl) as store:
        theirs = InMemoryStore(index=index).index_config

        assert store.index_config == index
        assert theirs
        assert store.index_config.items() <= theirs.items()
        assert store.embeddings is index["embed"]
        assert store.ttl_config == ttl


def test_a_store_without_configuration_says_so() -> None:
    with LangGraphStore("memory:") as store:
        theirs = InMemoryStore()

        assert (store.index_config, store.embeddings) == (theirs.index_config, theirs.embeddings) == (None, None)
        assert store.ttl_config is None
