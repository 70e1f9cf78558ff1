"""A cache of embeddings, over any store of bytes."""

from langchain_kv.embeddings.cache import EmbeddingCache
from langchain_kv.embeddings.older import OlderCache

__all__ = ["EmbeddingCache", "OlderCache"]
