"""The filter columns of a row: what is indexed of its document, taken apart as the Data API takes it apart.

Each path of a field or of an element of an array is a text, ``tags.0``, in which ``&.`` stands for a dot in a name. A
value of it is in the column of its type; and by its hash, behind the path and a space, in ``array_contains``, as each
element of an array is behind the path of the array. (Read in the Data API's source, and held against its rows.)
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from langchain_kv.engines.indexing import Indexing
from langchain_kv.engines.vectors import VECTOR
from langchain_kv.values.json_text import read
from langchain_kv.values.plain import utf16_units

__all__ = ["FILTER_COLUMNS", "containing", "fields_of", "filters_of"]

FILTER_COLUMNS: Final = (
    "exist_keys",
    "array_size",
    "array_contains",
    "query_bool_values",
    "query_dbl_values",
    "query_text_values",
    "query_timestamp_values",
    "query_null_values",
)
"""In the order in which ``filters_of`` answers."""

_HASHED_FROM: Final = 22
"""UTF-16 units from which a value's text is hashed; a hash has as many characters, so it is never taken for a text."""

_RAW_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def filters_of(fields: Mapping[str, bytes], indexing: Indexing) -> tuple[Any, ...]:
    """Return the values of the FILTER_COLUMNS of a document's row.

    Args:
        fields: the JSON text of each field, valid as the Data API takes it. A vector has a column and an index of its
            own: of it there is only whether it is there, whatever the collection indexes.
        indexing: what its collection indexes.
    """
    row = _Row()
    # Not all fields are parsed: the largest, as a rule, are not indexed.
    parsed = {name: read(text) for name, text in fields.items() if name != VECTOR and indexing.has_some_of(name)}
    for name, value in indexing.pruned(parsed).items():
        row.add(_segment(name), value)
    if fields.get(VECTOR, b"null") != b"null":
        row.exist.add(VECTOR)
    return row.exist, row.sizes, row.contains, row.booleans, row.numbers, row.texts, row.moments, row.nulls


def containing(field: str, text: str) -> str:
    """Return the entry of ``array_contains`` in rows whose field is this text, or an array with it."""
    return f"{_segment(field)} {_hash(text)}"


def fields_of(document: bytes) -> dict[str, bytes]:
    """Return the JSON text of each field of a document."""
    return {name: bytes(text) for name, text in _RAW_FIELDS.decode(document).items()}


class _Row:
    def __init__(self) -> None:
        self.exist: set[str] = set()
        self.sizes: dict[str, int] = {}
        self.contains: set[str] = set()
        self.booleans: dict[str, int] = {}
        self.numbers: dict[str, Decimal] = {}
        self.texts: dict[str, str] = {}
        self.moments: dict[str, int] = {}
        self.nulls: set[str] = set()

    def add(self, path: str, value: Any) -> None:
        """Enter a value, and what is inside it."""
        self.exist.add(path)
        if isinstance(value, list):
            self.sizes[path] = len(value)
            self.texts[path] = _hash(value)
            self.contains.update(f"{path} {_hash(element)}" for element in value)
            for at, element in enumerate(value):
                self.add(f"{path}.{at}", element)
        elif isinstance(value, dict) and (extended := _extended(value)) is None:
            self.texts[path] = _hash(value)
            for name, field in value.items():
                self.add(f"{path}.{_segment(name)}", field)
        else:
            self._add_scalar(path, extended if isinstance(value, dict) else value)

    def _add_scalar(self, path: str, value: Any) -> None:
        if isinstance(value, _Moment):
            self.moments[path] = value.ms
        elif value is None:
            self.nulls.add(path)
        elif isinstance(value, bool):
            self.booleans[path] = int(value)
        elif isinstance(value, str):
            self.texts[path] = value
        else:
            self.numbers[path] = Decimal(value)
        if path != "_id":
            self.contains.add(f"{path} {_hash(value)}")


class _Moment(msgspec.Struct, frozen=True):
    """A date, ``{"$date": ms}``."""

    ms: int


def _extended(value: dict[str, Any]) -> _Moment | str | None:
    """Return what an object of the extended kind stands for: a date; a text. None for a plain object."""
    if len(value) != 1:
        return None
    ((kind, inner),) = value.items()
    if kind == "$date" and type(inner) is int:
        return _Moment(inner)
    if kind in ("$uuid", "$objectId") and isinstance(inner, str):
        return inner.lower()
    return None


def _segment(name: str) -> str:
    return name.replace("&", "&&").replace(".", "&.") if "." in name or "&" in name else name


def _hash(value: Any) -> str:
    """Return the text that stands for a value: a letter for its type and the value, or of both the MD5 if long."""
    if isinstance(value, dict) and "$date" in value:
        value = _extended(value) or value
    if isinstance(value, str):
        return _bounded(f"S{value}")
    if value is None:
        return "Z"
    if isinstance(value, bool):
        return f"B{int(value)}"
    if isinstance(value, _Moment):
        return _bounded(f"T{value.ms}")
    if isinstance(value, list):
        return _bounded("\n".join([f"A{len(value)}", *map(_hash, value)]))
    if isinstance(value, dict):
        lines = [line for name, field in value.items() for line in (name, _hash(field))]
        return _bounded("\n".join([f"O{len(value)}", *lines]))
    return _bounded(f"N{Decimal(value):f}")


def _bounded(text: str) -> str:
    if utf16_units(text) < _HASHED_FROM:
        return text
    # Not for secrecy: whoever finds two values with one hash has a row too many looked at.
    return b64encode(hashlib.md5(text.encode(), usedforsecurity=False).digest()).rstrip(b"=").decode()
