"""The MongoDB document that keeps a record: ``{"_id": key, "value": value}``, as langchain-community's stores have it.

A JSON value is BSON, bytes are binary data. JSON that BSON cannot hold as it is (a name with ``$`` in front, an integer
beyond 64 bits) is text, with ``"encoding": "json"`` beside it; a moment of expiry is a date in ``expires_at``.
"""

from __future__ import annotations

import re
from typing import Any, Final

import bson
from bson.codec_options import DatetimeConversion, TypeDecoder, TypeRegistry
from bson.datetime_ms import DatetimeMS
from bson.errors import BSONError
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

from langchain_kv.backends.base import Damaged, Found, Kind, Record, Stored
from langchain_kv.errors import InvalidValueError
from langchain_kv.values.keys import shown
from langchain_kv.values.lenient import are_numbers_exact, parse_json

__all__ = ["DOCUMENT_MAX_BYTES", "EXPIRY", "Document", "as_it_was", "document_of", "found_in", "parsed"]

DOCUMENT_MAX_BYTES: Final = 16 * 1024 * 1024
"""Bytes of a document, the server's limit."""

EXPIRY: Final = "expires_at"

SURELY_FITS_BYTES: Final = 1024 * 1024
"""What makes no document that is too large: BSON takes at most seven times as many bytes as JSON, and a key few."""

_FIELDS: Final = ("value", "body_blob", "encoding", EXPIRY)
_MARKER: Final = "json"

_UNUSUAL: Final = re.compile(rb"[0-9]{19}|\\u0000")
"""In JSON text that BSON may not have: an integer of more than 64 bits, a name with a NUL."""

Document = dict[str, Any] | RawBSONDocument


class _PlainIntegers(TypeDecoder):
    """Integers of 64 bits as Python's own, and not as a subclass."""

    bson_type = Int64

    def transform_bson(self, value: Any) -> int:
        return int(value)


_OPTIONS: Final[bson.CodecOptions[dict[str, Any]]] = bson.CodecOptions(
    type_registry=TypeRegistry([_PlainIntegers()]), datetime_conversion=DatetimeConversion.DATETIME_AUTO
)


def document_of(record: Record) -> Document:
    """Return the document that keeps a record; encoded where that is the way to see whether BSON has it, and its size.

    Raises:
        InvalidValueError: it is larger than MongoDB takes.
    """
    payload, kind = record.payload, record.kind
    if len(payload) <= SURELY_FITS_BYTES and record.expires_at_ms is None:
        if kind is Kind.BYTES:
            return {"_id": record.key, "value": payload}
        # Where numbers are read exactly, some are Decimals, which BSON does not have: encoding tells.
        if kind is Kind.JSON and not _UNUSUAL.search(payload) and not are_numbers_exact():
            return {"_id": record.key, "value": parse_json(payload)}
    document = RawBSONDocument(_encoded(record))
    size_bytes = len(document.raw)
    if size_bytes > DOCUMENT_MAX_BYTES:
        raise InvalidValueError(
            f"The value of key {shown(record.key)} makes a document of {size_bytes:,} bytes, the limit of MongoDB is"
            f" {DOCUMENT_MAX_BYTES:,}: split the value over several keys, or compress it."
        )
    return document


def _encoded(record: Record) -> bytes:
    more: dict[str, Any] = {}
    if record.expires_at_ms is not None:
        more[EXPIRY] = DatetimeMS(record.expires_at_ms)
    if record.kind is Kind.BYTES:
        return bson.encode({"_id": record.key, "value": record.payload, **more})
    if record.kind is not Kind.TEXT:
        field = "body_blob" if record.kind is Kind.BODY_BLOB else "value"
        try:
            return bson.encode({"_id": record.key, field: parse_json(record.payload), **more})
        except (BSONError, OverflowError):  # a name with a NUL, an integer of more than 64 bits
            pass
    return bson.encode({"_id": record.key, "value": record.payload.decode(), "encoding": _MARKER, **more})


def parsed(batch: bytes) -> list[dict[str, Any]]:
    """Return the documents of a batch of the server's."""
    return bson.decode_all(batch, _OPTIONS)


def found_in(document: dict[str, Any]) -> Stored:
    """Return what a document keeps."""
    expiry = document.get(EXPIRY)
    # An _AUTO date that no datetime can be is a DatetimeMS; of another type it is none of ours.
    moment = None if expiry is None else _moment(expiry)
    if "value" not in document:
        if "body_blob" in document:
            return Found(document["body_blob"], Kind.BODY_BLOB, moment)
        return Damaged("its document has no value: another program wrote it")
    value = document["value"]
    if "encoding" not in document:
        return Found(value, Kind.BYTES if type(value) is bytes else Kind.JSON, moment)
    if document["encoding"] != _MARKER or not isinstance(value, str):
        return Damaged("it is stored in an encoding that this version does not know")
    try:
        return Found(parse_json(value), Kind.TEXT, moment)
    except ValueError:
        return Damaged("the text of the value is not valid JSON")


def _moment(expiry: Any) -> int | None:
    try:
        return int(expiry if isinstance(expiry, DatetimeMS) else DatetimeMS(expiry))
    except TypeError:
        return None


def as_it_was(document: dict[str, Any]) -> dict[str, Any]:
    """Return the filter of the document while nobody changed it."""
    fields = {name: _exactly(document[name]) if name in document else {"$exists": False} for name in _FIELDS}
    return {"_id": document["_id"], **fields}


def _exactly(value: Any) -> dict[str, Any]:
    """Return the condition of this value. $eq alone also takes a list that has it as an element."""
    holds_it = {"$elemMatch": {"$eq": value}} if isinstance(value, list) else {"$type": "array"}
    return {"$eq": value, "$exists": True, "$not": holds_it}
