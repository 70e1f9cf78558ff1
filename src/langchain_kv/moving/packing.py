"""What ``CacheBackedEmbeddings`` kept, vectors as JSON text, as the bytes of an ``EmbeddingCache``."""

from __future__ import annotations

from contextlib import suppress

from langchain_kv.backends.base import Backend, Damaged, Found, Kind, Stored
from langchain_kv.backends.wrappers import Wrapper
from langchain_kv.embeddings.vectors import Unfit, count_of, pack, vector_of
from langchain_kv.values.codecs import UndecodableError, bytes_from_text

__all__ = ["Packed"]


class Packed(Wrapper):
    """Shows each value of a cache packed, under its key: the same numbers in half of the bytes or fewer.

    Args:
        inner: the cache; nothing is written to it.

    Attributes:
        bytes_before: of the values that were read so far.
        bytes_after: of what they became.
    """

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.bytes_before = 0
        self.bytes_after = 0

    def outwards(self, key: str, found: Found) -> Stored | None:
        value = found.value
        if isinstance(value, str):  # where documents are kept, bytes are base64 text
            with suppress(UndecodableError):
                value = bytes_from_text(value)
        if not isinstance(value, bytes):
            return Damaged("it is no vector, but JSON that another store keeps")
        vector = vector_of(value)
        packed = vector if isinstance(vector, Unfit) else value if count_of(value) else pack([vector])[0]
        if isinstance(packed, Unfit):
            return Damaged(f"it is no vector: {packed.reason}")
        self.bytes_before += len(value)
        self.bytes_after += len(packed)
        return Found(packed, Kind.BYTES, found.expires_at_ms)
