"""The engine in memory: for tests, scratch work and short-lived servers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final

from langchain_kv.engines.base import KEEP, Change, CollectionName, DocId, Engine, Settings
from langchain_kv.engines.catalog import unknown_collection, unknown_keyspace
from langchain_kv.engines.ids import SortedIds, check_text, prefix_end
from langchain_kv.engines.pages import cut
from langchain_kv.limits import DEFAULT_KEYSPACE
from langchain_kv.sharing import HeldAcrossForks
from langchain_kv.work_queue import Bridge, InlineBridge

__all__ = ["MemoryEngine", "memory_engine"]


_guard: Final = HeldAcrossForks()
"""One lock for all databases in memory: their work holds the interpreter anyway; a fork finds them whole. Reentrant: a
change may look at the engine that calls it."""


class _Collection:
    """Documents by id, and their ids in order."""

    def __init__(self, settings: str) -> None:
        self.settings = settings
        self.bodies: dict[DocId, bytes] = {}
        self._texts: SortedIds[str] = SortedIds()
        self._others: SortedIds[bytes] = SortedIds()

    def put(self, documents: dict[DocId, bytes]) -> None:
        # Not the difference of the two sets of keys, which walks all of the collection.
        new = [doc_id for doc_id in documents if doc_id not in self.bodies]
        self.bodies.update(documents)
        self._texts.add(doc_id for doc_id in new if isinstance(doc_id, str))
        self._others.add(doc_id for doc_id in new if isinstance(doc_id, bytes))

    def remove(self, ids: Iterable[DocId]) -> int:
        removed = 0
        for doc_id in ids:
            if self.bodies.pop(doc_id, None) is None:
                continue
            removed += 1
            if isinstance(doc_id, str):
                self._texts.remove(doc_id)
            else:
                self._others.remove(doc_id)
        return removed

    def page(self, after: DocId | None, prefix: str, limit: int) -> list[DocId]:
        limit = max(limit, 0)
        found: list[DocId] = []
        if not isinstance(after, bytes):
            found += self._texts.page(start=prefix or None, after=after, end=prefix_end(prefix), limit=limit)
        if not prefix and len(found) < limit:
            other = after if isinstance(after, bytes) else None
            found += self._others.page(start=None, after=other, end=None, limit=limit - len(found))
        return found


class MemoryEngine(Engine):
    """A database in this process's memory. ``memory_engine`` gives the shared ones.

    It lives as long as something refers to it; ``close`` releases nothing, so that closing one store keeps the data
    of the next. A forked child has a copy of its own.
    """

    keeps_bytes = True

    def __init__(self) -> None:
        self._keyspaces: dict[str, dict[str, _Collection]] = {DEFAULT_KEYSPACE: {}}
        self._bridge = InlineBridge()

    # -- documents ----------------------------------------------------------------------------------------------

    def read(self, collection: CollectionName, ids: Sequence[DocId]) -> list[bytes | None]:
        with _guard.lock:
            found = self._collection(collection)
            check_text(ids)
            return [found.bodies.get(doc_id) for doc_id in ids]

    def write(self, collection: CollectionName, documents: Sequence[tuple[DocId, bytes]]) -> None:
        batch = dict(documents)
        with _guard.lock:
            found = self._collection(collection)
            check_text(batch)
            found.put(batch)

    def modify(self, collection: CollectionName, ids: Sequence[DocId], change: Change) -> None:
        with _guard.lock:
            found = self._collection(collection)
            check_text(ids)
            changed: dict[DocId, bytes | None] = {}
            for doc_id in ids:
                body = changed[doc_id] if doc_id in changed else found.bodies.get(doc_id)
                new = change(doc_id, body)
                if new is not KEEP:
                    changed[doc_id] = new
            found.remove(doc_id for doc_id, body in changed.items() if body is None)
            found.put({doc_id: body for doc_id, body in changed.items() if body is not None})

    def delete(self, collection: CollectionName, ids: Sequence[DocId]) -> int:
        with _guard.lock:
            found = self._collection(collection)
            check_text(ids)
            return found.remove(ids)

    def scan(
        self,
        collection: CollectionName,
        *,
        after: DocId | None = None,
        prefix: str = "",
        limit: int,
        size_bytes: int | None = None,
    ) -> list[tuple[DocId, bytes]]:
        with _guard.lock:
            ids = self.scan_ids(collection, after=after, prefix=prefix, limit=limit)
            bodies = self._collection(collection).bodies
            return cut([(doc_id, bodies[doc_id]) for doc_id in ids], size_bytes)

    def scan_ids(
        self, collection: CollectionName, *, after: DocId | None = None, prefix: str = "", limit: int
    ) -> list[DocId]:
        with _guard.lock:
            found = self._collection(collection)
            check_text([prefix] if after is None else [prefix, after])
            return found.page(after, prefix, limit)

    def count(self, collection: CollectionName, *, limit: int | None = None) -> int:
        with _guard.lock:
            size = len(self._collection(collection).bodies)
        return size if limit is None else min(size, max(limit, 0))

    def clear(self, collection: CollectionName) -> None:
        with _guard.lock:
            found = self._collection(collection)
            self._keyspaces[collection.keyspace][collection.name] = _Collection(found.settings)

    # -- collections and keyspaces ------------------------------------------------------------------------------

    def create_collection(self, collection: CollectionName, settings: Settings) -> Settings:
        check_text(collection)
        with _guard.lock:
            created = _Collection(json.dumps(settings))
            found = self._keyspace(collection.keyspace).setdefault(collection.name, created)
            return _parsed(found)

    def drop_collection(self, collection: CollectionName) -> None:
        with _guard.lock:
            self._keyspace(collection.keyspace).pop(collection.name, None)

    def settings(self, collection: CollectionName) -> Settings:
        with _guard.lock:
            return _parsed(self._collection(collection))

    def collections(self, keyspace: str) -> dict[str, Settings]:
        with _guard.lock:
            return {name: _parsed(found) for name, found in sorted(self._keyspace(keyspace).items())}

    def create_keyspace(self, keyspace: str) -> None:
        check_text([keyspace])
        with _guard.lock:
            self._keyspaces.setdefault(keyspace, {})

    def drop_keyspace(self, keyspace: str) -> None:
        with _guard.lock:
            self._keyspaces.pop(keyspace, None)

    def keyspaces(self) -> list[str]:
        with _guard.lock:
            return sorted(self._keyspaces)

    # -- life -----------------------------------------------------------------------------------------------------

    @property
    def bridge(self) -> Bridge:
        return self._bridge

    def close(self) -> None:
        """Do nothing: the data stay, and other users of the database go on."""

    def _keyspace(self, name: str) -> dict[str, _Collection]:
        try:
            return self._keyspaces[name]
        except KeyError:
            raise unknown_keyspace(name) from None

    def _collection(self, collection: CollectionName) -> _Collection:
        try:
            return self._keyspace(collection.keyspace)[collection.name]
        except KeyError:
            raise unknown_collection(collection) from None


def _parsed(collection: _Collection) -> Settings:
    settings: Settings = json.loads(collection.settings)  # made anew, so that a caller's changes stay the caller's
    return settings


_databases: dict[str, MemoryEngine] = {}


def memory_engine(name: str) -> MemoryEngine:
    """Return the process's shared database of that name, made at its first use and kept until the process ends."""
    with _guard.lock:
        return _databases.setdefault(name, MemoryEngine())
