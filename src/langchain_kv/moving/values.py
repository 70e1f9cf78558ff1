"""What was read, as what is to be written; and what two targets have under one key, compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson
from msgspec.structs import replace

from langchain_kv.backends.base import Backend, Damaged, Found, Kind, Page, Record, Stored
from langchain_kv.values.codecs import UndecodableError, bytes_from_text, encode_json

__all__ = ["JSON_KINDS", "as_bytes", "differences_of", "record_of"]

JSON_KINDS: Final = (Kind.JSON, Kind.TEXT)
"""Between these a target chooses, by what it can hold: they are one kind."""


def record_of(key: str, found: Found, target: Backend) -> Record:
    """Return the record that keeps in a target what was found in another.

    Raises:
        InvalidValueError: it is no value that a store writes; the text names the key.
    """
    if found.kind is Kind.BYTES:
        kind = Kind.BYTES if target.keeps_bytes else Kind.MARKED_BYTES
        return Record(key, found.value, kind, found.expires_at_ms)
    record = encode_json(key, found.value, found.expires_at_ms, decimals=True)
    return replace(record, kind=Kind.BODY_BLOB) if found.kind is Kind.BODY_BLOB else record


def as_bytes(pages: Iterable[Page]) -> Iterable[Page]:
    """Yield the pages of a collection of bytes with bytes in the place of base64 text, which some targets keep."""
    for page in pages:
        yield [(key, _bytes_of(stored)) for key, stored in page]


def _bytes_of(stored: Stored | None) -> Stored | None:
    if not isinstance(stored, Found) or stored.kind is Kind.BYTES or stored.value is None:
        return stored
    try:
        return Found(bytes_from_text(stored.value), Kind.BYTES, stored.expires_at_ms)
    except UndecodableError as error:
        return Damaged(str(error))


def differences_of(left: Stored, right: Stored) -> list[str]:
    """Return in what two stored values of one key differ: some of ``kind``, ``value`` and ``expires_at``.

    What is damaged differs from everything, as ``damaged``.
    """
    if isinstance(left, Damaged) or isinstance(right, Damaged):
        return ["damaged"]
    found = []
    if left.kind is not right.kind and not (left.kind in JSON_KINDS and right.kind in JSON_KINDS):
        found.append("kind")
    if not _equal(left.value, right.value):
        found.append("value")
    if left.expires_at_ms != right.expires_at_ms:
        found.append("expires_at")
    return found


def _equal(left: Any, right: Any) -> bool:
    """Tell whether two values are equal as JSON: by ``==``, but true is not 1."""
    if type(left) is bytes or type(left) is str or left != right:
        return bool(left == right) and type(left) is type(right)
    try:
        return orjson.dumps(left) == orjson.dumps(right) or _equal_parts(left, right)
    except TypeError:  # an integer beyond 64 bits
        return _equal_parts(left, right)


def _equal_parts(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return all(_equal_parts(value, right[name]) for name, value in left.items())
    if isinstance(left, list):
        return all(map(_equal_parts, left, right))
    return isinstance(left, bool) == isinstance(right, bool)
