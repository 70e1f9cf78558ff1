"""The Data API's answers to commands, read from bytes: no input or output here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from langchain_kv.backends.base import Damaged, Kind, Stored
from langchain_kv.backends.collections import VERSION
from langchain_kv.backends.dataapi.commands import LARGE_BYTES
from langchain_kv.backends.dataapi.service_errors import error_of, ids_of, no_envelope, refuse
from langchain_kv.backends.documents import Envelope, finder, opened
from langchain_kv.errors import DataAPIError, StoreError
from langchain_kv.runtime.slices import SLICE_BYTES
from langchain_kv.values.lenient import LenientDecoder, are_numbers_exact

__all__ = [
    "Inserted",
    "Page",
    "Versioned",
    "documents",
    "parse_changed",
    "parse_collections",
    "parse_deleted",
    "parse_inserted",
    "parse_page",
    "parse_replaced",
    "parse_status",
    "parse_versioned",
]


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


class Versioned(NamedTuple):
    """What is there of one key.

    Attributes:
        stored: what is stored, also where it has expired; None where there is no document.
        version: that of the document; None where it has none.
    """

    stored: Stored | None
    version: str | None


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


def parse_page(status: int, body: bytes | bytearray, what: str) -> Page:
    """Parse the answer to a find. A document that cannot be parsed is Damaged; the others are read."""
    if status != 200:
        refuse(status, body, what)
    try:
        if len(body) >= LARGE_BYTES or are_numbers_exact():
            return _split_page(body, what)
        reply = _PAGES.decode(body)
        items = _items(reply.data.documents)
    except (ValueError, RecursionError):
        return _parse_page_slowly(body, what)
    return Page(items + _damaged(reply.errors, what), reply.data.state)


def documents(page: Page) -> Iterator[list[tuple[Any, Stored]]]:
    """Yield the items of a page, as many at a time as are parsed in a few tenths of a millisecond."""
    some = list(page.items)
    size_bytes = 0
    for raw in page.unparsed:
        if size_bytes >= SLICE_BYTES:
            yield some
            some, size_bytes = [], 0
        text = bytes(raw)
        some.append(_item(text))
        size_bytes += len(text)
    yield some


def parse_replaced(status: int, body: bytes | bytearray, what: str) -> bool:
    """Parse the answer to an upsert; return whether the key existed.

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


def parse_inserted(
    status: int, body: bytes | bytearray, what: str, keys: Sequence[str], *, must_go_on: bool = False
) -> Inserted:
    """Parse the answer to an insertMany of ``keys``; an error that is not of single documents is raised.

    With ``must_go_on`` so is one that all of them met in passing: whoever sends them again then would never wait.
    """
    reply = _read(status, body, what, partial=True)
    entries = _errors(reply, what)
    if "status" not in reply and entries and not all(ids_of(entry) for entry in entries):
        raise error_of(entries[0], status, what)
    ids = _part(reply, "status", what, default={}).get("insertedIds") or ()
    if ids == keys and not entries:
        return Inserted([], [], {})
    inserted = {key for key in ids if isinstance(key, str)}
    left = dict.fromkeys(key for key in keys if key not in inserted)
    existing: list[str] = []
    again: list[str] = []
    passing: StoreError | None = None
    failed: dict[str, StoreError] = {}
    for entry in entries:
        named = [key for key in ids_of(entry) if isinstance(key, str) and left.pop(key, "") is None]
        if entry.get("errorCode") == "DOCUMENT_ALREADY_EXISTS":
            existing += named
        elif (error := error_of(entry, status, what)).retryable:
            again += named
            passing = passing or error
        else:
            failed.update(dict.fromkeys(named, error))
    unnamed = next((entry for entry in entries if not ids_of(entry)), None)
    if unnamed is None:  # and neither inserted nor named
        again += left
    elif left:
        failed.update(dict.fromkeys(left, error_of(unnamed, status, what)))
    if must_go_on and len(again) == len(keys):
        all_met = passing or no_envelope(status, what)
        all_met.applied = None
        raise all_met
    return Inserted(existing, again, failed)


def parse_versioned(status: int, body: bytes | bytearray, what: str) -> Versioned:
    """Parse the answer to a find of one document."""
    reply = _read(status, body, what, partial=True)
    damaged = _damaged(_errors(reply, what), what)
    if damaged:
        return Versioned(damaged[0][1], None)
    document = _part(reply, "data", what).get("document")
    if document is None:
        return Versioned(None, None)
    if not isinstance(document, dict):
        raise no_envelope(status, what)
    version = document.get(VERSION)
    return Versioned(
        opened(msgspec.convert(document, Envelope)), version if isinstance(version, str) and version else None
    )


def parse_changed(status: int, body: bytes | bytearray, what: str) -> bool:
    """Parse the answer to a change or a removal of the document of a version; return whether there was one."""
    outcome = _part(_read(status, body, what), "status", what)
    # Not matchedCount: a document that is deleted in between counts there, and nothing is written (source: Data API).
    return bool(outcome.get("modifiedCount") or outcome.get("deletedCount"))


def parse_deleted(status: int, body: bytes | bytearray, what: str) -> bool:
    """Parse the answer to a deleteMany; return whether more is to be deleted by the same command."""
    return bool(_part(_read(status, body, what), "status", what).get("moreData"))


def parse_status(status: int, body: bytes | bytearray, what: str) -> None:
    """Parse the answer to a command that answers nothing but success."""
    _part(_read(status, body, what), "status", what)


def parse_collections(status: int, body: bytes | bytearray, what: str) -> dict[str, dict[str, Any]]:
    """Parse the answer to findCollections; return each collection's settings by its name."""
    entries = _part(_read(status, body, what), "status", what).get("collections")
    try:
        return {entry["name"]: entry.get("options") or {} for entry in entries or ()}
    except (TypeError, KeyError, AttributeError):
        raise no_envelope(status, what) from None


def _read(status: int, body: bytes | bytearray, what: str, *, partial: bool = False) -> dict[str, Any]:
    """Return the envelope; raise its first error, unless ``partial`` success is to be looked at."""
    if status != 200:
        refuse(status, body, what)
    try:
        reply = _replies.decode(bytes(body))
    except ValueError:
        reply = None
    if reply is None:
        raise no_envelope(status, what)  # out here: the parser's error may hold a part of the answer
    if not partial:
        _raise_errors(reply, status, what)
    return reply


def _raise_errors(reply: Reply, status: int, what: str) -> None:
    errors = _errors(reply, what)
    if errors:
        raise error_of(errors[0], status, what)


def _errors(reply: Reply, what: str) -> list[dict[str, Any]]:
    errors = reply.get("errors") or []
    if not isinstance(errors, list) or not all(isinstance(entry, dict) for entry in errors):
        raise no_envelope(200, what)
    return errors


def _part(reply: Reply, name: str, what: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
    part = reply.get(name, default)
    if not isinstance(part, dict):
        raise no_envelope(200, what)
    return part


def _damaged(errors: list[dict[str, Any]] | None, what: str) -> list[tuple[Any, Stored]]:
    """Return the documents that the local server names as damaged, and sends the rest of their page without.

    Raises:
        DataAPIError: the reply has an error of another kind.
    """
    found: list[tuple[Any, Stored]] = []
    for entry in errors or ():
        ids = ids_of(entry)
        if entry.get("errorCode") != "DOCUMENT_FROM_DB_UNPARSEABLE" or not ids:
            raise error_of(entry, 200, what)
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
_DOCUMENTS = msgspec.json.Decoder(_Document)


def _split_page(body: bytes | bytearray, what: str) -> Page:
    reply = msgspec.json.decode(body, type=_RawPage)
    if not all(memoryview(raw)[0] == ord("{") for raw in reply.data.documents):
        raise msgspec.DecodeError("a document is no object")
    return Page(_damaged(reply.errors, what), reply.data.state, reply.data.documents)


def _items(documents: Sequence[_Document]) -> list[tuple[Any, Stored]]:
    """Return each document's ``_id`` and what it keeps. The usual ones are not looked at any closer."""
    usual = Kind.JSON
    return [
        (
            one.id,
            one if one.kind is usual and one.expires_at_ms is None and one.body_blob is None else opened(one),
        )
        for one in documents
    ]


def _item(text: bytes) -> tuple[Any, Stored]:
    """Return a document's ``_id`` and what it keeps."""
    if not are_numbers_exact():
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            document = _DOCUMENTS.decode(text)
            return document.id, opened(document)
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(text, type=_IdOnly).id, finder()(text)
    raise no_envelope(200, "find")  # out here, without the document


def _parse_page_slowly(body: bytes | bytearray, what: str) -> Page:
    """Read a page that is an error, or in which something is beyond the fast reader, document by document."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        split = _split_page(body, what)
        read = [item for some in documents(split._replace(items=[])) for item in some]
        return Page(read + split.items, split.state)
    whole = _read(200, body, what, partial=True)
    if "data" not in whole:
        _raise_errors(whole, 200, what)
    try:  # a lone surrogate, say: the splitter refuses it too
        page = msgspec.convert(whole, _PageReply)
    except ValueError:
        page = None
    if page is None:
        raise no_envelope(200, what)
    items = _items(page.data.documents)
    return Page(items + _damaged(page.errors, what), page.data.state)
