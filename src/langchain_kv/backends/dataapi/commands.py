"""The Data API's commands, as bytes out and bytes in: no input or output here.

Request bodies are joined from parts that are JSON already: a document is never parsed or encoded again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from langchain_kv import limits
from langchain_kv.backends.base import INDEXING, Damaged, Document, Record, Stored
from langchain_kv.backends.dataapi import causes
from langchain_kv.codecs import parse_document
from langchain_kv.errors import BadReplyError, DataAPIError, LimitError, StoreError
from langchain_kv.slices import SLICE_BYTES

__all__ = [
    "Command",
    "Inserted",
    "Page",
    "create_collection",
    "delete_collection",
    "delete_many",
    "documents",
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


LARGE_BYTES: Final = 256 * 1024
"""From this size on a request is sent in parts, and the documents of a reply are parsed a few at a time."""


class Command(NamedTuple):
    """A request.

    Attributes:
        name: the Data API's command.
        body: the JSON to send.
        parts: the same in parts, where it is large: then ``body`` is empty, and nothing joins what may be 20 MB.
    """

    name: str
    body: bytes
    parts: Sequence[bytes] = ()


class Page(NamedTuple):
    """A page of a find.

    Attributes:
        items: each document with its ``_id``, which need not be text.
        state: asks for the next page; None after the last one. A page may be empty and not the last.
        unparsed: documents of a large page, as they came: ``documents`` parses them a few at a time.
    """

    items: list[tuple[Any, Stored]]
    state: str | None
    unparsed: Sequence[msgspec.Raw] = ()


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


def find_keys(keys: Sequence[str], state: str | None = None) -> Command:
    """Ask for the documents of at most IN_MAX keys."""
    options = b"" if state is None else b',"options":{"pageState":%b}' % orjson.dumps(state)
    return Command("find", b'{"find":{"filter":{"_id":{"$in":%b}}%b}}' % (orjson.dumps(list(keys)), options))


def find_page(state: str | None, *, values: bool) -> Command:
    """Ask for a page of the whole collection."""
    # Only an exclusion keeps values at home: {"_id": true} alone would ship the whole document (measured).
    parts = [] if values else [b'"projection":{"value":false}']
    if state is not None:
        parts.append(b'"options":{"pageState":%b}' % orjson.dumps(state))
    return Command("find", b'{"find":{%b}}' % b",".join(parts))


def upsert(record: Record) -> Command:
    """Store one document, whether its key exists or not. The answer holds no value."""
    key, document = record
    return _command(
        "findOneAndReplace",
        b'{"findOneAndReplace":{"filter":{"_id":%b},"replacement":' % orjson.dumps(key),
        document,
        b',"projection":{"value":false},"options":{"upsert":true}}}',
    )


def insert_many(records: Sequence[Record]) -> Command:
    """Insert at most INSERT_MANY_MAX documents, each on its own."""
    parts = [b'{"insertMany":{"documents":[']
    for _, document in records:
        parts += (document, b",")
    parts[-1] = b'],"options":{"ordered":false}}}'
    return _command("insertMany", *parts)


def _command(name: str, *parts: bytes) -> Command:
    return Command(name, b"".join(parts)) if sum(map(len, parts)) < LARGE_BYTES else Command(name, b"", parts)


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


def split_by_size(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
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


def read_page(status: int, body: bytes | bytearray, what: str) -> Page:
    """Read the answer to a find. A document that cannot be parsed is Damaged; the others are read."""
    if status != 200:
        _refuse(status, body, what)
    try:
        return _split_page(body, what) if len(body) >= LARGE_BYTES else _page(msgspec.json.decode(body), what)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _read_page_slowly(body, what)
    except (AttributeError, TypeError, KeyError):
        raise _no_envelope(status, what) from None


def documents(page: Page) -> Iterator[list[tuple[Any, Stored]]]:
    """Yield the items of a page, as many at a time as are parsed in a few tenths of a millisecond."""
    some = list(page.items)
    size_bytes = 0
    for raw in page.unparsed:
        if size_bytes >= SLICE_BYTES:
            yield some
            some, size_bytes = [], 0
        text = bytes(raw)
        document = parse_document(text)
        key = document.get("_id") if isinstance(document, dict) else _id_of(text)
        some.append((key, document))
        size_bytes += len(text)
    yield some


def read_replaced(status: int, body: bytes | bytearray, what: str) -> bool:
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


def read_inserted(status: int, body: bytes | bytearray, what: str, keys: Sequence[str]) -> Inserted:
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


def read_deleted(status: int, body: bytes | bytearray, what: str) -> bool:
    """Read the answer to a deleteMany; return whether more is to be deleted by the same command."""
    return bool(_part(_read(status, body, what), "status", what).get("moreData"))


def read_status(status: int, body: bytes | bytearray, what: str) -> None:
    """Read the answer to a command that answers nothing but success."""
    _part(_read(status, body, what), "status", what)


def read_collections(status: int, body: bytes | bytearray, what: str) -> dict[str, dict[str, Any]]:
    """Read the answer to findCollections; return each collection's settings by its name."""
    entries = _part(_read(status, body, what), "status", what).get("collections")
    try:
        return {entry["name"]: entry.get("options") or {} for entry in entries or ()}
    except (TypeError, KeyError, AttributeError):
        raise _no_envelope(status, what) from None


def _read(status: int, body: bytes | bytearray, what: str, *, partial: bool = False) -> dict[str, Any]:
    """Return the envelope; raise its first error, unless ``partial`` success is to be looked at."""
    if status != 200:
        _refuse(status, body, what)
    reply = parse_document(bytes(body))
    if isinstance(reply, Damaged):
        raise _no_envelope(status, what)
    if not partial:
        _raise_errors(reply, status, what)
    return reply


def _raise_errors(reply: Document, status: int, what: str) -> None:
    errors = _errors(reply, what)
    if errors:
        raise _error_of(errors[0], status, what)


def _errors(reply: Document, what: str) -> list[dict[str, Any]]:
    errors = reply.get("errors") or []
    if not isinstance(errors, list) or not all(isinstance(entry, dict) for entry in errors):
        raise _no_envelope(200, what)
    return errors


def _ids(entry: Mapping[str, Any]) -> list[Any]:
    ids = entry.get("documentIds")
    return ids if isinstance(ids, list) else []


def _part(reply: Document, name: str, what: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
    part = reply.get(name, default)
    if not isinstance(part, dict):
        raise _no_envelope(200, what)
    return part


def _page(reply: Any, what: str) -> Page:
    damaged = _damaged(reply, what)
    data = reply["data"]
    state = data.get("nextPageState")
    if state is not None and not isinstance(state, str):
        raise TypeError(state)
    return Page([(document.get("_id"), document) for document in data["documents"]] + damaged, state)


def _damaged(reply: Any, what: str) -> list[tuple[Any, Stored]]:
    """Return the documents that the local server names as damaged, and sends the rest of their page without.

    Raises:
        DataAPIError: the reply has an error of another kind.
    """
    found: list[tuple[Any, Stored]] = []
    for entry in _errors(reply, what):
        ids = entry.get("documentIds")
        if entry.get("errorCode") != "DOCUMENT_FROM_DB_UNPARSEABLE" or "data" not in reply or not ids:
            raise _error_of(entry, 200, what)
        found += [(key, Damaged("the stored document is not a JSON object")) for key in ids]
    return found


class _RawData(msgspec.Struct):
    documents: list[msgspec.Raw]
    state: str | None = msgspec.field(default=None, name="nextPageState")


class _RawPage(msgspec.Struct):
    data: _RawData
    errors: list[dict[str, Any]] = []


class _IdOnly(msgspec.Struct):
    id: Any = msgspec.field(default=None, name="_id")


def _split_page(body: bytes | bytearray, what: str) -> Page:
    reply = msgspec.json.decode(body, type=_RawPage)
    if not all(memoryview(raw)[0] == ord("{") for raw in reply.data.documents):
        raise msgspec.DecodeError("a document is no object")
    damaged = _damaged({"data": reply.data, "errors": reply.errors}, what)
    return Page(damaged, reply.data.state, reply.data.documents)


def _id_of(document: bytes) -> Any:
    """Return the ``_id`` of a document that cannot be read whole."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.decode(document, type=_IdOnly).id
    raise _no_envelope(200, "find")  # out here, without the document


def _read_page_slowly(body: bytes | bytearray, what: str) -> Page:
    """Read a page in which something is beyond the fast reader, document by document."""
    with suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        page = _split_page(body, what)
        items = [item for some in documents(page._replace(items=[])) for item in some]
        return Page(items + page.items, page.state)
    with suppress(ValueError, RecursionError, AttributeError, TypeError, KeyError):
        return _page(json.loads(body), what)  # a lone surrogate, say: the splitter refuses it too
    raise _no_envelope(200, what)  # out here: json's error, which holds the whole answer, is not its context


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


def _refuse(status: int, body: bytes | bytearray, what: str) -> None:
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


def _bad_status(status: int, body: bytes | bytearray, what: str) -> BadReplyError:
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
