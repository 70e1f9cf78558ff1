"""Engines as their tests see most of what they do: bodies in the place of rows, all of them texts that never expire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain_kv.engines import memory
from langchain_kv.engines.base import CollectionName, DocId, Engine, Keep, Row, Settings
from langchain_kv.engines.sqlite import engine as sqlite

__all__ = ["Bodies", "MemoryEngine", "SQLiteEngine", "row"]


def row(doc_id: DocId, body: bytes) -> Row:
    """Return the row of a document that never expires."""
    return doc_id, body, False, None


class Bodies:
    """Passes everything on to an engine.

    Attributes:
        rows: the engine itself.
    """

    def __init__(self, engine: Engine) -> None:
        self.rows = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rows, name)

    def read(self, collection: CollectionName, ids: Sequence[DocId]) -> list[bytes | None]:
        return [None if found is None else found[1] for found in self.rows.read(collection, ids)]

    def read_with_settings(
        self, collection: CollectionName, ids: Sequence[DocId]
    ) -> tuple[Settings, list[bytes | None]]:
        settings, rows = self.rows.read_with_settings(collection, ids)
        return settings, [None if found is None else found[1] for found in rows]

    def write(self, collection: CollectionName, documents: Sequence[tuple[DocId, bytes]]) -> None:
        self.rows.write(collection, [row(doc_id, body) for doc_id, body in documents])

    def modify(
        self,
        collection: CollectionName,
        ids: Sequence[DocId],
        change: Callable[[DocId, bytes | None], bytes | Keep | None],
    ) -> None:
        def change_row(doc_id: DocId, found: Row | None) -> Row | Keep | None:
            new = change(doc_id, None if found is None else found[1])
            return row(doc_id, new) if isinstance(new, bytes) else new

        self.rows.modify(collection, ids, change_row)

    def scan(self, *args: Any, **kwargs: Any) -> list[tuple[DocId, bytes]]:
        return [found[:2] for found in self.rows.scan(*args, **kwargs)]


class SQLiteEngine(Bodies):
    """The engine on a file."""

    def __init__(self, path: str, **arguments: Any) -> None:
        super().__init__(sqlite.SQLiteEngine(path, **arguments))


class MemoryEngine(Bodies):
    """The engine in memory."""

    def __init__(self) -> None:
        super().__init__(memory.MemoryEngine())
