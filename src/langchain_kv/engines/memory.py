"""The engine in memory: for tests, scratch work and short-lived servers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import Final

from langchain_kv.engines.base import KEEP, Change, CollectionName, DocId, Engine, NearRow, Row, Settings, Where
from langchain_kv.engines.catalog import no_vectors, unknown_collection, unknown_keyspace
from langchain_kv.engines.ids import SortedIds, check_text, prefix_end
from langchain_kv.engines.pages import cut
from langchain_kv.engines.vectors import VECTOR, Matrix, nearest_rows, vector_of, vectors_of
from langchain_kv.limits import DEFAULT_KEYSPACE
from langchain_kv.runtime.forks import HeldAcrossForks
from langchain_kv.runtime.work_queue import Bridge, InlineBridge

__all__ = ["MemoryEngine", "memory_engine"]


_guard: Final = HeldAcrossForks()
"""One lock for all databases in memory: their work holds the interpreter anyway; a fork finds them whole. Reentrant: a
change may look at the engine that calls it."""


STALE_MAX: Final = 1_000
"""Moments that are true no more which may be left beside as many as there are."""


class _Expiring:
    """The rows that expire, so that none is looked at before its time.

    Attributes:
        moments: when each of them does.
        soonest: a heap of those moments, and of ones that are true no more. Text and bytes do not compare.
    """

    def __init__(self) -> None:
        self.moments: dict[DocId, int] = {}
        self.soonest: list[tuple[int, bool, DocId]] = []

    def add(self, doc_id: DocId, moment: int) -> None:
        heappush(self.soonest, (moment, isinstance(doc_id, str), doc_id))
        self.moments[doc_id] = moment
        if len(self.soonest) > 2 * len(self.moments) + STALE_MAX:
            self.soonest = [(when, isinstance(one, str), one) for one, when in self.moments.items()]
            heapify(self.soonest)


_VECTOR: Final = VECTOR.encode()


class _Collection:
    """Rows by id, and their ids in order."""

    def __init__(self, settings: str) -> None:
        self.settings = settings
        self.rows: dict[DocId, Row] = {}
        self.expiring = _Expiring()
        vectors = vectors_of(json.loads(settings))
        self.matrix = None if vectors is None else Matrix(vectors)
        self._texts: SortedIds[str] = SortedIds()
        self._others: SortedIds[bytes] = SortedIds()

    def put(self, rows: dict[DocId, Row]) -> None:
        # Not the difference of the two sets of keys, which walks all of the collection.
        new = [doc_id for doc_id in rows if doc_id not in self.rows]
        self.rows.update(rows)
        if self.matrix is not None:
            self._put_vectors(self.matrix, rows)
        if self.expiring.moments:
            for doc_id in rows:
                self.expiring.moments.pop(doc_id, None)
        for doc_id, row in rows.items():
            if row[3] is not None:
                self.expiring.add(doc_id, row[3])
        self._texts.add(doc_id for doc_id in new if isinstance(doc_id, str))
        self._others.add(doc_id for doc_id in new if isinstance(doc_id, bytes))

    def _put_vectors(self, matrix: Matrix, rows: dict[DocId, Row]) -> None:
        found = {
            doc_id: vector
            for doc_id, (_, body, is_raw, _) in rows.items()
            if not is_raw and _VECTOR in body and (vector := vector_of(body))
        }
        matrix.remove(doc_id for doc_id in rows if doc_id not in found)
        matrix.put(found.items())

    def remove(self, ids: Iterable[DocId]) -> int:
        removed = 0
        for doc_id in ids:
            if self.rows.pop(doc_id, None) is None:
                continue
            removed += 1
            if self.matrix is not None:
                self.matrix.remove([doc_id])
            self.expiring.moments.pop(doc_id, None)
            if isinstance(doc_id, str):
                self._texts.remove(doc_id)
            else:
                self._others.remove(doc_id)
        return removed

    def purge(self, now_ms: int, limit: int) -> int:
        removed = 0
        moments, soonest = self.expiring.moments, self.expiring.soonest
        while removed < limit and soonest and soonest[0][0] <= now_ms:
            moment, _, doc_id = soonest[0]
            if moments.get(doc_id) == moment:
                removed += self.remove([doc_id])
            heappop(soonest)
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
        moment = self.expiring.moments.get(doc_id)
        return moment is not None and moment <= now_ms


class MemoryEngine(Engine):
    """A database in this process's memory. ``memory_engine`` gives the shared ones.

    It lives as long as something refers to it; ``close`` releases nothing, so that closing one store keeps the data of
    the next. A forked child has a copy of its own.
    """

    keeps_raw_values = True
    keeps_vectors = True

    def __init__(self) -> None:
        self._keyspaces: dict[str, dict[str, _Collection]] = {DEFAULT_KEYSPACE: {}}
        self._bridge = InlineBridge()

    # -- documents ----------------------------------------------------------------------------------------------

    def read(self, collection: CollectionName, ids: Sequence[DocId]) -> list[Row | None]:
        with _guard.lock:
            found = self._collection(collection)
            check_text(ids)
            return list(map(found.rows.get, ids))

    def write(self, collection: CollectionName, rows: Sequence[Row]) -> None:
        batch = {row[0]: row for row in rows}
        with _guard.lock:
            found = self._collection(collection)
            check_text(batch)
            found.put(batch)

    def modify(self, collection: CollectionName, ids: Sequence[DocId], change: Change) -> None:
        with _guard.lock:
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
    ) -> list[Row]:
        with _guard.lock:
            ids = self.scan_ids(collection, after=after, prefix=prefix, limit=limit)
            rows = self._collection(collection).rows
            return cut([rows[doc_id] for doc_id in ids], size_bytes)

    def scan_ids(
        self,
        collection: CollectionName,
        *,
        after: DocId | None = None,
        prefix: str = "",
        limit: int,
        now_ms: int | None = None,
    ) -> list[DocId]:
        with _guard.lock:
            found = self._collection(collection)
            check_text([prefix] if after is None else [prefix, after])
            ids = found.page(after, prefix, limit)
            if now_ms is None or not found.expiring.moments:
                return ids
            alive: list[DocId] = []
            while ids:  # a page that is not full would end the scan
                alive += [doc_id for doc_id in ids if not found.has_expired(doc_id, now_ms)]
                ids = found.page(ids[-1], prefix, limit - len(alive)) if len(alive) < limit else []
            return alive

    def nearest(
        self,
        collection: CollectionName,
        vector: bytes,
        *,
        limit: int,
        ids: Sequence[DocId] | None = None,
        where: Where | None = None,
    ) -> list[NearRow]:
        with _guard.lock:
            found = self._collection(collection)
            matrix = found.matrix
            if matrix is None:
                raise no_vectors()
            if ids is not None:
                check_text(ids)
                chosen = [(one, vector_of(found.rows[one][1])) for one in ids if one in matrix]
                matrix = Matrix(matrix.vectors)
                matrix.put(chosen)
            return nearest_rows(matrix, vector, lambda _: found.rows, limit, where)

    def count(self, collection: CollectionName, *, limit: int | None = None) -> int:
        with _guard.lock:
            size = len(self._collection(collection).rows)
        return size if limit is None else min(size, max(limit, 0))

    def clear(self, collection: CollectionName, prefix: str = "") -> None:
        with _guard.lock:
            found = self._collection(collection)
            if prefix:
                check_text([prefix])
                found.remove(found.page(None, prefix, len(found.rows)))
            else:
                self._keyspaces[collection.keyspace][collection.name] = _Collection(found.settings)

    def purge(self, collection: CollectionName, *, now_ms: int, limit: int) -> int:
        with _guard.lock:
            found = self._collection(collection)
            return found.purge(now_ms, limit)

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
