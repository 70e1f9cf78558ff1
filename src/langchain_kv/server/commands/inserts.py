"""insertOne and insertMany: each is one batch of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from langchain_kv.engines.base import KEEP, DocId, Keep
from langchain_kv.engines.rows import of_documents
from langchain_kv.errors import DataAPIError, PartialWriteError, StoreError
from langchain_kv.limits import INSERT_MANY_MAX
from langchain_kv.server.commands.reply import Reply, storage_failed
from langchain_kv.server.commands.requests import Collection, Request, flag, invalid, mismatch
from langchain_kv.server.documents.documents import Shredded, check_special_fields, new_id_of, shred
from langchain_kv.server.documents.ids import parse_id

__all__ = ["insert_many", "insert_one"]

Insertion = Shredded | DataAPIError | None
"""Of one document of a request: what was inserted, why it was not, or None where it was not tried."""


async def insert_one(request: Request) -> Reply:
    """Insert a document whose id is not there yet."""
    if "document" not in request.fields:
        raise invalid("insertOne needs the field 'document'.")
    collection = await request.collection()
    outcomes = await _insert(request, collection, [request.fields["document"]], is_ordered=True)
    return _reply(outcomes)


async def insert_many(request: Request) -> Reply:
    """Insert up to 100 documents; with ``ordered``, up to the first that cannot be."""
    documents = request.fields.get("documents")
    needed = f"insertMany needs the field 'documents', a list of 1 to {INSERT_MANY_MAX} documents"
    if documents is None:  # the Data API says it twice: it is null, and it is empty
        return Reply(errors=(invalid(needed + ": it is missing."), invalid(needed + ".")))
    if not isinstance(documents, list):
        raise mismatch(needed + ".")
    if not 1 <= len(documents) <= INSERT_MANY_MAX:
        raise invalid(f"{needed}, and has {len(documents)}: send them in several requests.")
    is_ordered, has_responses = flag(request.options, "ordered"), flag(request.options, "returnDocumentResponses")
    collection = await request.collection()
    outcomes = await _insert(request, collection, documents, is_ordered=is_ordered)
    return _reply_with_responses(documents, outcomes, collection) if has_responses else _reply(outcomes)


async def _insert(
    request: Request, collection: Collection, documents: Sequence[Any], *, is_ordered: bool
) -> list[Insertion]:
    """Insert what can be inserted, and return the outcome of each document, in order."""
    for document in documents:
        check_special_fields(document, collection.settings)
    outcomes: list[Insertion] = []
    new: dict[DocId, Shredded] = {}
    for document in documents:
        outcome: Insertion = _try_shred(document, collection, new)
        outcomes.append(outcome)
        if isinstance(outcome, Shredded):
            new[outcome.id] = outcome
        elif is_ordered:
            break
    existed: dict[DocId, bool] = {}
    failures: dict[DocId, StoreError] = {}
    try:
        await _write_new(request, collection, new, existed, is_ordered=is_ordered)
    except PartialWriteError as error:  # of an engine without atomic_batches: some were inserted
        failures = {
            doc_id: error.errors[doc_id] for doc_id in new if isinstance(doc_id, str) and doc_id in error.errors
        }
        if is_ordered or len(failures) < len(error.errors):
            raise
    for position, tried in enumerate(outcomes):
        if isinstance(tried, Shredded) and tried.id in failures:
            outcomes[position] = storage_failed(failures[tried.id], (tried.id_json,))
        elif isinstance(tried, Shredded) and existed[tried.id]:
            outcomes[position] = _already_exists(tried.id_json)
    if is_ordered:
        done = sum(1 for _ in takewhile(lambda outcome: isinstance(outcome, Shredded), outcomes))
        outcomes[done + 1 :] = []
    return outcomes + [None] * (len(documents) - len(outcomes))


def _try_shred(document: Any, collection: Collection, earlier: dict[DocId, Shredded]) -> Shredded | DataAPIError:
    """Return what can be stored, or why not; of an id that the request names twice, the first is tried."""
    try:
        shredded = shred(document, collection.settings, collection.indexing)
    except DataAPIError as error:
        return error
    return _already_exists(shredded.id_json) if shredded.id in earlier else shredded


async def _write_new(
    request: Request,
    collection: Collection,
    documents: dict[DocId, Shredded],
    existed: dict[DocId, bool],
    *,
    is_ordered: bool,
) -> None:
    """Store the documents whose ids are not there, as one batch; note in ``existed`` which ids were."""
    position = {document_id: index for index, document_id in enumerate(documents)}
    stops: set[int] = set()  # where an ordered request ended; an engine that calls once more may take one back

    def insert(document_id: DocId, body: bytes | None) -> bytes | Keep:
        existed[document_id] = body is not None
        here = position[document_id]
        stops.discard(here)
        if is_ordered and any(stop < here for stop in stops):
            return KEEP
        if body is None:
            return documents[document_id].body
        stops.add(here)
        return KEEP

    if documents:
        await request.engine.amodify(collection.name, list(documents), of_documents(insert))


def _already_exists(id_json: Any) -> DataAPIError:
    return DataAPIError.of(
        "DOCUMENT_ALREADY_EXISTS",
        "A document with this '_id' (see documentIds) is in the collection already: use another one, or replace the"
        " document with findOneAndReplace.",
        document_ids=(id_json,),
    )


def _reply(outcomes: Sequence[Insertion]) -> Reply:
    inserted = [outcome.id_json for outcome in outcomes if isinstance(outcome, Shredded)]
    return Reply(status={"insertedIds": inserted}, errors=_errors(outcomes))


def _errors(outcomes: Sequence[Insertion]) -> list[DataAPIError]:
    return [outcome for outcome in outcomes if isinstance(outcome, DataAPIError)]


def _reply_with_responses(documents: Sequence[Any], outcomes: Sequence[Insertion], collection: Collection) -> Reply:
    responses: list[dict[str, Any]] = []
    errors = _errors(outcomes)
    failures = 0
    for document, outcome in zip(documents, outcomes, strict=True):
        if isinstance(outcome, Shredded):
            responses.append({"_id": outcome.id_json, "status": "OK"})
        elif outcome is None:
            responses.append({**_id_of_skipped(document, collection), "status": "SKIPPED"})
        else:
            named = {"_id": outcome.document_ids[0]} if outcome.document_ids else {}
            responses.append({**named, "status": "ERROR", "errorsIdx": failures})
            failures += 1
    return Reply(status={"documentResponses": responses}, errors=errors)


def _id_of_skipped(document: Any, collection: Collection) -> dict[str, Any]:
    """Return the ``_id`` of a document that was not tried, or nothing where it cannot be one.

    Where it has none, a new one is sent: the Data API makes the ids of all documents before it tries the first.
    """
    if not isinstance(document, dict):
        return {}
    if "_id" not in document:
        return {"_id": new_id_of(collection.settings)}
    try:
        parse_id(document["_id"])
    except DataAPIError:
        return {}
    return {"_id": document["_id"]}
