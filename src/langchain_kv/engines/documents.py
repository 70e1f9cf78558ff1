"""An engine as one of documents only: values of bytes that it keeps as they are, as the documents they stand for."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_kv.engines.base import Change, CollectionName, DocId, Engine, Keep, Settings
from langchain_kv.kept import bytes_document, kept_bytes
from langchain_kv.work_queue import Bridge

__all__ = ["documents_of"]


def documents_of(engine: Engine) -> Engine:
    """Return the engine, such that every body is the JSON text of a document, as langchain-astradb would store it.

    Where a change answers such a body, the document is kept from then on.
    """
    return _Documents(engine) if engine.keeps_bytes else engine


def _text(doc_id: DocId, body: bytes) -> bytes:
    """Return the document of a body; one that keeps neither a document nor bytes is damage, for its reader to find."""
    value = kept_bytes(body)
    # No store writes bytes under an id that is no text.
    return body if value is None or not isinstance(doc_id, str) else bytes_document(doc_id, value)


def _texts(ids: Sequence[DocId], bodies: Sequence[bytes | None]) -> list[bytes | None]:
    return [None if body is None else _text(doc_id, body) for doc_id, body in zip(ids, bodies, strict=True)]


class _Documents(Engine):
    """What ``documents_of`` returns: reading differs, the rest is passed on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self, collection: CollectionName, ids: Sequence[DocId]) -> list[bytes | None]:
        return _texts(ids, self._engine.read(collection, ids))

    def read_with_settings(
        self, collection: CollectionName, ids: Sequence[DocId]
    ) -> tuple[Settings, list[bytes | None]]:
        settings, bodies = self._engine.read_with_settings(collection, ids)
        return settings, _texts(ids, bodies)

    def scan(
        self,
        collection: CollectionName,
        *,
        after: DocId | None = None,
        prefix: str = "",
        limit: int,
        size_bytes: int | None = None,
    ) -> list[tuple[DocId, bytes]]:
        # Never shorter than what the engine counted by, so a page that bytes have ended is known to be one.
        page = self._engine.scan(collection, after=after, prefix=prefix, limit=limit, size_bytes=size_bytes)
        return [(doc_id, _text(doc_id, body)) for doc_id, body in page]

    def modify(self, collection: CollectionName, ids: Sequence[DocId], change: Change) -> None:
        def change_document(doc_id: DocId, body: bytes | None) -> bytes | Keep | None:
            return change(doc_id, None if body is None else _text(doc_id, body))

        self._engine.modify(collection, ids, change_document)

    def write(self, collection: CollectionName, documents: Sequence[tuple[DocId, bytes]]) -> None:
        self._engine.write(collection, documents)

    def delete(self, collection: CollectionName, ids: Sequence[DocId]) -> int:
        return self._engine.delete(collection, ids)

    def scan_ids(
        self, collection: CollectionName, *, after: DocId | None = None, prefix: str = "", limit: int
    ) -> list[DocId]:
        return self._engine.scan_ids(collection, after=after, prefix=prefix, limit=limit)

    def count(self, collection: CollectionName, *, limit: int | None = None) -> int:
        return self._engine.count(collection, limit=limit)

    def clear(self, collection: CollectionName) -> None:
        self._engine.clear(collection)

    def create_collection(self, collection: CollectionName, settings: Settings) -> Settings:
        return self._engine.create_collection(collection, settings)

    def drop_collection(self, collection: CollectionName) -> None:
        self._engine.drop_collection(collection)

    def settings(self, collection: CollectionName) -> Settings:
        return self._engine.settings(collection)

    def collections(self, keyspace: str) -> dict[str, Settings]:
        return self._engine.collections(keyspace)

    def create_keyspace(self, keyspace: str) -> None:
        self._engine.create_keyspace(keyspace)

    def drop_keyspace(self, keyspace: str) -> None:
        self._engine.drop_keyspace(keyspace)

    def keyspaces(self) -> list[str]:
        return self._engine.keyspaces()

    @property
    def bridge(self) -> Bridge:
        return self._engine.bridge

    def close(self) -> None:
        self._engine.close()
