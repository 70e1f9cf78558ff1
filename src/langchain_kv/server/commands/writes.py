"""findOneAndReplace, findOneAndDelete, deleteOne, deleteMany."""

from __future__ import annotations

from typing import Any

from langchain_kv.errors import DataAPIError, PartialWriteError
from langchain_kv.limits import DELETE_MANY_MAX
from langchain_kv.server.commands.reply import Reply, storage_failed
from langchain_kv.server.commands.requests import Collection, Request, flag, invalid, wants_after
from langchain_kv.server.documents.documents import Shredded, check_special_fields, shred
from langchain_kv.server.documents.ids import parse_id
from langchain_kv.server.documents.stored import stored_id
from langchain_kv.server.query.filters import Filter
from langchain_kv.server.query.searching import Document, documents, open_search
from langchain_kv.server.update.changing import Changed, change_all, change_one, change_status, changed_document
from langchain_kv.values.json_text import is_rewritten, write

__all__ = ["delete_many", "delete_one", "find_one_and_delete", "find_one_and_replace"]


async def find_one_and_replace(request: Request) -> Reply:
    """Replace one document that matches; with ``upsert`` insert the replacement where none does."""
    is_upsert, after = flag(request.options, "upsert"), wants_after(request)
    if request.fields.get("replacement") is None:
        raise invalid("findOneAndReplace needs the field 'replacement'.")
    search = await open_search(request, limit=1)
    check_special_fields(request.fields["replacement"], search.collection.settings)
    replacement = _Replacement(request.fields["replacement"], search.collection, search.condition)
    outcome = await change_one(search, replacement.of, replacement.of_nothing if is_upsert else None)
    return Reply(await changed_document(search, outcome, after=after), change_status([outcome]))


class _Replacement:
    """The replacement of a request, made into a document for the id that it turns out to be for."""

    def __init__(self, given: Any, collection: Collection, condition: Filter) -> None:
        self._given, self._collection, self._condition = given, collection, condition
        self._made: dict[bytes, Shredded] = {}

    def of(self, body: bytes) -> Changed:
        """Return what becomes of a stored document.

        Raises:
            DataAPIError: the replacement is no valid document, or has another ``_id`` itself.
        """
        new = self._for(stored_id(body))
        is_modified = new.body != body or is_rewritten(new.document)
        return Changed(body, new.body, is_modified)

    def of_nothing(self) -> Changed:
        """Return the document that is inserted where none matches.

        Raises:
            DataAPIError: as ``of``.
        """
        ids_json = self._condition.ids_json
        new = self._for(*(ids_json if len(ids_json) == 1 else ()))
        return Changed(None, new.body, new_id=new.id, upserted=(new.id_json,))

    def _for(self, *id_json: Any) -> Shredded:
        """Return the document for an ``_id``, or without one for its own or a new one."""
        has_own = isinstance(self._given, dict) and "_id" in self._given
        if id_json and has_own and not _is_same_id(id_json[0], self._given["_id"]):
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
    return parse_id(one) == parse_id(other) and isinstance(one, dict) == isinstance(other, dict)


async def find_one_and_delete(request: Request) -> Reply:
    """Delete one document that matches, and send what it was."""
    search = await open_search(request, limit=1)
    outcome = await change_one(search, _deleted)
    return Reply(await changed_document(search, outcome, after=False), {"deletedCount": int(outcome is not None)})


async def delete_one(request: Request) -> Reply:
    """Delete one document that matches."""
    if request.fields.get("filter") is None:
        raise invalid("deleteOne needs the field 'filter'; {} matches any document.")
    outcome = await change_one(await open_search(request, limit=1), _deleted)
    return Reply(status={"deletedCount": int(outcome is not None)})


async def delete_many(request: Request) -> Reply:
    """Delete up to 20 documents that match, and say whether there are more; without a filter, all of them at once."""
    search = await open_search(request, limit=DELETE_MANY_MAX + 1, reads=bool(request.fields.get("filter")))
    if search.condition.is_empty:
        await request.engine.aclear(search.collection.name)
        return Reply(status={"deletedCount": -1})
    found: dict[Any, Document] = {}
    async for document in documents(search):
        found[document[0]] = document
        if len(found) > DELETE_MANY_MAX:
            break
    few = list(found.values())[:DELETE_MANY_MAX]
    try:
        outcomes = await change_all(search, few, _deleted) if few else {}
    except PartialWriteError as error:  # of an engine without atomic_batches: some were deleted
        return Reply(status={"deletedCount": len(error.written)}, errors=[storage_failed(error)])
    status: dict[str, Any] = {"deletedCount": sum(outcome is not None for outcome in outcomes.values())}
    return Reply(status=status | ({"moreData": True} if len(found) > DELETE_MANY_MAX else {}))


def _deleted(body: bytes) -> Changed:
    return Changed(body, None)
