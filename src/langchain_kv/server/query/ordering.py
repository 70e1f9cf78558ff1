"""The order of JSON values: as updates compare them, and as sorts do, which see what the Data API's indexes hold."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

from langchain_kv.server.documents.ids import is_extended, parse_id
from langchain_kv.server.query.matching import MISSING

__all__ = ["SortKey", "id_key", "sort_key", "value_key"]

SortKey = tuple[Any, ...]
"""Orders a value among others: its type's rank first, then what orders it among its like."""

_MISSING, _NULL, _NUMBER, _TEXT, _OBJECT, _ARRAY, _BOOLEAN, _DATE = range(8)
_HASH_LENGTH: Final = 22


def value_key(value: Any) -> SortKey:
    """Return the key by which ``$min`` and ``$max`` compare: null, numbers, texts, objects, arrays, booleans.

    Objects compare field by field in their own order, arrays element by element; of two that begin alike the longer one
    is greater. A date is an object here. Texts compare by UTF-16 units.
    """
    if isinstance(value, dict):
        return _OBJECT, [(_units(name), value_key(field)) for name, field in value.items()]
    if isinstance(value, list):
        return _ARRAY, [value_key(element) for element in value]
    return _scalar_key(value)


def sort_key(value: Any) -> SortKey:
    """Return the key by which ``sort`` compares: missing, null, numbers, texts, booleans, dates.

    Objects and arrays stand among the texts, at the place of the text that the Data API indexes for them.
    """
    if value is MISSING:
        return (_MISSING,)
    if is_extended(value):
        ((kind, inner),) = value.items()
        is_date = kind == "$date" and type(inner) is int  # what no server checked may be anything
        return (_DATE, inner) if is_date else (_TEXT, _units(str(inner).lower()))
    if isinstance(value, dict | list):
        return _TEXT, _units(_digest(value))
    return _scalar_key(value)


def id_key(value: Any) -> SortKey:
    """Return the key by which documents are ordered that are equal otherwise: null, numbers, texts, dates, booleans."""
    identity = parse_id(value)
    return (_TEXT, _units(identity)) if isinstance(identity, str) else value_key(value)


def _scalar_key(value: Any) -> SortKey:
    if value is None:
        return (_NULL,)
    if isinstance(value, bool):
        return _BOOLEAN, value
    if isinstance(value, str):
        return _TEXT, _units(value)
    return _NUMBER, value


def _units(text: str) -> bytes:
    """Return what orders a text by UTF-16 units, as Java does."""
    return text.encode("utf-16-be", "surrogatepass")


def _digest(value: Any) -> str:
    """Return what the Data API indexes for a value in an object or an array: a short one itself, of others the MD5."""
    if isinstance(value, list):
        return _bounded("\n".join([f"A{len(value)}", *map(_digest, value)]))
    if isinstance(value, dict):
        if is_extended(value) and "$date" in value:
            return _bounded(f"T{value['$date']}")
        return _bounded("\n".join([f"O{len(value)}", *_digests_of_fields(value)]))
    if isinstance(value, bool):
        return "B1" if value else "B0"
    if value is None:
        return "Z"
    if isinstance(value, str):
        return _bounded("S" + value)
    return _bounded("N" + (f"{value:f}" if isinstance(value, Decimal) and abs(value.adjusted()) < 1000 else str(value)))


def _digests_of_fields(value: dict[str, Any]) -> Iterable[str]:
    for name, field in value.items():
        yield name
        yield _digest(field)


def _bounded(text: str) -> str:
    if len(text) < _HASH_LENGTH:
        return text
    digest = hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode().rstrip("=")
