"""findOneAndReplace, findOneAndDelete, deleteOne, deleteMany: atomic by id; filters are checked on what is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from langchain_kv.engines.base import KEEP, DocId, Keep
from langchain_kv.errors import DataAPIError
from langchain_kv.json_text import is_rewritten, write
from langchain_kv.limits import DELETE_MANY_MAX
from langchain_kv.server.documents import Shredded, check_special_fields, shred, stored_id
from langchain_kv.server.filters import Filter, read_filter
from langchain_kv.server.ids import read_id
from langchain_kv.server.paging import matching_documents
from langchain_kv.server.projection import read_projection
from langchain_kv.server.reads import first_match
from langchain_kv.server.reply import Reply, document_data
from langchain_kv.server.requests import Collection, Request, flag, invalid, no_options, options
from langchain_kv.server.sorting import check_sort

__all__ = ["delete_many", "delete_one", "find_one_and_delete", "find_one_and_replace"]

_ATTEMPTS: Final = 4
"""How often a document is looked for anew when another writer was faster (the Data API's own number)."""


class _Seen(NamedTuple):
    """What a change of one document saw and left; as it stands: no document matched, and nothing was changed.

    Attributes:
        before: the document that matched, or None.
        after: the document that is stored now, or None.
        is_modified: whether the Data API would call it changed.
        upserted: the ``_id`` of the document that was inserted, where one was.
    """

    before: bytes | None = None
    after: bytes | None = None
    is_modified: bool = False
    upserted: tuple[Any, ...] = ()


Act = Callable[[bytes | None], tuple[bytes | Keep | None, _Seen]]
"""Sees the document that matched, or None where one is to be inserted; answers what to store, and what to report."""


async def find_one_and_replace(request: Request) -> Reply:
    """Replace one document that matches; with ``upsert`` insert the replacement where none does."""
    given = options(request, ("returnDocument", "upsert"))
    is_upsert, wanted = flag(given, "upsert"), given.get("returnDocument")
    if wanted not in (None, "before", "after"):
        raise invalid("The option 'returnDocument' is 'before' or 'after'.")
    if request.fields.get("replacement") is None:
        raise invalid("findOneAndReplace needs the field 'replacement'.")
    check_special_fields(request.fields["replacement"])
    collection, condition = await _collection_and_filter(request)
    projection = read_projection(request.fields.get("projection"))
    replacement = _Replacement(request.fields["replacement"], collection)

    def replace(before: bytes | None) -> tuple[bytes | Keep, _Seen]:
        if before is None:
            new = replacement.of(*_only_id(condition))
            return new.body, _Seen(after=new.body, upserted=(new.id_json,))
        new = replacement.of(stored_id(before))
        is_modified = new.body != before or is_rewritten(new.document)
        return (KEEP if new.body == before else new.body), _Seen(before, new.body, is_modified)

    new_id = (lambda: replacement.of(*_only_id(condition)).id) if is_upsert else None
    seen = await _change_one(request, collection, condition, replace, new_id)
    body = seen.after if wanted == "after" else seen.before
    status: dict[str, Any] = {"upsertedId": seen.upserted[0]} if seen.upserted else {}
    status |= {"matchedCount": int(seen.before is not None), "modifiedCount": int(seen.is_modified)}
    return Reply(document_data(None if body is None else projection.apply(body)), status)


class _Replacement:
    """The replacement of a request, made into a document for the id that it turns out to be for."""

    def __init__(self, given: Any, collection: Collection) -> None:
        self._given, self._collection = given, collection
        self._made: dict[bytes, Shredded] = {}

    @property
    def id_json(self) -> tuple[Any, ...]:
        """The ``_id`` that the replacement itself has, if any."""
        return (self._given["_id"],) if isinstance(self._given, dict) and "_id" in self._given else ()

    def of(self, *id_json: Any) -> Shredded:
        """Return the document for an ``_id``, or without one for a new id.

        Raises:
            DataAPIError: it is no valid document, or has another ``_id`` itself.
        """
        if id_json and self.id_json and not _is_same_id(id_json[0], self.id_json[0]):
            raise DataAPIError.of(
                "DOCUMENT_REPLACE_DIFFERENT_DOCID",
                "The replacement has another '_id' than the document it replaces: leave the '_id' out of it.",
            )
        key = write(id_json[0]) if id_json else b""
        if key not in self._made:
            given = {"_id": id_json[0], **self._given} if id_json and isinstance(self._given, dict) else self._given
            self._made[key] = shred(given, self._collection.settings, self._collection.indexing)
        return self._made[key]


def _is_same_id(one: Any, other: Any) -> bool:
    """Whether two ids are the same, their form included: a UUID and its plain text are not."""
    return read_id(one) == read_id(other) and isinstance(one, dict) == isinstance(other, dict)


async def find_one_and_delete(request: Request) -> Reply:
    """Delete one document that matches, and send what it was."""
    collection, condition = await _collection_and_filter(request)
    projection = read_projection(request.fields.get("projection"))
    seen = await _change_one(request, collection, condition, _delete)
    document = None if seen.before is None else projection.apply(seen.before)
    return Reply(document_data(document), {"deletedCount": int(seen.before is not None)})


async def delete_one(request: Request) -> Reply:
    """Delete one document that matches."""
    no_options(request)
    if request.fields.get("filter") is None:
        raise invalid("deleteOne needs the field 'filter'; {} matches any document.")
    collection, condition = await _collection_and_filter(request)
    seen = await _change_one(request, collection, condition, _delete)
    return Reply(status={"deletedCount": int(seen.before is not None)})


async def delete_many(request: Request) -> Reply:
    """Delete up to 20 documents that match, and say whether there are more; without a filter, all of them at once."""
    no_options(request)
    collection, condition = await _collection_and_filter(request)
    engine = request.engine
    if condition.is_empty:
        await engine.bridge.write(engine.clear, collection.name)
        return Reply(status={"deletedCount": -1})
    ids: list[DocId] = list(dict.fromkeys(condition.ids or ()))
    if condition.ids is None:
        async for document_id, _ in matching_documents(request, collection, condition):
            ids.append(document_id)
            if len(ids) > DELETE_MANY_MAX:
                break
    matched: dict[DocId, bool] = {}

    def delete(document_id: DocId, body: bytes | None) -> Keep | None:
        matched.pop(document_id, None)  # a repeated call forgets what the first one saw
        is_one_of_few = sum(matched.values()) < DELETE_MANY_MAX
        matched[document_id] = body is not None and condition.matches(body)
        return None if matched[document_id] and is_one_of_few else KEEP

    if ids:
        await engine.bridge.write(engine.modify, collection.name, ids, delete)
    count = sum(matched.values())
    status: dict[str, Any] = {"deletedCount": min(count, DELETE_MANY_MAX)}
    # Where the search was cut short, there may be more even if others deleted some of what it found.
    if count > DELETE_MANY_MAX or (condition.ids is None and len(ids) > DELETE_MANY_MAX):
        status["moreData"] = True
    return Reply(status=status)


async def _collection_and_filter(request: Request) -> tuple[Collection, Filter]:
    collection = await request.collection()
    condition = read_filter(request.fields.get("filter"), collection.indexing)
    check_sort(request.fields.get("sort"), collection.indexing)
    return collection, condition


def _delete(before: bytes | None) -> tuple[None, _Seen]:
    return None, _Seen(before)


def _only_id(condition: Filter) -> tuple[Any, ...]:
    """Return the one ``_id`` that can match, if the filter names exactly one."""
    return tuple(condition.ids_json) if len(condition.ids_json) == 1 else ()


async def _change_one(
    request: Request,
    collection: Collection,
    condition: Filter,
    act: Act,
    new_id: Callable[[], DocId] | None = None,
) -> _Seen:
    """Apply ``act`` to one document that matches, in one step with seeing that it does.

    Args:
        request: for its engine.
        collection: where to look.
        condition: what to look for.
        act: what to do; it may be called more than once.
        new_id: the id to insert at where nothing matches; None inserts nothing.

    Raises:
        DataAPIError: FAILED_CONCURRENT_OPERATIONS where other writers were faster four times in a row.
    """
    names_one = condition.ids is not None and len(condition.ids) == 1
    for _ in range(_ATTEMPTS):
        target = condition.ids[0] if names_one and condition.ids else await _find_id(request, collection, condition)
        is_new = target is None
        if target is None:
            if new_id is None:
                return _Seen()
            target = new_id()
        may_insert = new_id is not None and (names_one or is_new)
        seen: list[_Seen] = []

        def change(_: DocId, body: bytes | None, seen: list[_Seen] = seen, may_insert: bool = may_insert) -> Any:
            seen.clear()
            if (not may_insert) if body is None else (not condition.matches(body)):
                return KEEP
            new, report = act(body)
            seen.append(report)
            return new

        await request.engine.bridge.write(request.engine.modify, collection.name, [target], change)
        if seen or names_one:
            return seen[0] if seen else _Seen()
    raise DataAPIError.of(
        "FAILED_CONCURRENT_OPERATIONS", f"Other writers changed the document {_ATTEMPTS} times in a row: try again."
    )


async def _find_id(request: Request, collection: Collection, condition: Filter) -> DocId | None:
    body = await first_match(request, collection, condition)
    return None if body is None else read_id(stored_id(body))
