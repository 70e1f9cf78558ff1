"""The document that keeps a record, in the backends that keep documents. It is the one that langchain-astradb stores.

A value ``v`` under key ``k`` is ``{"_id": k, "value": v}``; bytes are base64 text. JSON that the Data API refuses
inside a document goes as text, with a marker beside it, and a moment of expiry has a field of its own::

    {"_id": k, "value": "<JSON text>", "encoding": "json", "expires_at": {"$date": <milliseconds>}}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import orjson

from langchain_kv import limits
from langchain_kv.backends.base import Damaged, Found, Kind, Record, Stored
from langchain_kv.engines.rows import moment_of
from langchain_kv.errors import InvalidValueError
from langchain_kv.values.keys import shown
from langchain_kv.values.lenient import LenientDecoder, parse_json

__all__ = ["EXPIRY", "Encoded", "Envelope", "check_size", "document_of", "encoded", "found_in", "opened"]

EXPIRY: Final = "expires_at"
"""The field of a document that has the moment of expiry."""

_MARKER: Final = "json"
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


_envelopes = LenientDecoder(Envelope)
_decode = msgspec.json.Decoder(Envelope).decode


def document_of(record: Record) -> bytes:
    """Return the compact JSON text of the document that keeps a record.

    Raises:
        InvalidValueError: it is larger than the Data API takes.
    """
    key, payload, kind, expires_at_ms = record.key, record.payload, record.kind, record.expires_at_ms
    if kind is Kind.JSON:
        value = payload
    elif kind is Kind.BYTES:
        value = msgspec.json.encode(payload)  # base64 text, in a third of the time that the standard library takes
    else:
        value = b'%b,"encoding":"json"' % orjson.dumps(payload.decode())
    if expires_at_ms is None:
        document = b'{"_id":%b,"value":%b}' % (orjson.dumps(key), value)
    else:
        document = b'{"_id":%b,"value":%b,"expires_at":{"$date":%d}}' % (orjson.dumps(key), value, expires_at_ms)
    # UTF-16 never takes more units than UTF-8 takes bytes, so only documents that are long in bytes are counted.
    if len(document) > _SIZE_MAX:
        _check_size(record, document)
    return document


def encoded(records: Sequence[Record]) -> list[Encoded]:
    """Return each record's key and document, as ``document_of`` does, in order."""
    write, usual = orjson.dumps, Kind.JSON
    pairs = [
        (record.key, b'{"_id":%b,"value":%b}' % (write(record.key), record.payload))
        if record.kind is usual and record.expires_at_ms is None
        else (record.key, document_of(record))
        for record in records
    ]
    if pairs and max([len(document) for _, document in pairs]) > _SIZE_MAX:
        for record in records:
            document_of(record)  # finds the one that is too large, if it is
    return pairs


def check_size(record: Record) -> None:
    """Refuse bytes whose document, with base64 text, would be larger than the Data API takes.

    Raises:
        InvalidValueError: it would.
    """
    if len(record.payload) > _BYTES_ALWAYS_FIT:
        document_of(record)


def _check_size(record: Record, document: bytes) -> None:
    text = document.decode()
    units = len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
    if units <= _SIZE_MAX:
        return
    if record.kind is Kind.BYTES:
        fitting = (_SIZE_MAX - (units - len(msgspec.json.encode(record.payload)) + 2)) // 4 * 3
        raise InvalidValueError(
            f"The value of key {shown(record.key)} has {len(record.payload):,} bytes, the limit is {fitting:,} (as"
            " base64 text, in a document of the Data API): split the value over several keys, or compress it."
        )
    raise InvalidValueError(
        f"The value of key {shown(record.key)} makes a document of {units:,} characters (UTF-16 units), the limit is"
        f" {_SIZE_MAX:,}: split the value over several keys, or compress it."
    )


def found_in(document: bytes) -> Stored:
    """Return what the JSON text of a document keeps, Damaged where it is no such text."""
    try:
        envelope = _decode(document)
    except (ValueError, RecursionError):
        return _found_slowly(document)
    return envelope if envelope.kind is Kind.JSON and envelope.expires_at_ms is None else opened(envelope)


def _found_slowly(document: bytes) -> Stored:
    try:
        return opened(_envelopes.decode(document))
    except ValueError as error:
        return Damaged(f"the stored document is not a JSON object ({type(error).__name__})")


def opened(envelope: Envelope) -> Stored:
    """Return what a decoded document keeps."""
    if envelope.kind is Kind.JSON and envelope.expires_at_ms is None:
        return envelope
    expires_at_ms = moment_of(envelope.expires_at_ms)
    if envelope.kind is Kind.JSON:
        return Found(envelope.value, Kind.JSON, expires_at_ms)
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
