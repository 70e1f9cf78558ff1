"""The backend over a cluster: rows that other programs wrote badly stay apart, and scans go by token ranges."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Final

from langchain_kv.backends.async_base import AsyncBackend
from langchain_kv.backends.base import Change, Damaged, Merge, Page, Record, Stored, is_alive
from langchain_kv.backends.collections import NAMESPACES, PLAIN, CollectionForm, check_settings
from langchain_kv.backends.documents import finder
from langchain_kv.backends.rows import (
    OverEngine,
    adding,
    changing,
    merging,
    open_collection,
    postponing,
    rows_in_parts,
    rows_of,
)
from langchain_kv.engines.base import CollectionName, Settings
from langchain_kv.engines.cassandra.engine import CassandraEngine
from langchain_kv.engines.cassandra.rows import BadRow
from langchain_kv.engines.cassandra.scan import Found, Listed, Scan
from langchain_kv.engines.pages import PAGE_DOCUMENTS
from langchain_kv.errors import DataAPIError
from langchain_kv.runtime.clock import now_ms
from langchain_kv.runtime.slices import Steps, by_bytes, in_slices
from langchain_kv.runtime.work_queue import run_aside
from langchain_kv.values.namespaces import indexed_part

__all__ = ["CassandraBackend"]

KEYS_PAGE: Final = 1_000

_logger = logging.getLogger("langchain_kv")


class CassandraBackend(OverEngine[CassandraEngine], AsyncBackend):
    """Keeps the values of one collection on Apache Cassandra. Each key is written for itself.

    ``open`` makes a missing keyspace, too.

    Args:
        engine: see ``OverEngine``, as for the other arguments.
        collection: the collection.
        form: what its documents have beside key and value: the same as over HTTP.
        on_close: called by the first ``close`` or ``aclose``.
    """

    can_update = True
    keeps_bytes = False

    def __init__(
        self,
        engine: CassandraEngine,
        collection: CollectionName,
        *,
        form: CollectionForm = PLAIN,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(engine, collection, on_close=on_close)
        self._form = form
        self._has_seen_form = False

    def _listed(self, prefix: str) -> Listed | None:
        """Return what the documents of all keys with this prefix list, where they do."""
        namespace = indexed_part(prefix) if self._form.namespaced else ""
        return (NAMESPACES, namespace) if namespace else None

    # -- the verbs ------------------------------------------------------------------------------------------------

    async def aget_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return await in_slices(_alive(await self._engine.aread_rows(self._collection, keys)))

    async def aput_many(self, records: Sequence[Record]) -> None:
        rows = await in_slices(rows_in_parts(records, keeps_raw=False, form=await self._form_in_force()))
        await self._engine.awrite(self._collection, rows)

    def check_many(self, records: Sequence[Record]) -> None:
        rows_of(records, keeps_raw=False, form=self._form)

    async def adelete_many(self, keys: Sequence[str]) -> None:
        await self._engine.adelete(self._collection, keys)

    async def ascan(self, prefix: str, *, values: bool) -> AsyncGenerator[Page]:
        # With the documents in any case: only they say what has expired.
        limit = PAGE_DOCUMENTS if values else KEYS_PAGE
        scan = Scan(prefix=prefix, with_bodies=True, limit=limit, listed=self._listed(prefix))
        while (page := await self._engine.anext_page(self._collection, scan)) is not None:
            yield await in_slices(self._page(page, values))

    def _page(self, page: Sequence[Found], values: bool) -> Steps[Page]:
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
        found = yield from _alive([body for _, body in texts])
        alive = zip(texts, found, strict=True)
        if not values:
            return [(key, None) for (key, _), stored in alive if key and stored is not None]
        no_key = Damaged("its key is empty, which others wrote: remove it with cqlsh")
        return [(key, stored if key else no_key) for (key, _), stored in alive if stored is not None]

    async def aadd_many(self, records: Sequence[Record]) -> list[bool]:
        form = await self._form_in_force()
        added, insert = adding(await in_slices(rows_in_parts(records, keeps_raw=False, form=form)))
        await self._engine.amodify(self._collection, list(added), insert)
        return [added[record.key] for record in records]

    async def aupdate(self, key: str, change: Change) -> None:
        form = await self._form_in_force()
        await self._engine.amodify(self._collection, [key], changing(change, keeps_raw=False, form=form))

    async def amerge_many(self, records: Sequence[Record], merge: Merge) -> None:
        form = await self._form_in_force()
        rows = await in_slices(rows_in_parts(records, keeps_raw=False, form=form))
        change = merging(rows, records, merge, keeps_raw=False, form=form)
        await self._engine.amodify(self._collection, [row[0] for row in rows], change)

    async def atouch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        await self._engine.amodify(self._collection, keys, postponing(expires_at_ms, self._form))

    async def aclear(self, prefix: str) -> None:
        await self._engine.aclear(self._collection, prefix, self._listed(prefix))

    async def apurge(self) -> int:
        return await self._engine.apurge(self._collection, now_ms=now_ms(), limit=sys.maxsize)

    # -- life -----------------------------------------------------------------------------------------------------

    def open(self, *, clear: bool = False) -> None:
        settings = open_collection(self._engine, self._collection, clear=clear, create_keyspace=True, form=self._form)
        _check(self._collection.name, settings, self._form)
        self._see_form(settings)

    def _see_form(self, settings: Settings) -> None:
        self._form, self._has_seen_form = self._form.of_settings(settings), True

    async def _form_in_force(self) -> CollectionForm:
        """Return the form of the collection; with SetupMode.OFF nobody has seen yet whether it has vectors."""
        if self._form.takes_vectors and not self._has_seen_form:
            look = partial(self._engine.settings, self._collection)
            self._see_form(await run_aside(look, "langchain-kv settings"))
        return self._form

    async def aopen(self, *, clear: bool = False) -> None:
        await run_aside(partial(self.open, clear=clear), "langchain-kv open")

    async def aclose(self) -> None:
        # It may wait for calls in flight, also of this loop.
        await run_aside(self.close, "langchain-kv close")


def _check(name: str, in_force: Settings, form: CollectionForm) -> None:
    more = {name: f"'{name}'" for name in ("lexical", "rerank", "schema_version") if name in in_force}
    has_others_vectors = in_force.get("vector") and not form.takes_vectors
    if more and not (has_others_vectors or in_force.get("defaultId")):
        raise DataAPIError.of(
            "EXISTING_COLLECTION_DIFFERENT_SETTINGS",
            f"Collection '{name}' exists with {', '.join(more.values())}, which only the Data API can write: give the"
            " URL of the cluster's Data API (https:...), or choose another name.",
        )
    check_settings(name, in_force, form)


def _alive(rows: Sequence[bytes | BadRow | None]) -> Steps[list[Stored | None]]:
    """Return what is stored in each row and has not expired."""
    now = now_ms()
    found: list[Stored | None] = []
    found_in = finder()
    for some in by_bytes(rows, lambda row: len(row) if isinstance(row, bytes) else 0):
        if found:
            yield
        stored = [
            None if row is None else Damaged(row.reason) if isinstance(row, BadRow) else found_in(row) for row in some
        ]
        found += [one if one is not None and is_alive(one, now) else None for one in stored]
    return found
