"""The backend over a cluster: rows that other programs wrote badly stay apart, and scans go by token ranges."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from typing import Final, cast

from langchain_kv.backends.base import Damaged, Page, Stored, is_alive
from langchain_kv.backends.documents import found_in
from langchain_kv.backends.engine import EngineBackend
from langchain_kv.engines.base import CollectionName, Settings
from langchain_kv.engines.cassandra.engine import CassandraEngine
from langchain_kv.engines.cassandra.rows import BadRow
from langchain_kv.engines.cassandra.scan import Found, Scan
from langchain_kv.errors import DataAPIError
from langchain_kv.runtime.clock import now_ms

__all__ = ["ClusterBackend"]

KEYS_PAGE: Final = 1_000
ITEMS_PAGE: Final = 200

_logger = logging.getLogger("langchain_kv")


class ClusterBackend(EngineBackend):
    """Keeps the values of one collection on Apache Cassandra. Each key is written for itself.

    Args:
        engine: where the documents are; its owner closes it.
        collection: the collection; it must exist, or ``open`` makes it, and its keyspace.
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
        return _alive(self._engine.read_rows(self._collection, keys))

    async def aget_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return _alive(await self.bridge.read(self._engine.read_rows, self._collection, keys))

    def scan(self, prefix: str, *, values: bool) -> Generator[Page]:
        scan = self._scan(prefix, values)
        while (page := self._engine.next_page(self._collection, scan)) is not None:
            yield self._page(page, values)

    async def ascan(self, prefix: str, *, values: bool) -> AsyncGenerator[Page]:
        scan = self._scan(prefix, values)
        while (page := await self.bridge.read(self._engine.next_page, self._collection, scan)) is not None:
            yield self._page(page, values)

    def _scan(self, prefix: str, values: bool) -> Scan:
        # With the documents in any case: only they say what has expired.
        return Scan(prefix=prefix, with_bodies=True, limit=ITEMS_PAGE if values else KEYS_PAGE)

    def _page(self, page: Sequence[Found], values: bool) -> Page:
        texts = [(doc_id, body) for doc_id, body in page if isinstance(doc_id, str)]
        if len(texts) < len(page):
            _logger.warning(
                "Collection '%s' has documents whose _id is not text, written by others: they are left out",
                self._collection.name,
            )
        if any(not key for key, _ in texts):
            _logger.warning(
                "Collection '%s' has a row with an empty key, written by others: remove it with cqlsh",
                self._collection.name,
            )
        alive = zip(texts, _alive([body for _, body in texts]), strict=True)
        return [(key, stored if values else None) for (key, _), stored in alive if key and stored is not None]

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


def _alive(rows: Sequence[bytes | BadRow | None]) -> list[Stored | None]:
    now = now_ms()
    stored = [
        None if row is None else Damaged(row.reason) if isinstance(row, BadRow) else found_in(row) for row in rows
    ]
    return [one if one is not None and is_alive(one, now) else None for one in stored]
