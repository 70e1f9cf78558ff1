"""The engine in memory: for tests, scratch work and short-lived servers."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Sequence
from itertools import islice

from langchain_kv.engines.base import KEEP, Change, CollectionName, DocId, Engine, Row, Settings
from langchain_kv.engines.catalog import unknown_collection, unknown_keyspace
from langchain_kv.engines.ids import SortedIds, check_text, prefix_end
from langchain_kv.limits import DEFAULT_KEYSPACE
from langchain_kv.runtime.work_queue import Bridge, InlineBridge

__all__ = ["MemoryEngine", "memory_engine"]


class _Guard:
    """One lock for all databases in memory: their work holds the interpreter anyway; a fork finds them whole."""

    lock = threading.RLock()  # reentrant: a change may look at the engine that calls it


class _Collection:
    """Rows by id, and their ids in order."""

    def __init__(self, settings: str) -> None:
        self.settings = settings
        self.rows: dict[DocId, Row] = {}
        self.expiring: dict[DocId, int] = {}  # the moments of those that expire
        self._texts: SortedIds[str] = SortedIds()
        self._others: SortedIds[bytes] = SortedIds()

    def put(self, rows: dict[DocId, Row]) -> None:
        # Not the difference of the two sets of keys, which walks all of the collection.
        new = [doc_id for doc_id in rows if doc_id not in self.rows]
        self.rows.update(rows)
        if self.expiring:
            for doc_id in rows:
                self.expiring.pop(doc_id, None)
        self.expiring.update({doc_id: row[3] for doc_id, row in rows.items() if row[3] is not None})
        self._texts.add(doc_id for doc_id in new if isinstance(doc_id, str))
        self._others.add(doc_id for doc_id in new if isinstance(doc_id, bytes))

    def remove(self, ids: Iterable[DocId]) -> int:
        removed = 0
        for doc_id in ids:
            if self.rows.pop(doc_id, None) is None:
                continue
            removed += 1
            self.expiring.pop(doc_id, None)
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

    def has_expired(self, doc_id: DocId, now_ms: int) -> bool:
        moment = self.expiring.get(doc_id)
        return moment is not None and moment <= now_ms


class MemoryEngine(Engine):
    """A database in this process's memory. ``memory_engine`` gives the shared ones.

    It lives as long as something refers to it; ``close`` releases nothing, so that closing one store keeps the data
    of the next. A forked child has a copy of its own.
    """

    keeps_raw_values = True

    def __init__(self) -> None:
        self._keyspaces: dict[str, dict[str, _Collection]] = {DEFAULT_KEYSPACE: {}}
        self._bridge = InlineBridge()

    # -- documents ----------------------------------------------------------------------------------------------

    def read(self, collection: CollectionName, ids: Sequence[DocId]) -> list[Row | None]:
        with _Guard.lock:
            found = self._collection(collection)
            check_text(ids)
            return list(map(found.rows.get, ids))

    def write(self, collection: CollectionName, rows: Sequence[Row]) -> None:
        batch = {row[0]: row for row in rows}
        with _Guard.lock:
            found = self._collection(collection)
            check_text(batch)
            found.put(batch)

    def modify(self, collection: CollectionName, ids: Sequence[DocId], change: Change) -> None:
        with _Guard.lock:
            found = self._collection(collection)
            check_text(ids)
            changed: dict[DocId, Row | None] = {}
            for doc_id in ids:
                row = changed[doc_id] if doc_id in changed else found.rows.get(doc_id)
                new = change(doc_id, row)
                if new is not KEEP:
                    changed[doc_id] = new
            found.remove(doc_id for doc_id, row in changed.items() if row is None)
            found.put({doc_id: row for doc_id, row in changed.items() if row is not None})

    def delete(self, collection: CollectionName, ids: Sequence[DocId]) -> int:
        with _Guard.lock:
            found = self._collection(collection)
            check_text(ids)
            return found.remove(ids)

    def scan(
        self, collection: CollectionName, *, after: DocId | None = None, prefix: str = "", limit: int
    ) -> list[Row]:
        with _Guard.lock:
            ids = self.scan_ids(collection, after=after, prefix=prefix, limit=limit)
            rows = self._collection(collection).rows
            return [rows[doc_id] for doc_id in ids]

    def scan_ids(
        self,
        collection: CollectionName,
        *,
        after: DocId | None = None,
        prefix: str = "",
        limit: int,
        now_ms: int | None = None,
    ) -> list[DocId]:
        with _Guard.lock:
            found = self._collection(collection)
            check_text([prefix] if after is None else [prefix, after])
            ids = found.page(after, prefix, limit)
            if now_ms is None or not found.expiring:
                return ids
            alive: list[DocId] = []
            while ids:  # a page that is not full would end the scan
                alive += [doc_id for doc_id in ids if not found.has_expired(doc_id, now_ms)]
                ids = found.page(ids[-1], prefix, limit - len(alive)) if len(alive) < limit else []
            return alive

    def count(self, collection: CollectionName, *, limit: int | None = None) -> int:
        with _Guard.lock:
            size = len(self._collection(collection).rows)
        return size if limit is None else min(size, max(limit, 0))

    def clear(self, collection: CollectionName, prefix: str = "") -> None:
        with _Guard.lock:
            found = self._collection(collection)
            if prefix:
                check_text([prefix])
                found.remove(found.page(None, prefix, len(found.rows)))
            else:
                self._keyspaces[collection.keyspace][collection.name] = _Collection(found.settings)

    def purge(self, collection: CollectionName, *, now_ms: int, limit: int) -> int:
        with _Guard.lock:
            found = self._collection(collection)
            expired = (doc_id for doc_id, moment in found.expiring.items() if moment <= now_ms)
            return found.remove(list(islice(expired, max(limit, 0))))

    # -- collections and keyspaces ------------------------------------------------------------------------------

    def create_collection(self, collection: CollectionName, settings: Settings) -> Settings:
        check_text(collection)
        with _Guard.lock:
            created = _Collection(json.dumps(settings))
            found = self._keyspace(collection.keyspace).setdefault(collection.name, created)
            return _parsed(found)

    def drop_collection(self, collection: CollectionName) -> None:
        with _Guard.lock:
            self._keyspace(collection.keyspace).pop(collection.name, None)

    def settings(self, collection: CollectionName) -> Settings:
        with _Guard.lock:
            return _parsed(self._collection(collection))

    def collections(self, keyspace: str) -> dict[str, Settings]:
        with _Guard.lock:
            return {name: _parsed(found) for name, found in sorted(self._keyspace(keyspace).items())}

    def create_keyspace(self, keyspace: str) -> None:
        check_text([keyspace])
        with _Guard.lock:
            self._keyspaces.setdefault(keyspace, {})

    def drop_keyspace(self, keyspace: str) -> None:
        with _Guard.lock:
            self._keyspaces.pop(keyspace, None)

    def keyspaces(self) -> list[str]:
        with _Guard.lock:
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
    with _Guard.lock:
        return _databases.setdefault(name, MemoryEngine())


def _hold_lock() -> None:
    _Guard.lock.acquire()


def _release_lock() -> None:
    _Guard.lock.release()


def _renew_lock() -> None:
    _Guard.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    # The lock is held across the fork, so that no other thread's half-done change is copied into the child.
    os.register_at_fork(before=_hold_lock, after_in_parent=_release_lock, after_in_child=_renew_lock)
