"""find, findOne, countDocuments, estimatedDocumentCount."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from langchain_kv.engines.base import CollectionName
from langchain_kv.limits import COUNT_MAX, PAGE_SIZE
from langchain_kv.server.filters import Filter, read_filter
from langchain_kv.server.paging import Position, matching_documents, matching_page, read_page_state
from langchain_kv.server.projection import read_projection
from langchain_kv.server.reply import Reply, document_data, documents_data
from langchain_kv.server.requests import Collection, Request, flag, invalid, mismatch, no_options, options
from langchain_kv.server.sorting import check_sort

__all__ = ["count_documents", "estimated_document_count", "find", "find_one", "first_match"]

_ONE_OPTIONS = ("includeSimilarity", "includeSortVector")
_FIND_OPTIONS = ("limit", "skip", "pageState", "pagingState", *_ONE_OPTIONS)


async def find(request: Request) -> Reply:
    """Send a page of the documents that match."""
    given = options(request, _FIND_OPTIONS)
    errors = []
    limit, skip = _whole_number(given, "limit"), _whole_number(given, "skip")
    if limit is not None and limit <= 0:
        errors.append(invalid("The option 'limit' is at least 1: leave it out for no limit."))
    if skip is not None and skip < 0:
        errors.append(invalid("The option 'skip' is at least 0."))
    if skip is not None and not request.fields.get("sort"):
        errors.append(invalid("The option 'skip' needs a 'sort': without one, documents have no order to skip in."))
    if errors:
        return Reply(errors=errors)
    _check_flags(given)
    start = _start(given)
    collection = await request.collection()
    condition = read_filter(request.fields.get("filter"), collection.indexing)
    check_sort(request.fields.get("sort"), collection.indexing)
    projection = read_projection(request.fields.get("projection"))
    if condition.ids is not None:
        bodies = (await _by_ids(request, collection, condition))[:limit]
        return Reply(documents_data(map(projection.apply, bodies), None))
    left = None if limit is None else max(0, limit - start.sent)
    size = PAGE_SIZE if left is None else min(left, PAGE_SIZE)
    documents, has_more = await matching_page(request, collection, condition, start, size) if size else ([], False)
    state = None
    if has_more and len(documents) != left:
        state = Position(start.sent + len(documents), documents[-1][0]).as_page_state()
    return Reply(documents_data((projection.apply(body) for _, body in documents), state))


async def find_one(request: Request) -> Reply:
    """Send one document that matches, or null."""
    _check_flags(options(request, _ONE_OPTIONS))
    collection = await request.collection()
    condition = read_filter(request.fields.get("filter"), collection.indexing)
    check_sort(request.fields.get("sort"), collection.indexing)
    projection = read_projection(request.fields.get("projection"))
    found = await first_match(request, collection, condition)
    return Reply(document_data(None if found is None else projection.apply(found)))


async def first_match(request: Request, collection: Collection, condition: Filter) -> bytes | None:
    """Return the body of a document that matches, or None."""
    if condition.ids is not None:
        return next(iter(await _by_ids(request, collection, condition)), None)
    async for _, body in matching_documents(request, collection, condition, limit=1):
        return body
    return None


async def count_documents(request: Request) -> Reply:
    """Count the documents that match, up to 1,000."""
    no_options(request)
    collection = await request.collection()
    condition = read_filter(request.fields.get("filter"), collection.indexing)
    engine = request.engine
    if condition.ids is not None:
        count = len(await _by_ids(request, collection, condition._replace(ids=list(dict.fromkeys(condition.ids)))))
    elif condition.test is None:
        count = await engine.bridge.read(engine.count, collection.name, limit=COUNT_MAX + 1)
    else:
        count = 0
        async for _ in matching_documents(request, collection, condition):
            count += 1
            if count > COUNT_MAX:
                break
    return Reply(status={"count": COUNT_MAX, "moreData": True} if count > COUNT_MAX else {"count": count})


async def estimated_document_count(request: Request) -> Reply:
    """Count the documents: here, exactly."""
    no_options(request)
    count = await request.engine.bridge.read(request.engine.count, CollectionName(*request.path))
    return Reply(status={"count": count})


async def _by_ids(request: Request, collection: Collection, condition: Filter) -> list[bytes]:
    """Return the bodies of the filter's ids that match, in its order; a repeated id repeats."""
    ids = list(condition.ids or ())
    bodies = await request.engine.bridge.read(request.engine.read, collection.name, ids) if ids else []
    return [body for body in bodies if body is not None and condition.matches(body)]


def _start(given: dict[str, Any]) -> Position:
    state = given.get("pageState")
    if state is None:
        state = given.get("pagingState")  # the older name
    if state is None or state == "":
        return Position()
    if not isinstance(state, str):
        raise mismatch("The option 'pageState' is the text that a page before held as 'nextPageState'.")
    return read_page_state(state)


def _whole_number(given: dict[str, Any], name: str) -> int | None:
    """Return a numeric option, cut to an integer as the Data API does."""
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not -(2**31) <= value < 2**31:
        raise mismatch(f"The option '{name}' is an integer of at most 2147483647.")
    return int(value)


def _check_flags(given: dict[str, Any]) -> None:
    for name in _ONE_OPTIONS:
        flag(given, name)
