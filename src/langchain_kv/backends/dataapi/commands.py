"""The Data API's commands, as bytes out and bytes in: no input or output here.

Request bodies are joined from parts that are JSON already: a document is never parsed or encoded again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import orjson

from langchain_kv import limits
from langchain_kv.backends.base import Damaged, Stored
from langchain_kv.backends.collections import INDEXING
from langchain_kv.backends.dataapi import causes
from langchain_kv.backends.documents import Encoded, Envelope, found_in, opened
from langchain_kv.errors import BadReplyError, DataAPIError, LimitError, StoreError
from langchain_kv.values.lenient import LenientDecoder

__all__ = [
    "Command",
    "Inserted",
    "Page",
    "create_collection",
    "delete_collection",
    "delete_many",
    "find_collections",
    "find_keys",
    "find_page",
    "insert_many",
    "read_collections",
    "read_deleted",
    "read_inserted",
    "read_page",
    "read_replaced",
    "read_status",
    "split_by_size",
    "upsert",
]


class Command(NamedTuple):
    """A request.

    Attributes:
        name: the Data API's command.
        body: the JSON to send.
    """

    name: str
    body: bytes


class Page(NamedTuple):
    """A page of a find.

    Attributes:
        items: each document with its ``_id``, which need not be text.
        state: asks for the next page; None after the last one. A page may be empty and not the last.
    """

    items: list[tuple[Any, Stored]]
    state: str | None


class Inserted(NamedTuple):
    """What became of an insertMany.

    Attributes:
        existing: the keys that were there already, and were left as they are.
        again: the keys whose insert failed in passing.
        failed: the error of each other key that was not inserted.
    """

    existing: list[str]
    again: list[str]
    failed: dict[str, StoreError]


# -- requests ---------------------------------------------------------------------------------------------------


def find_keys(keys: Sequence[str], state: str | None = None, *, values: bool = True) -> Command:
    """Ask for the documents of at most IN_MAX keys."""
    options = b"" if values else b',"projection":{"value":false}'
    if state is not None:
        options += b',"options":{"pageState":%b}' % orjson.dumps(state)
    return Command("find", b'{"find":{"filter":{"_id":{"$in":%b}}%b}}' % (orjson.dumps(list(keys)), options))


def find_page(state: str | None, *, values: bool) -> Command:
    """Ask for a page of the whole collection."""
    # Only an exclusion keeps values at home: {"_id": true} alone would ship the whole document (measured).
    parts = [] if values else [b'"projection":{"value":false}']
    if state is not None:
        parts.append(b'"options":{"pageState":%b}' % orjson.dumps(state))
    return Command("find", b'{"find":{%b}}' % b",".join(parts))


def upsert(record: Encoded) -> Command:
    """Store one document, whether its key exists or not. The answer holds no value."""
    key, document = record
    body = (
        b'{"findOneAndReplace":{"filter":{"_id":%b},"replacement":%b,"projection":{"value":false},"options":{"upsert":true}}}'
        % (orjson.dumps(key), document)
    )
    return Command("findOneAndReplace", body)


def insert_many(records: Sequence[Encoded]) -> Command:
    """Insert at most INSERT_MANY_MAX documents, each on its own."""
    documents = [document for _, document in records]
    documents[0] = b'{"insertMany":{"documents":[' + documents[0]
    documents[-1] += b'],"options":{"ordered":false}}}'
    return Command("insertMany", b",".join(documents))  # the one copy of what may be 20 MB


def delete_many(keys: Sequence[str]) -> Command:
    """Delete the documents of at least one and at most DELETE_MANY_MAX keys."""
    if not keys:  # without a filter the command empties the collection: never come near it
        raise ValueError("delete_many needs a key")
    return Command("deleteMany", b'{"deleteMany":{"filter":{"_id":{"$in":%b}}}}' % orjson.dumps(list(keys)))


def find_collections() -> Command:
    """Ask for the keyspace's collections and what each was created with."""
    return Command("findCollections", b'{"findCollections":{"options":{"explain":true}}}')


def create_collection(name: str) -> Command:
    """Create a collection as the stores use it."""
    options = {"name": name, "options": {"indexing": INDEXING}}
    return Command("createCollection", b'{"createCollection":%b}' % orjson.dumps(options))


def delete_collection(name: str) -> Command:
    """Drop a collection; a missing one is no error."""
    return Command("deleteCollection", b'{"deleteCollection":%b}' % orjson.dumps({"name": name}))


def split_by_size(records: Sequence[Encoded]) -> Iterator[Sequence[Encoded]]:
    """Yield runs of records that fit in one insertMany: by number and by bytes; one alone always fits."""
    start = 0
    while start < len(records):
        run = list(records[start : start + limits.INSERT_MANY_MAX])
        size = sum([len(document) for _, document in run]) + len(run) - 1
        while size > limits.REQUEST_BODY_TARGET_BYTES and len(run) > 1:
            size -= len(run.pop()[1]) + 1
        yield run
        start += len(run)


# -- answers ----------------------------------------------------------------------------------------------------


def read_page(status: int, body: bytes, what: str) -> Page:
    """Read the answer to a find. A document that cannot be parsed is Damaged; the others are read."""
    if status != 200:
        _refuse(status, body, what)
    try:
        reply = _PAGES.decode(body)
        items = [(document.id, opened(document)) for document in reply.data.documents]
    except (ValueError, RecursionError):
        return _read_page_slowly(body, what)
    return Page(items + _damaged(reply.errors, what), reply.data.state)


def read_replaced(status: int, body: bytes, what: str) -> bool:
    """Read the answer to an upsert; return whether the key existed.

    Raises:
        DataAPIError: also FAILED_CONCURRENT_OPERATIONS, to be retried, where a delete overtook the upsert and
            nothing was stored: the service reports no error then (Data API 1.0.51, measured).
    """
    reply = _read(status, body, what)
    outcome = _part(reply, "status", what)
    if "upsertedId" in outcome:
        return False
    if outcome.get("modifiedCount") or _part(reply, "data", what).get("document") is not None:
        return True
    raise DataAPIError.of("FAILED_CONCURRENT_OPERATIONS", f"{what} was overtaken by a delete of the same key.")


def read_inserted(status: int, body: bytes, what: str, keys: Sequence[str]) -> Inserted:
    """Read the answer to an insertMany of ``keys``; an error that is not of single documents is raised."""
    reply = _read(status, body, what, partial=True)
    entries = _errors(reply, what)
    if "status" not in reply and entries and not all(_ids(entry) for entry in entries):
        raise _error_of(entries[0], status, what)
    ids = _part(reply, "status", what, default={}).get("insertedIds") or ()
    if ids == keys and not entries:
        return Inserted([], [], {})
    inserted = {key for key in ids if isinstance(key, str)}
    left = dict.fromkeys(key for key in keys if key not in inserted)
    existing: list[str] = []
    again: list[str] = []
    failed: dict[str, StoreError] = {}
    for entry in entries:
        named = [key for key in _ids(entry) if isinstance(key, str) and left.pop(key, "") is None]
        if entry.get("errorCode") == "DOCUMENT_ALREADY_EXISTS":
            existing += named
        elif (error := _error_of(entry, status, what)).retryable:
            again += named
        else:
            failed.update(dict.fromkeys(named, error))
    unnamed = next((entry for entry in entries if not _ids(entry)), None)
    if unnamed is None:  # and neither inserted nor named
        again += left
    elif left:
        failed.update(dict.fromkeys(left, _error_of(unnamed, status, what)))
    return Inserted(existing, again, failed)


def read_deleted(status: int, body: bytes, what: str) -> bool:
    """Read the answer to a deleteMany; return whether more is to be deleted by the same command."""
    return bool(_part(_read(status, body, what), "status", what).get("moreData"))


def read_status(status: int, body: bytes, what: str) -> None:
    """Read the answer to a command that answers nothing but success."""
    _part(_read(status, body, what), "status", what)


def read_collections(status: int, body: bytes, what: str) -> dict[str, dict[str, Any]]:
    """Read the answer to findCollections; return each collection's settings by its name."""
    entries = _part(_read(status, body, what), "status", what).get("collections")
    try:
        return {entry["name"]: entry.get("options") or {} for entry in entries or ()}
    except (TypeError, KeyError, AttributeError):
        raise _no_envelope(status, what) from None


def _read(status: int, body: bytes, what: str, *, partial: bool = False) -> dict[str, Any]:
    """Return the envelope; raise its first error, unless ``partial`` success is to be looked at."""
    if status != 200:
        _refuse(status, body, what)
    try:
        reply = _replies.decode(body)
    except ValueError:
        reply = None
    if reply is None:
        raise _no_envelope(status, what)  # out here: the parser's error may hold a part of the answer
    if not partial:
        _raise_errors(reply, status, what)
    return reply


def _raise_errors(reply: Reply, status: int, what: str) -> None:
    errors = _errors(reply, what)
    if errors:
        raise _error_of(errors[0], status, what)


def _errors(reply: Reply, what: str) -> list[dict[str, Any]]:
    errors = reply.get("errors") or []
    if not isinstance(errors, list) or not all(isinstance(entry, dict) for entry in errors):
        raise _no_envelope(200, what)
    return errors


def _ids(entry: Mapping[str, Any]) -> list[Any]:
    ids = entry.get("documentIds")
    return ids if isinstance(ids, list) else []


def _part(reply: Reply, name: str, what: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
    part = reply.get(name, default)
    if not isinstance(part, dict):
        raise _no_envelope(200, what)
    return part


def _damaged(errors: list[dict[str, Any]] | None, what: str) -> list[tuple[Any, Stored]]:
    """Return the documents that the local server names as damaged, and sends the rest of their page without.

    Raises:
        DataAPIError: the reply has an error of another kind.
    """
    found: list[tuple[Any, Stored]] = []
    for entry in errors or ():
        ids = _ids(entry)
        if entry.get("errorCode") != "DOCUMENT_FROM_DB_UNPARSEABLE" or not ids:
            raise _error_of(entry, 200, what)
        found += [(key, Damaged("the stored document is not a JSON object")) for key in ids]
    return found


class _Document(Envelope, gc=False, rename={"id": "_id"}):
    id: Any = None


class _Data(msgspec.Struct):
    documents: list[_Document]
    state: str | None = msgspec.field(default=None, name="nextPageState")


class _PageReply(msgspec.Struct):
    data: _Data
    errors: list[dict[str, Any]] | None = None


class _RawData(msgspec.Struct):
    documents: list[msgspec.Raw]
    state: str | None = msgspec.field(default=None, name="nextPageState")


class _RawPage(msgspec.Struct):
    data: _RawData
    errors: list[dict[str, Any]] | None = None


class _IdOnly(msgspec.Struct):
    id: Any = msgspec.field(default=None, name="_id")


Reply = dict[str, Any]
"""The envelope of an answer, parsed."""

_replies = LenientDecoder(Reply)
_PAGES = msgspec.json.Decoder(_PageReply)


def _read_page_slowly(body: bytes, what: str) -> Page:
    """Read a page that is an error, or in which something is beyond the fast reader, document by document."""
    try:
        reply = msgspec.json.decode(body, type=_RawPage)
        items = [(msgspec.json.decode(raw, type=_IdOnly).id, found_in(bytes(raw))) for raw in reply.data.documents]
    except (ValueError, RecursionError):
        items = None
    if items is not None:
        return Page(items + _damaged(reply.errors, what), reply.data.state)
    whole = _read(200, body, what, partial=True)
    if "data" not in whole:
        _raise_errors(whole, 200, what)
    try:  # a lone surrogate, say: the splitter refuses it too
        page = msgspec.convert(whole, _PageReply)
    except ValueError:
        page = None
    if page is None:
        raise _no_envelope(200, what)
    items = [(document.id, opened(document)) for document in page.data.documents]
    return Page(items + _damaged(page.errors, what), page.data.state)


# -- errors -----------------------------------------------------------------------------------------------------

_HINTS = {
    "UNKNOWN_COLLECTION_OR_TABLE": "Opening the store with SetupMode.SYNC creates it.",
    "UNKNOWN_KEYSPACE": "Check the keyspace's name, or create it.",
    "MISSING_AUTHENTICATION_TOKEN": "Give a token (token=, or ASTRA_DB_APPLICATION_TOKEN).",
    "UNAUTHENTICATED_REQUEST": "Check the token (token=, or ASTRA_DB_APPLICATION_TOKEN).",
    "UNAUTHORIZED_ACCESS": "Check what the token is allowed to do.",
}
_TITLE = re.compile(rb"<(title|h1)[^>]*>([^<]{1,400})<", re.IGNORECASE)


def _error_of(entry: Mapping[str, Any], status: int, what: str) -> DataAPIError:
    code = str(entry.get("errorCode") or "UNKNOWN_ERROR")
    scope = str(entry.get("scope") or "")
    title = " ".join(str(entry.get("title") or "").split())[:200]
    message = str(entry.get("message") or "")
    detail = causes.told(message, code, scope)
    is_final = code == "UNEXPECTED_DRIVER_ERROR" and causes.is_deterministic(message)
    if code == "INVALID_DATABASE_QUERY" and causes.names_no_table(message):
        code, scope = "UNKNOWN_COLLECTION_OR_TABLE", "SCHEMA"  # dropped, or made anew, behind the service's back
    text = ". ".join(part.rstrip(".") for part in (f"{what} failed: {code}", title, detail) if part) + "."
    hint = _HINTS.get(code)
    error = DataAPIError.of(
        code,
        f"{text} {hint}" if hint else text,
        title=title,
        family=str(entry.get("family") or "REQUEST"),
        scope=scope,
        http_status=status,
        document_ids=tuple(_ids(entry)),
    )
    if is_final:
        error.retryable = False
    return error


def _no_envelope(status: int, what: str) -> BadReplyError:
    return BadReplyError(
        f"The answer to {what} is not one of the Data API: broken or cut JSON, or another service's. Check the"
        " endpoint.",
        http_status=status,
    )


def _refuse(status: int, body: bytes, what: str) -> None:
    """Raise the error of an answer whose HTTP status is not 200."""
    try:
        reply = msgspec.json.decode(body)
        errors = reply.get("errors") if isinstance(reply, dict) else None
    except (ValueError, RecursionError):
        errors = None
    if isinstance(errors, list) and errors and isinstance(errors[0], dict) and errors[0].get("errorCode"):
        raise _error_of(errors[0], status, what)
    if status == 401:
        raise DataAPIError.of(
            "UNAUTHENTICATED_REQUEST", f"{what} was refused (HTTP 401). {_HINTS['UNAUTHENTICATED_REQUEST']}"
        )
    if status == 413:
        error = LimitError(
            f"{what} was refused: the request is too large (HTTP 413). The Data API takes"
            f" {limits.BODY_MAX_BYTES:,} bytes, a gateway in front of it may take fewer: use smaller values."
        )
        error.http_status = status
        raise error
    raise _bad_status(status, body, what)


def _bad_status(status: int, body: bytes, what: str) -> BadReplyError:
    found = _TITLE.search(body[:4096])
    page = f" ({' '.join(found[2].decode('utf-8', 'replace').split())[:200]})" if found else ""
    if status == 429:
        advice = "too many requests: use smaller batches, or try later"
    elif status >= 500:
        advice = "a gateway's page, or the service is down: try later"
    elif 300 <= status < 400:
        advice = "redirects are not followed: give the endpoint's final address"
    else:
        advice = "check the endpoint and its path prefix"
    error = BadReplyError(f"{what} was answered with HTTP {status}{page}: {advice}.", http_status=status)
    if status < 500:
        error.applied = False
        error.retryable = status == 429
    return error
