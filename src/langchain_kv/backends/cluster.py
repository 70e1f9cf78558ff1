"""The backend over a cluster: rows that other programs wrote badly stay apart, and scans go by token ranges."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Final, cast

from langchain_kv.backends.base import Stored
from langchain_kv.backends.engine import EngineBackend
from langchain_kv.codecs import Damaged, parse_document
from langchain_kv.engines.base import CollectionName, Settings
from langchain_kv.engines.cassandra import CassandraEngine
from langchain_kv.engines.cassandra_rows import BadRow
from langchain_kv.engines.cassandra_scan import Found, Scan
from langchain_kv.engines.pages import PAGE_DOCUMENTS
from langchain_kv.errors import DataAPIError
from langchain_kv.slices import SLICE_BYTES, Steps, in_slices, whole

__all__ = ["ClusterBackend"]

KEYS_PAGE: Final = 1_000

_logger = logging.getLogger("langchain_kv")


class ClusterBackend(EngineBackend):
    """Keeps the values of one collection on Apache Cassandra. Each key is written for itself.

    Args:
        engine: where the documents are; its owner closes it.
        collection: the collection; it must exist, or ``setup`` makes it, and its keyspace.
        on_close: called once, by the first ``close`` or ``aclose``.
    """

    def __init__(
        self, engine: CassandraEngine, collection: CollectionName, *, on_close: Callable[[], None] | None = None
    ) -> None:
        super().__init__(engine, collection, create_keyspace=True, on_close=on_close)

    @property
    def _engine(self) -> CassandraEngine:
        return cast(CassandraEngine, super()._engine)

    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return whole(_all_stored(self._engine.read_rows(self._collection, keys)))

    async def aget_many(self, keys: Sequence[str]) -> list[Stored | None]:
        rows = await self._engine.bridge.read(self._engine.read_rows, self._collection, keys)
        return await in_slices(_all_stored(rows))

    def scan_keys(self, prefix: str) -> Iterator[list[str]]:
        scan = Scan(prefix=prefix, with_bodies=False, limit=KEYS_PAGE)
        while (page := self._engine.next_page(self._collection, scan)) is not None:
            yield self._keys(page)

    async def ascan_keys(self, prefix: str) -> AsyncGenerator[list[str], None]:
        scan = Scan(prefix=prefix, with_bodies=False, limit=KEYS_PAGE)
        while (page := await self._engine.bridge.read(self._engine.next_page, self._collection, scan)) is not None:
            yield self._keys(page)

    def scan_items(self, prefix: str) -> Iterator[list[tuple[str, Stored]]]:
        scan = Scan(prefix=prefix, with_bodies=True, limit=PAGE_DOCUMENTS)
        while (page := self._engine.next_page(self._collection, scan)) is not None:
            yield whole(self._found(page))

    async def ascan_items(self, prefix: str) -> AsyncGenerator[list[tuple[str, Stored]], None]:
        scan = Scan(prefix=prefix, with_bodies=True, limit=PAGE_DOCUMENTS)
        while (page := await self._engine.bridge.read(self._engine.next_page, self._collection, scan)) is not None:
            yield await in_slices(self._found(page))

    def _texts(self, page: Sequence[Found]) -> list[tuple[str, bytes | BadRow | None]]:
        """Return what has a text id, with one log line for the rest of the page."""
        texts = [(doc_id, body) for doc_id, body in page if isinstance(doc_id, str)]
        if len(texts) < len(page):
            _logger.warning(
                "Collection '%s' has documents whose _id is not text, written by others: they are left out",
                self._collection.name,
            )
        return texts

    def _keys(self, page: Sequence[Found]) -> list[str]:
        keys = [key for key, _ in self._texts(page)]
        if "" in keys:
            _logger.warning(
                "Collection '%s' has a row with an empty key, written by others: remove it with cqlsh",
                self._collection.name,
            )
        return [key for key in keys if key]

    def _found(self, page: Sequence[Found]) -> Steps[list[tuple[str, Stored]]]:
        texts = self._texts(page)
        found = yield from _all_stored([body for _, body in texts])
        return [(key, stored) for (key, _), stored in zip(texts, found, strict=True) if stored is not None]

    def _check(self, in_force: Settings) -> None:
        more = {"indexing": "the indexing of every field"} if not in_force.get("indexing") else {}
        more |= {name: f"'{name}'" for name in ("lexical", "rerank", "schema_version") if name in in_force}
        if more and not (in_force.get("vector") or in_force.get("defaultId")):
            raise DataAPIError.of(
                "EXISTING_COLLECTION_DIFFERENT_SETTINGS",
                f"Collection '{self._collection.name}' exists with {', '.join(more.values())}, which only the Data API"
                " can write: give the URL of the cluster's Data API (https:...), or choose another name.",
            )
        super()._check(in_force)


def _all_stored(rows: Sequence[bytes | BadRow | None]) -> Steps[list[Stored | None]]:
    found: list[Stored | None] = []
    size_bytes = 0
    for row in rows:
        if size_bytes >= SLICE_BYTES:
            yield
            size_bytes = 0
        found.append(_stored(row))
        size_bytes += len(row) if isinstance(row, bytes) else 0
    return found


def _stored(row: bytes | BadRow | None) -> Stored | None:
    if row is None:
        return None
    return Damaged(row.reason) if isinstance(row, BadRow) else parse_document(row)
