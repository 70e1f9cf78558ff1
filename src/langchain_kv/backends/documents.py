"""The document that keeps a record, in the backends that keep documents. It is the one that langchain-astradb stores.

A value ``v`` under key ``k`` is ``{"_id": k, "value": v}``; bytes are base64 text. JSON that the Data API refuses
inside a document goes as text, with a marker beside it, and a moment of expiry has a field of its own::

    {"_id": k, "value": "<JSON text>", "encoding": "json", "expires_at": {"$date": <milliseconds>}}

Copies mark bytes (``Kind.MARKED_BYTES``), so that they are bytes to every reader: ``"encoding": "base64"``.

In collections that were made so (``collections.CollectionForm``) more fields follow: ``ns``, ``$vector``, ``version``.

A cache of answers keeps ``{"_id": k, "body_blob": v}``, as langchain-astradb's does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
import orjson

from langchain_kv import limits
from langchain_kv.backends.base import Damaged, Found, Kind, Record, Stored
from langchain_kv.backends.collections import NAMESPACES, PLAIN, VERSION, CollectionForm
from langchain_kv.backends.own_vectors import apart_names, own_vector
from langchain_kv.engines.base import Ending
from langchain_kv.engines.rows import moment_of
from langchain_kv.errors import InvalidKeyError, InvalidValueError
from langchain_kv.runtime.slices import Steps, by_bytes
from langchain_kv.values.codecs import UndecodableError, bytes_from_text
from langchain_kv.values.keys import shown
from langchain_kv.values.lenient import LenientDecoder, are_numbers_exact, parse_json
from langchain_kv.values.namespaces import ancestry
from langchain_kv.values.plain import utf16_units

__all__ = [
    "EXPIRY",
    "Encoded",
    "Envelope",
    "check_size",
    "document_of",
    "encoded",
    "encoded_in_parts",
    "finder",
    "found_in",
    "in_document",
    "in_form",
    "new_version",
    "opened",
    "with_new_version",
]

EXPIRY: Final = "expires_at"
"""The field of a document that has the moment of expiry."""

_MARKER: Final = "json"
_LAST_VERSION: Final = re.compile(rb'"%b":"[^"\\]*"\}\Z' % VERSION.encode())
_BYTES_MARKER: Final = "base64"
_SIZE_MAX: Final = limits.DOCUMENT_MAX_UTF16
# Whatever the key, of which JSON may make six characters a byte, and with a moment of expiry.
_BYTES_ALWAYS_FIT: Final = (_SIZE_MAX - 100 - 6 * limits.KEY_MAX_BYTES) // 4 * 3


Encoded = tuple[str, bytes]
"""A key, and the compact JSON text of its document, which travels as it is into a request's body or a file."""


class Envelope(Found, gc=False, rename={"kind": "encoding", "expires_at_ms": EXPIRY}):
    """A document as it is decoded, in one pass: what is found, once ``opened`` has looked at the unusual ones."""

    value: Any = None
    kind: Any = Kind.JSON
    expires_at_ms: Any = None
    body_blob: Any = None


_envelopes = LenientDecoder(Envelope)
_decode = msgspec.json.Decoder(Envelope).decode


def document_of(record: Record) -> bytes:
    """Return the compact JSON text of the document that keeps a record.

    Raises:
        InvalidValueError: it is larger than the Data API takes.
    """
    key, payload, kind, expires_at_ms = record.key, record.payload, record.kind, record.expires_at_ms
    field = b"value"
    if kind is Kind.JSON:
        value = payload
    elif kind is Kind.BODY_BLOB:
        field, value = b"body_blob", payload
    elif kind is Kind.MARKED_BYTES:
        value = b'%b,"encoding":"base64"' % msgspec.json.encode(payload)
    elif kind is Kind.BYTES:
        value = msgspec.json.encode(payload)  # base64 text, in a third of the time that the standard library takes
    else:
        value = b'%b,"encoding":"json"' % orjson.dumps(payload.decode())
    if expires_at_ms is None:
        document = b'{"_id":%b,"%b":%b}' % (orjson.dumps(key), field, value)
    else:
        expiry = b'"expires_at":{"$date":%d}' % expires_at_ms
        document = b'{"_id":%b,"%b":%b,%b}' % (orjson.dumps(key), field, value, expiry)
    # UTF-16 never takes more units than UTF-8 takes bytes, so only documents that are long in bytes are counted.
    if len(document) > _SIZE_MAX:
        _check_size(record, document)
    return document


def encoded(records: Sequence[Record]) -> list[Encoded]:
    """Return each record's key and document, as ``document_of`` does, in order."""
    write, usual = orjson.dumps, Kind.JSON
    pairs = [
        (record.key, b"".join((b'{"_id":', write(record.key), b',"value":', record.payload, b"}")))
        if record.kind is usual and record.expires_at_ms is None
        else (record.key, document_of(record))
        for record in records
    ]
    if pairs and max([len(document) for _, document in pairs]) > _SIZE_MAX:
        for record, (_, document) in zip(records, pairs, strict=True):
            if len(document) > _SIZE_MAX:
                _check_size(record, document)
    return pairs


def encoded_in_parts(records: Sequence[Record], form: CollectionForm = PLAIN) -> Steps[list[Encoded]]:
    """As ``encoded``, in slices, for a collection of any form."""
    pairs: list[Encoded] = []
    for some in by_bytes(records, lambda record: len(record.payload)):
        if pairs:
            yield
        pairs += encoded(some) if form == PLAIN else [(record.key, in_form(record, form)) for record in some]
    return pairs


def in_form(record: Record, form: CollectionForm, version: str | None = None) -> bytes:
    """Return what ``document_of`` does, with the fields that a collection of this form has.

    Args:
        record: the record.
        form: of the collection.
        version: the version; None makes a new one, where there is to be one.

    Raises:
        InvalidKeyError: the key is in more namespaces than a document can list.
        InvalidValueError: see ``document_of``.
    """
    document = document_of(record)
    vector, is_apart = own_vector(record.payload, form.dimension) if form.dimension else (b"", False)
    if form.namespaced and (names := ancestry(record.key)):
        listed = [*names, *apart_names(names)] if is_apart else names
        if len(listed) > limits.INDEXED_ARRAY_MAX_LENGTH:
            labels_max = limits.INDEXED_ARRAY_MAX_LENGTH - 1
            if is_apart:
                labels_max //= 2
            raise InvalidKeyError(
                f"The key {shown(record.key)} is in a namespace of {len(names) - 1:,} labels, the limit of a namespaced"
                f" collection is {labels_max:,}{' with several vectors' if is_apart else ''}: use fewer labels."
            )
        document = b'%b,"%b":%b}' % (document[:-1], NAMESPACES.encode(), orjson.dumps(listed))
    if vector:
        document = b'%b,"$vector":%b}' % (document[:-1], vector)
    if form.atomic:
        document = b'%b,"%b":"%b"}' % (document[:-1], VERSION.encode(), (version or new_version()).encode())
    if len(document) > _SIZE_MAX:
        _check_size(record, document)
    return document


def new_version() -> str:
    """Return a version that no document has had."""
    return os.urandom(16).hex()


def with_new_version(document: bytes) -> bytes:
    """Return the document of an atomic collection with another version, as each change of it leaves one."""
    return _LAST_VERSION.sub(b'"%b":"%b"}' % (VERSION.encode(), new_version().encode()), document)


@lru_cache
def in_document(ending: Ending) -> Ending:
    """Return where a text near the end of a plain value stands in the document of it."""
    return Ending(ending.pattern + "[}]", ending.length, ending.after + 1)


def check_size(record: Record) -> None:
    """Refuse bytes whose document, with base64 text, would be larger than the Data API takes.

    Raises:
        InvalidValueError: it would.
    """
    if len(record.payload) > _BYTES_ALWAYS_FIT:
        document_of(record)


def _check_size(record: Record, document: bytes) -> None:
    text = document.decode()
    units = utf16_units(text)
    if units <= _SIZE_MAX:
        return
    if record.kind in (Kind.BYTES, Kind.MARKED_BYTES):
        fitting = (_SIZE_MAX - (units - len(msgspec.json.encode(record.payload)) + 2)) // 4 * 3
        raise InvalidValueError(
            f"The value of key {shown(record.key)} has {len(record.payload):,} bytes, the limit with this key is"
            f" {fitting:,}: split it over several keys, or compress it."
        )
    raise InvalidValueError(
        f"The value of key {shown(record.key)} makes a document of {units:,} characters (UTF-16 units), the limit is"
        f" {_SIZE_MAX:,}: split the value over several keys, or compress it."
    )


def finder() -> Callable[[bytes], Stored]:
    """Return ``found_in``, or what does the same for whoever wants exact numbers: asked once for many documents."""
    return _found_slowly if are_numbers_exact() else found_in


def found_in(document: bytes) -> Stored:
    """Return what the JSON text of a document keeps, Damaged where it is no such text."""
    try:
        envelope = _decode(document)
    except (ValueError, RecursionError):
        return _found_slowly(document)
    is_usual = envelope.kind is Kind.JSON and envelope.expires_at_ms is None and envelope.value is not None
    return envelope if is_usual else opened(envelope)


def _found_slowly(document: bytes) -> Stored:
    try:
        return opened(_envelopes.decode(document))
    except ValueError as error:
        return Damaged(f"the stored document is not a JSON object ({type(error).__name__})")


def opened(envelope: Envelope) -> Stored:
    """Return what a decoded document keeps."""
    if envelope.value is None and envelope.body_blob is not None:
        return Found(envelope.body_blob, Kind.BODY_BLOB, moment_of(envelope.expires_at_ms))
    if envelope.kind is Kind.JSON and envelope.expires_at_ms is None:
        return envelope
    expires_at_ms = moment_of(envelope.expires_at_ms)
    if envelope.kind is Kind.JSON:
        return Found(envelope.value, Kind.JSON, expires_at_ms)
    if envelope.kind == _BYTES_MARKER and isinstance(envelope.value, str):
        try:
            return Found(bytes_from_text(envelope.value), Kind.BYTES, expires_at_ms)
        except UndecodableError:
            return Damaged("it is marked as base64 text, and is none")
    if envelope.kind != _MARKER or not isinstance(envelope.value, str):
        marker = shown(envelope.kind) if isinstance(envelope.kind, str) else type(envelope.kind).__name__
        return Damaged(
            f"it is stored in an encoding that this version does not know ({marker} beside a value of type"
            f" {type(envelope.value).__name__})"
        )
    try:
        return Found(parse_json(envelope.value), Kind.TEXT, expires_at_ms)
    except ValueError:
        return Damaged("the text of the value is not valid JSON")
