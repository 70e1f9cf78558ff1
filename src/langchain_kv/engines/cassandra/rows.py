"""The Data API's rows: ids and keys, documents spelled as the Data API spells them, and rows that are not right."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from decimal import Decimal
from os import urandom
from typing import Any, Final, NamedTuple

import msgspec

from langchain_kv.engines.base import DocId
from langchain_kv.errors import InvalidKeyError, InvalidValueError, StoreError
from langchain_kv.values.json_text import read, write
from langchain_kv.values.lenient import parse_json

__all__ = [
    "ID_COLUMNS",
    "BadRow",
    "Key",
    "body_of",
    "doc_id_of",
    "doc_json",
    "is_json",
    "key_of",
    "new_tx_id",
    "serialized",
    "shown_id",
]

Key = tuple[int, str]
"""The primary key of a row: the type of the ``_id`` (1 text, 2 number, 3 boolean, 4 null, 5 date) and its text."""

_TEXT: Final = 1

ID_COLUMNS: Final[dict[int, tuple[str, Callable[[str], Any]]]] = {
    1: ("query_text_values", lambda text: {"_id": text}),
    2: ("query_dbl_values", lambda text: {"_id": Decimal(text)}),
    3: ("query_bool_values", lambda text: {"_id": int(text == "true")}),
    4: ("query_null_values", lambda _: {"_id"}),
    5: ("query_timestamp_values", lambda text: {"_id": int(text)}),
}
"""Where a collection that indexes ``_id`` has it a second time, by the type of the ``_id``, and how."""

_RAW_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])

# What the Data API spells in another way: a number with an exponent, with a fraction that ends in 0, a very small one,
# -0; and an escape that is not needed.
# In a text it may be found wrongly: that costs time and nothing else.
_RESPELLED: Final = re.compile(
    rb"[:,\[\s]-?(?:[0-9.]+[eE]|[0-9]+\.[0-9]*0(?=[,\]}\s])|0\.000000)|[:,\[\s]-0(?=[,\]}\s])"
    rb"|\\(?:u(?!00[01])|/)"
)

_ESCAPE: Final = re.compile(rb"\\(?:u00[01][0-9a-f]|.)", re.DOTALL)
_LOWER: Final = re.compile(rb"\\u00[01][a-f]")
"""A control character's escape as JSON writers here spell it; the Data API's has a capital letter: ``\\u001F``."""


class BadRow(NamedTuple):
    """Stands for a row that is no document, which another program must have written.

    Attributes:
        reason: why, in words for the user; never what is stored.
    """

    reason: str


def key_of(doc_id: DocId) -> Key | None:
    """Return the key of a document's row; None where no row can have such an id."""
    if isinstance(doc_id, str):
        return _TEXT, doc_id
    if not doc_id or doc_id[0] not in ID_COLUMNS or doc_id[0] == _TEXT:
        return None
    try:
        return doc_id[0], doc_id[1:].decode()
    except UnicodeDecodeError:
        return None


def doc_id_of(key: tuple[int | None, str | None]) -> DocId | None:
    """Return the id of the document in a row; None where the key is none of the Data API's."""
    tag, text = key
    if text is None or tag not in ID_COLUMNS:
        return None
    return text if tag == _TEXT else bytes([tag]) + text.encode()


def shown_id(doc_id: DocId | None) -> str:
    """Return how an id is shown in messages: cut when long."""
    if doc_id is None:
        return "a key of no known type"
    text = repr(doc_id) if isinstance(doc_id, str) else doc_id[1:].decode(errors="replace")
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"


def serialized(key: tuple[int | None, str | None]) -> bytes:
    """Return the bytes of a key as Cassandra hashes them."""
    tag, text = key
    parts = (None if tag is None else tag.to_bytes(1, "big", signed=True), None if text is None else text.encode())
    return b"".join(b"\xff\xff\xff\xff" if part is None else len(part).to_bytes(4, "big") + part for part in parts)


def new_tx_id() -> uuid.UUID:
    """Return a new timeuuid: the time, and 62 random bits, so that no two are equal."""
    ticks = time.time_ns() // 100 + 0x01B21DD213814000  # since the beginning of the Gregorian calendar
    high = (ticks & 0xFFFFFFFF) << 32 | (ticks >> 32 & 0xFFFF) << 16 | 0x1000 | ticks >> 48 & 0x0FFF
    low = int.from_bytes(urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0100_0000_0000
    return uuid.UUID(int=high << 64 | low)


# -- writing ----------------------------------------------------------------------------------------------------------


def doc_json(key: Key, body: bytes) -> str:
    """Return the text that keeps a document: ``_id`` first, numbers as the Data API spells them.

    Raises:
        InvalidKeyError: the key is empty.
        InvalidValueError: the body is not a JSON object with this ``_id``.
    """
    if not key[1]:
        raise InvalidKeyError("A key must not be empty: the Data API could not list its collection any more.")
    if _starts_with_id(key, body) and not _RESPELLED.search(body):
        return _capitalized(body).decode()
    try:
        document = read(body)
    except StoreError as error:
        raise InvalidValueError(f"The document of {shown_id(doc_id_of(key))} cannot be stored: {error}") from None
    if not isinstance(document, dict) or "_id" not in document or _identity(document["_id"]) != key:
        raise InvalidValueError(
            f"The document of {shown_id(doc_id_of(key))} is not a JSON object with this _id: give it its key as _id."
        )
    return _capitalized(write({"_id": document.pop("_id"), **document})).decode()


def _capitalized(text: bytes) -> bytes:
    """Spell the escapes of control characters in JSON text as the Data API does."""
    if not _LOWER.search(text):  # it may find what is no escape, behind an escaped backslash: that costs time only
        return text
    return _ESCAPE.sub(lambda found: b"\\u00" + found[0][4:].upper() if len(found[0]) == 6 else found[0], text)


def _starts_with_id(key: Key, body: bytes) -> bool:
    start = b'{"_id":' + _id_text(key)
    return body.startswith(start) and body[len(start) : len(start) + 1] in (b",", b"}")


def _id_text(key: Key) -> bytes:
    tag, text = key
    if tag == _TEXT:
        return _capitalized(msgspec.json.encode(text))
    return text.encode() if tag < 5 else b'{"$date":' + text.encode() + b"}"


def _identity(value: Any) -> Key | None:
    """Return the key of the row of a document whose ``_id`` is this JSON value; None where it can be none."""
    if isinstance(value, str):
        return _TEXT, value
    if isinstance(value, bool):
        return 3, "true" if value else "false"
    if value is None:
        return 4, "null"
    if isinstance(value, int | Decimal):
        return 2, str(value)
    if isinstance(value, dict) and len(value) == 1:
        ((kind, inner),) = value.items()
        if kind == "$date" and isinstance(inner, int):
            return 5, str(inner)
        if kind in ("$uuid", "$objectId") and isinstance(inner, str):
            return _TEXT, inner.lower()
    return None


# -- reading ----------------------------------------------------------------------------------------------------------


def body_of(key: tuple[int | None, str | None], text: str | None) -> bytes | BadRow:
    """Return the body that a row keeps, or why it is none. Whether the rest of its text is JSON is left to the caller.

    Args:
        key: the row's.
        text: the row's ``doc_json``.
    """
    tag, name = key
    if tag is None or name is None or tag not in ID_COLUMNS:
        return BadRow("its key is none of the Data API's: remove the row with cqlsh")
    if not name:
        return BadRow("its key is empty, which the Data API cannot read: remove the row with cqlsh")
    if text is None:
        return BadRow("its row has no doc_json: store the value again, or delete the key")
    body = text.encode()
    return body if _starts_with_id((tag, name), body) else _looked_at((tag, name), body)


def is_json(body: bytes) -> bool:
    """Whether a body is a JSON object."""
    try:
        _RAW_FIELDS.decode(body)
    except (msgspec.DecodeError, RecursionError):
        try:
            return isinstance(parse_json(body), dict)
        except ValueError:
            return False
    return True


def _looked_at(key: Key, body: bytes) -> bytes | BadRow:
    """As ``body_of``, for a text that does not begin as the Data API's do."""
    try:
        document = read(body)
    except StoreError:
        return BadRow("its doc_json is not valid JSON: store the value again, or delete the key")
    if not isinstance(document, dict):
        return BadRow("its doc_json is not a JSON object: store the value again, or delete the key")
    if "_id" not in document:
        return BadRow("its doc_json has no _id: store the value again, or delete the key")
    if _identity(document["_id"]) != key:
        return BadRow("its doc_json has the _id of another document: store the value again, or delete the key")
    return body
