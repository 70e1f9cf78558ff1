"""Document ids: what an ``_id`` in JSON stands for, and ids that the server makes."""

from __future__ import annotations

import itertools
import os
import re
import time
import uuid
from decimal import Decimal
from typing import Any, Final

from langchain_kv.engines.base import DocId
from langchain_kv.errors import DataAPIError
from langchain_kv.values.json_text import write

__all__ = ["NUMBER", "is_extended", "is_object_id", "is_uuid", "new_id", "parse_id"]

# The tags are the Data API's own type ids, so that an engine on Cassandra can use them as they are.
NUMBER: Final = b"\x02"
_BOOLEAN: Final = b"\x03"
_NULL: Final = b"\x04\x6e\x75\x6c\x6c"
_DATE: Final = b"\x05"

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_OBJECT_ID: Final = re.compile(r"[0-9a-fA-F]{24}")
_EXTENDED: Final = ("$date", "$uuid", "$objectId", "$binary")
_LONG: Final = range(-(2**63), 2**63)


def is_extended(value: Any) -> bool:
    """Whether a JSON value has the form of an extended type: an object whose one field is ``$date``, ``$uuid``, ..."""
    return isinstance(value, dict) and len(value) == 1 and next(iter(value)) in _EXTENDED


def is_uuid(value: Any) -> bool:
    """Whether a JSON value is the text of a UUID."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def is_object_id(value: Any) -> bool:
    """Whether a JSON value is the text of an ObjectId."""
    return isinstance(value, str) and _OBJECT_ID.fullmatch(value) is not None


def parse_id(value: Any) -> DocId:
    """Return the identity of a document whose ``_id`` is this JSON value.

    Text, ``{"$uuid"}`` and ``{"$objectId"}`` share one space of identities, as on the Data API.

    Raises:
        DataAPIError: SHRED_BAD_DOCID_VALUE for an empty text, SHRED_BAD_DOCID_TYPE for a value that can be no id,
            UNEXPECTED_DRIVER_ERROR for a lone surrogate.
    """
    if isinstance(value, str):
        if not value:
            raise DataAPIError.of(
                "SHRED_BAD_DOCID_VALUE", "An empty text cannot be an '_id': use at least one character."
            )
        if not value.isascii():
            write(value)  # refuses half of a surrogate pair, which no engine can keep
        return value
    if isinstance(value, bool):
        return _BOOLEAN + (b"true" if value else b"false")
    if value is None:
        return _NULL
    if isinstance(value, int | Decimal):
        return NUMBER + str(value).encode()
    if is_extended(value):
        ((kind, inner),) = value.items()
        if kind == "$date" and isinstance(inner, int) and not isinstance(inner, bool) and inner in _LONG:
            return _DATE + str(inner).encode()
        if (kind == "$uuid" and is_uuid(inner)) or (kind == "$objectId" and is_object_id(inner)):
            return str(inner).lower()
    raise DataAPIError.of(
        "SHRED_BAD_DOCID_TYPE",
        'An \'_id\' is a text, a number, true, false, null, {"$date": milliseconds}, {"$uuid": text} or'
        ' {"$objectId": 24 hexadecimal digits}: change the type of this one.',
    )


def new_id(kind: str | None) -> Any:
    """Return a new ``_id`` in JSON: of a collection's ``defaultId`` type, or (None) the plain text of a random UUID."""
    if kind is None:
        return str(uuid.uuid4())
    if kind == "objectId":
        return {"$objectId": _object_id()}
    return {"$uuid": str({"uuid": uuid.uuid4, "uuidv6": _uuid6, "uuidv7": _uuid7}[kind]())}


def _uuid6() -> uuid.UUID:
    """A version 1 UUID with the bits of its time in order (RFC 9562, 5.6)."""
    source = uuid.uuid1()
    high, low = source.time >> 12, source.time & 0xFFF
    return uuid.UUID(int=high << 80 | 0x6 << 76 | low << 64 | source.int & (1 << 64) - 1)


def _uuid7() -> uuid.UUID:
    """Milliseconds since 1970, then random bits (RFC 9562, 5.7)."""
    random = int.from_bytes(os.urandom(10), "big")
    tail = 0x7 << 76 | (random >> 68) << 64 | 0b10 << 62 | random & (1 << 62) - 1
    return uuid.UUID(int=time.time_ns() // 1_000_000 << 80 | tail)


_PROCESS: Final = os.urandom(5).hex()
_COUNTER: Final = itertools.count(int.from_bytes(os.urandom(3), "big"))


def _object_id() -> str:
    return f"{int(time.time()):08x}{_PROCESS}{next(_COUNTER) % (1 << 24):06x}"
