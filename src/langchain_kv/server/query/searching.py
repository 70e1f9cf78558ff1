"""What a command looks for, and going through a collection for it page by page.

A search is opened in one hop to the engine: the collection is looked up, the command's fields are checked against it,
and what has to be read first is read. Later pages are each a hop, so that other requests pass in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final, NamedTuple, TypeGuard

from langchain_kv.engines.base import CollectionName, DocId, Engine, Row
from langchain_kv.engines.indexing import Indexing
from langchain_kv.engines.pages import PAGE_BYTES, PAGE_DOCUMENTS, is_last
from langchain_kv.engines.rows import document_of
from langchain_kv.errors import DataAPIError
from langchain_kv.server.commands.requests import Collection, Request
from langchain_kv.server.documents.stored import is_unparseable, unparseable
from langchain_kv.server.pacing import Turns
from langchain_kv.server.query.filters import Filter, parse_filter
from langchain_kv.server.query.projection import Projection, parse_projection
from langchain_kv.server.query.sorting import Picker, Sort, VectorSort, parse_sort

__all__ = [
    "REPLY_BYTES",
    "Document",
    "NearDocument",
    "Search",
    "documents",
    "first_document",
    "nearest_documents",
    "open_search",
    "picked_ids",
    "read_again",
]

REPLY_BYTES: Final = 8 * 1024 * 1024
"""Bytes of documents after which a page that is sent ends, however few they are."""

_FIRST_PAGE: Final = 20
"""Documents of the first page where most may not match, and one may be enough."""

Document = tuple[DocId, bytes]


class Search(NamedTuple):
    """What a command looks for, checked.

    Attributes:
        request: the command.
        collection: where it looks.
        condition: its field ``filter``.
        sort: its field ``sort``; None without one. With one by vector nothing is read yet.
        projection: its field ``projection``.
        found: the documents of the filter's ids, in its order, repeats repeated; or the first page of a scan.
        after: the id after which a scan begins.
        is_all: whether nothing comes after what was found.
    """

    request: Request
    collection: Collection
    condition: Filter
    sort: Sort | VectorSort | None
    projection: Projection
    found: Sequence[Document]
    after: DocId | None
    is_all: bool


async def open_search(
    request: Request, *, after: DocId | None = None, limit: int = PAGE_DOCUMENTS, reads: bool = True
) -> Search:
    """Check what a command looks for, and read what it needs first.

    Args:
        request: the command.
        after: where a scan is to begin.
        limit: how many documents the caller will take at most.
        reads: whether to read at all; False only checks.

    Raises:
        DataAPIError: there is no such collection, or a code of a filter, a sort or a projection.
    """
    wanted = request.fields.get("filter")
    is_short = not reads or (isinstance(wanted, dict) and isinstance(wanted.get("_id"), str))
    bridge = request.engine.bridge
    return await (bridge.read_short if is_short else bridge.read)(_open, request, after, limit, reads)


def _open(request: Request, after: DocId | None, limit: int, reads: bool) -> Search:
    wanted = request.fields.get("filter")
    if reads and isinstance(wanted, dict) and len(wanted) == 1 and _is_plain(only := wanted.get("_id")):
        return _open_one(request, only, after)
    collection = request.read_collection()
    condition = parse_filter(request.fields.get("filter"), collection.indexing)
    sort = parse_sort(request.fields.get("sort"), collection)
    projection = parse_projection(request.fields.get("projection"), has_vectors="vector" in collection.settings)
    found: Sequence[Document] = ()
    is_all = True
    reads = reads and not isinstance(sort, VectorSort)
    if reads and condition.ids is not None:
        rows = request.engine.read(collection.name, condition.ids) if condition.ids else []
        found = [_document(row) for row in rows if row is not None]
    elif reads and limit:
        is_for_all = condition.test is None and sort is None
        size = min(limit, PAGE_DOCUMENTS) if is_for_all else _FIRST_PAGE
        size_bytes = REPLY_BYTES if is_for_all else PAGE_BYTES
        found, is_all = _scan(
            request.engine, collection.name, condition, after=after, limit=size, size_bytes=size_bytes
        )
    return Search(request, collection, condition, sort, projection, found, after, is_all)


def _is_plain(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value != "" and value.isascii()


def _open_one(request: Request, wanted: str, after: DocId | None) -> Search:
    """Open the usual search, for the document of one ``_id``, in one call to the engine."""
    name = CollectionName(*request.path)
    settings, (row,) = request.engine.read_with_settings(name, [wanted])
    collection = Collection(name, settings, Indexing.of(settings))
    condition = Filter(False, [wanted], [wanted])
    sort = parse_sort(request.fields.get("sort"), collection)
    projection = parse_projection(request.fields.get("projection"), has_vectors="vector" in settings)
    found = [] if row is None else [_document(row)]
    return Search(request, collection, condition, sort, projection, found, after, True)


async def documents(search: Search, damaged: dict[DocId, DataAPIError] | None = None) -> AsyncGenerator[Document, None]:
    """Yield the documents that match: those of the filter's ids in its order, others in that of the engine's scans.

    Args:
        search: what to look for.
        damaged: takes the errors of those of which nobody can tell, because they are no JSON; None raises the first.
    """
    page, is_all = search.found, search.is_all
    engine = search.request.engine
    turns = Turns()
    is_for_all = search.condition.test is None
    while True:
        for document in page:
            if is_for_all or turns.is_mine(len(document[1])):
                is_match = _is_match(search, document, damaged)
            else:
                is_match = await turns.do(len(document[1]), _is_match, search, document, damaged)
            if is_match:
                yield document
        if is_all:
            return
        await asyncio.sleep(0)  # an engine that answers at once would leave the loop no room
        after, size, size_bytes = page[-1][0], PAGE_DOCUMENTS, PAGE_BYTES
        where = {"after": after, "limit": size, "size_bytes": size_bytes}
        page, is_all = await engine.bridge.read(_scan, engine, search.collection.name, search.condition, **where)


def _scan(
    engine: Engine, collection: CollectionName, condition: Filter, *, after: DocId | None, limit: int, size_bytes: int
) -> tuple[list[Document], bool]:
    """Return the next documents that may match, and whether no more can come."""
    if condition.listed:
        field, text = condition.listed
        rows = engine.scan_listed(collection, field, text, after=after, limit=limit, size_bytes=size_bytes)
    else:
        rows = engine.scan(collection, after=after, limit=limit, size_bytes=size_bytes)
    return [_document(row) for row in rows], is_last(rows, limit, size_bytes)


def _document(row: Row) -> Document:
    return row[0], document_of(row)


def _is_match(search: Search, document: Document, damaged: dict[DocId, DataAPIError] | None) -> bool:
    try:
        return search.condition.matches(document[1])
    except DataAPIError as error:
        if not is_unparseable(error):
            raise
        named = unparseable(document[0])
        if damaged is None:
            raise named from None
        damaged[document[0]] = named
        return False


async def picked_ids(search: Search, sort: Sort, count: int) -> list[DocId]:
    """Return the ids of the first ``count`` documents that match, in the order of a sort.

    Raises:
        DataAPIError: OVERLOADED_SORT_ROW_LIMIT.
    """
    picker = Picker(sort, count)
    turns = Turns()
    async for document_id, body in documents(search):
        try:
            if turns.is_mine(len(body)):
                picker.add(document_id, body)
            else:
                await turns.do(len(body), picker.add, document_id, body)
        except DataAPIError as error:
            raise unparseable(document_id) if is_unparseable(error) else error from None
    return picker.picked()


async def first_document(search: Search) -> Document | None:
    """Return the first document that matches, in the order of the sort if there is one."""
    if isinstance(search.sort, VectorSort):
        nearest = await nearest_documents(search, search.sort, 1)
        return (nearest[0].id, nearest[0].body) if nearest else None
    if search.condition.test is None and search.condition.ids is not None and search.sort is None:
        return search.found[0] if search.found else None
    if search.sort is None:
        async with aclosing(documents(search)) as found:
            return await anext(found, None)
    while ids := await picked_ids(search, search.sort, 1):
        bodies = await read_again(search, ids)
        if bodies:
            return ids[0], bodies[0]
        search = await open_search(search.request)  # another writer took it away: look anew
    return None


class NearDocument(NamedTuple):
    """A document that was found by its vector.

    Attributes:
        id: its identity.
        body: its text.
        similarity: how similar its vector is, a float32.
    """

    id: DocId
    body: bytes
    similarity: float


async def nearest_documents(search: Search, sort: VectorSort, count: int) -> list[NearDocument]:
    """Return the documents that match whose vectors are most similar, at most ``count``, most similar first."""
    engine, condition = search.request.engine, search.condition

    def is_match(row: Row) -> bool:
        return _is_match(search, _document(row), None)

    if condition.listed and condition.ids is None:
        found = await engine.bridge.read_long(
            engine.nearest_listed, search.collection.name, sort.vector, condition.listed, limit=count, where=is_match
        )
        return [NearDocument(*_document(row), similarity) for row, similarity in found]
    where = None if condition.test is None else is_match
    found = await engine.bridge.read_long(
        engine.nearest, search.collection.name, sort.vector, limit=count, ids=condition.ids, where=where
    )
    return [NearDocument(*_document(row), similarity) for row, similarity in found]


async def read_again(search: Search, ids: Sequence[DocId]) -> list[bytes]:
    """Return the bodies of documents that were found, in order, without those that do not match any more."""
    rows = await search.request.engine.aread(search.collection.name, ids) if ids else []
    bodies = [document_of(row) for row in rows if row is not None]
    turns = Turns()
    return [body for body in bodies if await turns.do(len(body), search.condition.matches, body)]
