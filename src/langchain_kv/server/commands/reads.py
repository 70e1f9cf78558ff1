"""find, findOne, countDocuments, estimatedDocumentCount."""

from __future__ import annotations

from contextlib import aclosing
from decimal import Decimal
from typing import Any

from langchain_kv.engines.base import CollectionName, DocId
from langchain_kv.engines.vectors import VECTOR, numbers_of, spelled
from langchain_kv.errors import DataAPIError
from langchain_kv.limits import COUNT_MAX, PAGE_SIZE, VECTOR_SEARCH_MAX
from langchain_kv.server.commands.reply import Reply, document_data, documents_data
from langchain_kv.server.commands.requests import Request, flag, invalid, mismatch
from langchain_kv.server.documents.stored import is_unparseable, unparseable
from langchain_kv.server.pacing import Turns, do
from langchain_kv.server.query.paging import Position, page_state, parse_position
from langchain_kv.server.query.searching import (
    REPLY_BYTES,
    Document,
    Search,
    documents,
    first_document,
    nearest_documents,
    open_search,
    picked_ids,
    read_again,
)
from langchain_kv.server.query.sorting import Sort, VectorSort

__all__ = ["count_documents", "estimated_document_count", "find", "find_one"]

_FLAGS = ("includeSimilarity", "includeSortVector")


async def find(request: Request) -> Reply:
    """Send a page of the documents that match."""
    given = request.options
    limit, skip = _whole_number(given, "limit"), _whole_number(given, "skip")
    errors = _refusals(request, limit, skip)
    if errors:
        return Reply(errors=errors)
    _check_flags(given)
    state = page_state(given)
    # With a sort any is refused, whatever it says.
    start = parse_position("" if request.fields.get("sort") else state)
    left = None if limit is None else max(0, limit - start.sent)
    size = PAGE_SIZE if left is None else min(left, PAGE_SIZE)
    search = await open_search(request, after=start.after, limit=size)
    if search.sort is not None:
        if state:
            raise DataAPIError.of(
                "SORT_CLAUSE_INVALID", "A sorted result has one page: leave out 'pageState', or the sort."
            )
        if isinstance(search.sort, VectorSort):
            near, status = await _nearest(search, search.sort, VECTOR_SEARCH_MAX if limit is None else limit)
            return Reply(documents_data(near, None), status)
        return await _sorted(search, search.sort, skip or 0, size)
    status = _sort_vector(search)
    found = []
    damaged: dict[DocId, DataAPIError] = {}
    is_scan = search.condition.ids is None
    most, is_full = size if is_scan else limit, False
    size_bytes = 0
    async with aclosing(documents(search, damaged)) as matching:
        async for document in matching:
            found.append(document)
            size_bytes += len(document[1])
            is_full = len(found) == most or (is_scan and size_bytes >= REPLY_BYTES)
            if is_full:
                break
    following = None
    # A full page means "may be more": a result of exactly one page is followed by an empty one, as on the Data API.
    if is_scan and is_full and len(found) != left and not status:
        following = Position(start.sent + len(found), found[-1][0]).as_page_state()
    turns = Turns()
    bodies = [
        _projected(search, document, damaged)
        if turns.is_mine(len(document[1]))
        else await turns.do(len(document[1]), _projected, search, document, damaged)
        for document in found
    ]
    return Reply(documents_data(filter(None, bodies), following), status, list(damaged.values()))


def _projected(search: Search, document: Document, damaged: dict[DocId, DataAPIError]) -> bytes | None:
    """Return what is to be sent of a document; None where it is no JSON, which is an error of its own."""
    try:
        return search.projection.apply(document[1])
    except DataAPIError as error:
        if not is_unparseable(error):
            raise
        damaged[document[0]] = unparseable(document[0])
        return None


async def _sorted(search: Search, sort: Sort, skip: int, size: int) -> Reply:
    """Send the one page that a sorted result has: its documents are read again, once it is known which they are."""
    ids = (await picked_ids(search, sort, skip + size))[skip:]
    turns = Turns()
    found = [await turns.do(len(body), search.projection.apply, body) for body in await read_again(search, ids)]
    return Reply(documents_data(found, None), _sort_vector(search))


async def _nearest(search: Search, sort: VectorSort, count: int) -> tuple[list[bytes], dict[str, Any]]:
    """Return what is sent of the documents with the most similar vectors, and the status."""
    has_similarity = flag(search.request.options, "includeSimilarity")
    turns = Turns()
    bodies = []
    for document in await nearest_documents(search, sort, count):
        body = await turns.do(len(document.body), search.projection.apply, document.body)
        bodies.append(_with_similarity(body, document.similarity) if has_similarity else body)
    return bodies, _sort_vector(search)


def _sort_vector(search: Search) -> dict[str, Any]:
    """Return the status that ``includeSortVector`` asks for: null without a sort by vector."""
    if not flag(search.request.options, "includeSortVector"):
        return {}
    if not isinstance(search.sort, VectorSort):
        return {"sortVector": None}
    return {"sortVector": [Decimal(spelled(number)) for number in numbers_of(search.sort.vector)]}


def _with_similarity(body: bytes, similarity: float) -> bytes:
    return b'%b%b"$similarity":%b}' % (body[:-1], b"," if len(body) > 2 else b"", spelled(similarity).encode())


async def find_one(request: Request) -> Reply:
    """Send one document that matches, or null."""
    _check_flags(request.options)
    search = await open_search(request, limit=1)
    if isinstance(search.sort, VectorSort):
        bodies, status = await _nearest(search, search.sort, 1)
        return Reply(document_data(bodies[0] if bodies else None), status)
    status = _sort_vector(search)
    found = await first_document(search)
    if found is None:
        return Reply(document_data(None), status)
    damaged: dict[DocId, DataAPIError] = {}
    body = await do(len(found[1]), _projected, search, found, damaged)
    return Reply(None if damaged else document_data(body), status, list(damaged.values()))


async def count_documents(request: Request) -> Reply:
    """Count the documents that match, up to 1,000."""
    search = await open_search(request, limit=COUNT_MAX + 1, reads=bool(request.fields.get("filter")))
    if search.condition.is_empty:
        count = await request.engine.acount(search.collection.name, limit=COUNT_MAX + 1)
    else:
        ids = set()
        async with aclosing(documents(search)) as matching:
            async for document_id, _ in matching:
                ids.add(document_id)
                if len(ids) > COUNT_MAX:
                    break
        count = len(ids)
    return Reply(status={"count": COUNT_MAX, "moreData": True} if count > COUNT_MAX else {"count": count})


async def estimated_document_count(request: Request) -> Reply:
    """Count the documents: here, exactly."""
    count = await request.engine.acount(CollectionName(*request.path))
    return Reply(status={"count": count})


def _refusals(request: Request, limit: int | None, skip: int | None) -> list[DataAPIError]:
    errors = []
    if limit is not None and limit <= 0:
        errors.append(invalid("The option 'limit' is at least 1: leave it out for no limit."))
    if skip is not None and skip < 0:
        errors.append(invalid("The option 'skip' is at least 0."))
    if skip is not None and request.fields.get("sort") is None:
        errors.append(invalid("The option 'skip' needs a 'sort': without one, documents have no order to skip in."))
    sort = request.fields.get("sort")
    if isinstance(sort, dict) and VECTOR in sort:  # of what is wrong with a search the Data API tells the first
        if skip is not None:
            errors.append(invalid("The option 'skip' cannot be used in a search by vector: leave it out."))
        elif limit is not None and limit > VECTOR_SEARCH_MAX:
            errors.append(invalid(f"The option 'limit' is at most {VECTOR_SEARCH_MAX:,} in a search by vector."))
    return errors


def _whole_number(given: dict[str, Any], name: str) -> int | None:
    """Return a numeric option, cut to an integer as the Data API does."""
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not -(2**31) <= value < 2**31:
        raise mismatch(f"The option '{name}' is an integer of at most 2147483647.")
    return int(value)


def _check_flags(given: dict[str, Any]) -> None:
    for name in _FLAGS:
        flag(given, name)
