"""updateOne, updateMany, findOneAndUpdate."""

from __future__ import annotations

from functools import partial
from typing import Any

from langchain_kv.engines.vectors import VECTOR
from langchain_kv.limits import UPDATE_MANY_MAX
from langchain_kv.server.commands.reply import Reply
from langchain_kv.server.commands.requests import Request, flag, wants_after
from langchain_kv.server.documents.vectors import no_vectors
from langchain_kv.server.query.paging import Position, page_state, parse_position
from langchain_kv.server.query.searching import Search, documents, open_search
from langchain_kv.server.update.changing import (
    Act,
    Changed,
    Make,
    change_all,
    change_one,
    change_status,
    changed_document,
)
from langchain_kv.server.update.updating import check_update, parse_update

__all__ = ["find_one_and_update", "update_many", "update_one"]


async def update_one(request: Request) -> Reply:
    """Update one document that matches; with ``upsert`` insert one where none does."""
    _, outcome = await _update_one(request)
    return Reply(status=change_status([outcome]))


async def find_one_and_update(request: Request) -> Reply:
    """As updateOne, and send what the document was, or is."""
    after = wants_after(request)
    search, outcome = await _update_one(request)
    return Reply(await changed_document(search, outcome, after=after), change_status([outcome]))


async def update_many(request: Request) -> Reply:
    """Update up to 50 documents that match, and say where to go on; those of an ``$in`` all at once."""
    is_upsert, start = flag(request.options, "upsert"), parse_position(page_state(request.options))
    definition = check_update(request)
    search = await open_search(request, after=start.after, limit=UPDATE_MANY_MAX)
    act, make = _parse_update(search, definition)
    found = []
    is_limited = search.condition.ids is None
    async for document in documents(search):
        found.append(document)
        if is_limited and len(found) == UPDATE_MANY_MAX:
            break
    if not found and is_upsert and start.after is None:
        return Reply(status=change_status([await change_one(search, act, make)]))
    status = change_status((await change_all(search, found, act)).values() if found else [])
    if is_limited and len(found) == UPDATE_MANY_MAX:
        status |= {"moreData": True, "nextPageState": Position(0, found[-1][0]).as_page_state()}
    return Reply(status=status)


async def _update_one(request: Request) -> tuple[Search, Changed | None]:
    is_upsert = flag(request.options, "upsert")
    definition = check_update(request)
    search = await open_search(request, limit=1)
    act, make = _parse_update(search, definition)
    return search, await change_one(search, act, make if is_upsert else None)


def _parse_update(search: Search, definition: dict[str, dict[str, Any]]) -> tuple[Act, Make]:
    update = parse_update(definition)
    sets = any(VECTOR in definition.get(operator, {}) for operator in ("$set", "$setOnInsert"))
    if sets and "vector" not in search.collection.settings:
        raise no_vectors(VECTOR)
    return partial(update.of, collection=search.collection), partial(
        update.of_nothing, search.condition, search.collection
    )
