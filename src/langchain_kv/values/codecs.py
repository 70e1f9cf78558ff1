"""Values as records keep them: JSON text or bytes, and back. Pure functions, no input or output."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
import orjson

from langchain_kv import limits
from langchain_kv.errors import DataAPIError, InvalidValueError
from langchain_kv.runtime.slices import SLICE_BYTES
from langchain_kv.values.keys import shown
from langchain_kv.values.plain import (
    EXTENDED_TYPES,
    PATH_START,
    VALUE_MAX_DEPTH,
    is_plain,
    is_plain_object,
    utf16_units,
)
from langchain_kv.values.records import Kind, Record
from langchain_kv.values.refusals import (
    refuse_deep,
    refuse_integer,
    refuse_name,
    refuse_no_bytes,
    refuse_number,
    refuse_type,
    unreadable_document,
)
from langchain_kv.values.secret import exact

__all__ = [
    "UndecodableError",
    "bytes_from_text",
    "encode_json",
    "encode_run",
    "exact_bytes",
    "write_run",
]


# Raises TypeError for most of what is no JSON; ``plain`` finds the rest.
_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS


NUMBER_BYTES: Final = 8
"""What an item of a list counts for before it is written."""


class UndecodableError(ValueError):
    """A stored value is not what a store writes. Its text says why and holds nothing of the value."""


# -- writing ----------------------------------------------------------------------------------------------------


def encode_json(key: str, value: Any, expires_at_ms: int | None = None, *, decimals: bool = False) -> Record:
    """Return the record that keeps a JSON value under ``key``, which was checked.

    Args:
        key: the key.
        value: the value.
        expires_at_ms: see ``Record``.
        decimals: whether numbers may be Decimals, as ``lenient.exact_numbers`` has them read; they keep their digits.

    Raises:
        InvalidValueTypeError: the value holds a type that JSON does not have.
        InvalidValueError: it holds NaN or an infinity, or is nested too deep.
    """
    try:
        # Before it is written: orjson bounds the nesting of lists and objects, and goes beyond its memory for tuples.
        plain = is_plain_object(value, 0, PATH_START) if type(value) is dict else is_plain(value, 0, PATH_START)
        text = _written(value)
    except (TypeError, AttributeError):
        # An integer beyond 64 bits, a subclass, a lone surrogate, deep nesting, NaN, or no JSON at all.
        return _encode_slowly(key, value, expires_at_ms, decimals=decimals)
    return Record(key, text, Kind.JSON if plain else Kind.TEXT, expires_at_ms)


def _written(value: Any) -> bytes:
    # A copy of just its size: what the writer returns has room to grow, and a batch of that makes the heap grow, too.
    return b"%b" % orjson.dumps(value, None, _OPTIONS)


def encode_run(
    pairs: Iterable[tuple[str, Any]], encode_value: Callable[[Any], Any]
) -> tuple[list[Any], Exception | None]:
    """Return what keeps each of the first values: a JSON value, or bytes; and what the one after them raised.

    They end with about SLICE_BYTES.
    """
    encoded: list[Any] = []
    size_bytes = 0
    try:
        for _, value in pairs:
            kept = encode_value(value)
            encoded.append(kept)
            kind = type(kept)
            if kind is str or kind is bytes:
                size_bytes += len(kept)
            elif kind is list or kind is tuple:
                size_bytes += len(kept) * NUMBER_BYTES
            if size_bytes >= SLICE_BYTES:
                break
    except Exception as error:
        return encoded, error
    return encoded, None


def write_run(keys: Sequence[str], encoded: Sequence[Any], expires_at_ms: int | None) -> list[Record]:
    """Return records of the first of these values, each bytes or plain JSON, up to SLICE_BYTES of them, and before the
    first that is to be looked at by itself."""
    write, options, json_kind = orjson.dumps, _OPTIONS, Kind.JSON
    raw = Kind.BYTES
    if set(map(type, encoded)) == {bytes}:  # of which ``encode_run`` took as many as make a slice
        return [Record(key, value, raw, expires_at_ms) for key, value in zip(keys, encoded, strict=True)]
    records: list[Record] = []
    size_bytes = 0
    with suppress(TypeError):
        for key, value in zip(keys, encoded, strict=True):
            if type(value) is bytes:
                record = Record(key, value, Kind.BYTES, expires_at_ms)
            else:
                record = Record(key, b"%b" % write(value, None, options), json_kind, expires_at_ms)  # see _written
            records.append(record)
            size_bytes += len(record.payload)
            if size_bytes >= SLICE_BYTES:
                break
    return records


def exact_bytes(value: Any, key: str = "") -> bytes:
    """Return the bytes of a value as an exact ``bytes``, copied where they can still change.

    Args:
        value: the bytes.
        key: for messages; they do not tell an empty one.

    Raises:
        InvalidValueTypeError: the value is not bytes, bytearray or memoryview.
    """
    if type(value) is bytes:
        if value[:2] == b'{"' and (reason := unreadable_document(value)):
            raise InvalidValueError(f"{_value_of(key)} {reason}")
        return value
    if not isinstance(value, bytes | bytearray | memoryview):
        refuse_no_bytes(key, value)
    try:
        copied = memoryview(value).tobytes()
    except ValueError:
        raise InvalidValueError(f"{_value_of(key)} is a memoryview that was released: give the bytes.") from None
    return exact_bytes(copied, key)


def _value_of(key: str) -> str:
    return f"The value of key {shown(key)}" if key else "The value"


def _encode_slowly(key: str, value: Any, expires_at_ms: int | None, *, decimals: bool) -> Record:
    copy = _JSONCopy(key, decimals=decimals)
    value, plain = copy.of(value, 0, PATH_START)
    if copy.holds_decimals:
        return Record(key, _with_decimals(key, value), Kind.JSON if plain else Kind.TEXT, expires_at_ms)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if not _is_utf8(text):  # ASCII escapes keep a lone surrogate, which no UTF-8 text can hold
        text = json.dumps(value, separators=(",", ":"))
    return Record(key, text.encode(), Kind.JSON if plain else Kind.TEXT, expires_at_ms)


def _with_decimals(key: str, value: Any) -> bytes:
    from langchain_kv.values import json_text  # here: stores never need it

    try:
        return json_text.write(value)
    except DataAPIError:
        raise InvalidValueError(
            f"{_value_of(key)} holds a number of more digits than a float, and half of a surrogate pair, which are not"
            " written together: repair the text."
        ) from None


class _JSONCopy:
    """Copies a value into exact JSON types: subclasses become their base, tuples lists."""

    def __init__(self, key: str, *, decimals: bool) -> None:
        self.holds_decimals = False
        self._takes_decimals = decimals
        self._key = key
        self._path: list[str | int] = []

    def of(self, value: Any, depth: int, path: int) -> tuple[Any, bool]:
        """Return the copy, and whether the Data API takes it as it is."""
        if value is None or isinstance(value, bool):
            return value, True
        if isinstance(value, str):
            text = exact(value)
            return text, _is_utf8(text)
        if isinstance(value, int):
            return self._integer(value)
        if isinstance(value, float):
            number = float.__float__(value)
            if not math.isfinite(number):
                refuse_number(self._key, number, self._path)
            return number, True
        if not isinstance(value, dict | list | tuple):
            return self._decimal(value)
        if depth >= VALUE_MAX_DEPTH:
            refuse_deep(self._key, VALUE_MAX_DEPTH)
        return self._object(value, depth, path) if isinstance(value, dict) else self._array(value, depth, path)

    def _integer(self, value: int) -> tuple[int, bool]:
        number = int.__int__(value)
        try:
            digits = len(str(abs(number)))
        except ValueError:
            refuse_integer(self._key, self._path)
        return number, digits <= limits.NUMBER_MAX_DIGITS

    def _decimal(self, value: Any) -> tuple[Any, bool]:
        from decimal import Decimal  # here: this module is loaded with every store

        if not self._takes_decimals or type(value) is not Decimal:
            refuse_type(self._key, value, self._path)
        self.holds_decimals = True
        return value, len(value.as_tuple().digits) <= limits.NUMBER_MAX_DIGITS

    def _object(self, value: dict[Any, Any], depth: int, path: int) -> tuple[dict[str, Any], bool]:
        plain = depth < limits.DOCUMENT_MAX_DEPTH - 1
        result: dict[str, Any] = {}
        for name, item in value.items():
            if not isinstance(name, str):
                refuse_name(self._key, name, self._path)
            text = exact(name)
            is_extended = text in EXTENDED_TYPES and isinstance(item, str | int) and not isinstance(item, bool)
            below = path + 1 + utf16_units(text)
            self._path.append(text)
            result[text], item_plain = self.of(item, depth + 1, below)
            self._path.pop()
            good_name = bool(text) and text[0] != "$" and _is_utf8(text) and below <= limits.PATH_MAX_UTF16
            plain = plain and item_plain and (good_name or (is_extended and len(value) == 1))
        return result, plain

    def _array(self, value: list[Any] | tuple[Any, ...], depth: int, path: int) -> tuple[list[Any], bool]:
        plain = depth < limits.DOCUMENT_MAX_DEPTH - 1
        result: list[Any] = []
        for index, item in enumerate(value):
            self._path.append(index)
            copied, item_plain = self.of(item, depth + 1, path)
            self._path.pop()
            result.append(copied)
            plain = plain and item_plain
        return result, plain


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# -- reading ----------------------------------------------------------------------------------------------------


def bytes_from_text(value: Any) -> bytes | None:
    """Return the bytes of base64 text; None stays None.

    Raises:
        UndecodableError: the value is no text, or not strict base64.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise UndecodableError(f"it is not base64 text but {type(value).__name__}: a JSON store wrote it?")
    try:
        # A fifth of the standard library's time, and as strict with every Python, which base64 is from 3.13 on.
        decoded: bytes = msgspec.convert(value, bytes)
        return decoded
    except (msgspec.ValidationError, UnicodeEncodeError):
        raise UndecodableError("its text is not base64: a JSON store wrote it?") from None
