"""What LangChain's CacheBackedEmbeddings keeps: vectors as JSON text, under a namespace and a hash of the text."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from langchain_core.stores import BaseStore

from langchain_kv.errors import ConfigError

__all__ = ["KeyEncoder", "OlderCache"]

KeyEncoder = Literal["sha1", "blake2b", "sha256", "sha512"] | Callable[[str], str]
"""How a text became a key: by one of these hashes, or by a function."""

_UUID_NAMESPACE: Final = uuid.UUID(int=1985)

_ENCODERS: Final[dict[str, Callable[[bytes], str]]] = {
    "sha1": lambda text: str(uuid.uuid5(_UUID_NAMESPACE, hashlib.sha1(text, usedforsecurity=False).hexdigest())),
    "blake2b": lambda text: hashlib.blake2b(text).hexdigest(),
    "sha256": lambda text: hashlib.sha256(text).hexdigest(),
    "sha512": lambda text: hashlib.sha512(text).hexdigest(),
}


@dataclass(frozen=True)
class OlderCache:
    """A cache that LangChain's ``CacheBackedEmbeddings`` wrote, for ``EmbeddingCache(read_through=...)``.

    Nothing is written to it, and it may be the store in which the new cache is.

    Attributes:
        store: its byte store: the ``document_embedding_cache`` of ``from_bytes_store``.
        namespace: as it was given to ``from_bytes_store``.
        key_encoder: as it was given to ``from_bytes_store``.
        queries: the byte store of its queries, where they had one of their own. Without one it is read for documents
            only: with ``query_embedding_cache=True`` nobody can tell any more whose vector it is.

    Raises:
        ConfigError: an argument is wrong.
    """

    store: BaseStore[str, bytes]
    namespace: str = ""
    key_encoder: KeyEncoder = "sha1"
    queries: BaseStore[str, bytes] | None = None

    def __post_init__(self) -> None:
        for name, store in (("store", self.store), ("queries", self.queries)):
            if not isinstance(store, BaseStore) and (store is not None or name == "store"):
                raise ConfigError(f"{name} must be a byte store of LangChain's, got {type(store).__name__}.")
        if callable(self.key_encoder):
            if self.namespace:
                raise ConfigError("A key_encoder of your own leaves no room for a namespace: put it into its keys.")
        elif self.key_encoder not in _ENCODERS:
            raise ConfigError(f"key_encoder must be a function or one of {', '.join(_ENCODERS)}.")

    def key(self, text: str) -> str:
        """Return the key under which it kept a text."""
        if callable(self.key_encoder):
            return self.key_encoder(text)
        return self.namespace + _ENCODERS[self.key_encoder](text.encode("utf-8", "surrogatepass"))
