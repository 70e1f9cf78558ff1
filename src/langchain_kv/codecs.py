"""Values and the JSON documents that keep them: pure functions, no input or output.

A value ``v`` under key ``k`` is stored as ``{"_id": k, "value": v}``, bytes as base64 text: what langchain-astradb
stores. Where an engine keeps bytes as they are they take another form (``kept.py``).
JSON that the Data API refuses inside a document is stored as text, with a marker beside it::

    {"_id": k, "value": "<JSON text>", "encoding": "json"}

The third-party readers and writers are imported at first use: importing this module costs nothing.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

from langchain_kv import limits
from langchain_kv.errors import InvalidValueError
from langchain_kv.kept import bytes_document, kept_body
from langchain_kv.keys import shown
from langchain_kv.plain import (
    EXTENDED_TYPES,
    PATH_START,
    VALUE_MAX_DEPTH,
    are_plain,
    is_plain,
    utf16_units,
)
from langchain_kv.refusals import (
    refuse_deep,
    refuse_integer,
    refuse_name,
    refuse_no_bytes,
    refuse_number,
    refuse_type,
    unreadable_document,
)
from langchain_kv.secret import exact
from langchain_kv.slices import SLICE_BYTES, Steps

__all__ = [
    "Damaged",
    "Document",
    "Stored",
    "UndecodableError",
    "bytes_from_text",
    "bytes_to_text",
    "encode_bytes_document",
    "encode_document",
    "encode_documents",
    "encode_kept_bytes",
    "parse_document",
    "stored_value",
]

Document = dict[str, Any]
"""A parsed document. Integers are exact whatever their size."""

_SIZE_MAX = limits.DOCUMENT_MAX_UTF16
_MARKER = "json"
# Whatever the key, of which JSON may make six characters a byte.
_BYTES_ALWAYS_FIT = (_SIZE_MAX - len('{"_id":"","value":""}') - 6 * limits.KEY_MAX_BYTES) // 4 * 3
_RUN = 100
"""Values that are looked at together: what is done in vain for one that is unusual, is done for so many."""


class Damaged(NamedTuple):
    """Stands in a result for a stored document that cannot be read.

    Attributes:
        reason: why, in words for the user; never the stored text.
    """

    reason: str


Stored = Document | bytes | Damaged
"""What is read of a key: bytes are a value that was kept as it is, where a backend keeps bytes."""


class UndecodableError(ValueError):
    """A stored value is not what a store writes. Its text says why and holds nothing of the value."""


# -- writing ----------------------------------------------------------------------------------------------------


def encode_document(key: str, value: Any) -> bytes:
    """Return the compact JSON text of the document that keeps ``value`` under ``key`` (which was checked).

    Raises:
        InvalidValueTypeError: the value holds a type that JSON does not have.
        InvalidValueError: it holds NaN or an infinity, is nested too deep, or its document is too large.
    """
    write = _write_json or _writer()
    try:
        text = write(value, None, _OPTIONS)
    except TypeError:  # an integer beyond 64 bits, a subclass, a lone surrogate, deep nesting, or no JSON at all
        return _encode_slowly(key, value)
    return _document(key, value, text, is_usual=False)


def _document(key: str, value: Any, text: bytes, *, is_usual: bool) -> bytes:
    """Return the document of a value that was written; it is looked at unless it is known as a usual one."""
    try:
        plain = is_usual or is_plain(value, 0, PATH_START)
    except TypeError:  # NaN, a UUID, an Enum
        return _encode_slowly(key, value)
    if not plain:
        return _envelope(key, text.decode())
    # A copy of just its size: what the writer returns has room to grow, and a batch of that makes the heap grow, too.
    document = b'{"_id":%b,"value":%b}' % ((_write_json or _writer())(key, None, 0), text)
    return document if len(document) <= _SIZE_MAX else _checked_size(key, document)


def _encoded(key: str, value: Any) -> Steps[bytes]:
    """As ``encode_document``, a large value in parts."""
    write = _write_json or _writer()
    try:
        text = write(value, None, _OPTIONS)
    except TypeError:
        return _encode_slowly(key, value)
    is_usual = len(text) >= SLICE_BYTES and (yield from are_plain([value]))
    return _document(key, value, text, is_usual=is_usual)


def encode_documents(pairs: Mapping[str, Any]) -> Steps[list[tuple[str, bytes]]]:
    """Return each key with its document, as ``encode_document`` does, or raise for the first that it would raise for.

    The usual values are looked at together.
    """
    if len(pairs) == 1:
        ((key, value),) = pairs.items()
        return [(key, (yield from _encoded(key, value)))]
    records: list[tuple[str, bytes]] = []
    left = list(pairs.items())
    size_bytes = 0
    while len(records) < len(left):
        if size_bytes >= SLICE_BYTES:
            yield
            size_bytes = 0
        run = left[len(records) : len(records) + _RUN]
        written, written_bytes = _write_run(run)
        if written and (yield from are_plain([value for _, value in run[: len(written)]])):
            records += written
            size_bytes += written_bytes
            continue
        for key, value in run[: len(written) or 1]:
            document = yield from _encoded(key, value)
            records.append((key, document))
            size_bytes += len(document)
            if size_bytes >= SLICE_BYTES:
                yield
                size_bytes = 0
    return records


def _write_run(run: list[tuple[str, Any]]) -> tuple[list[tuple[str, bytes]], int]:
    """Write the documents of the first values, up to SLICE_BYTES and to the first one that is to be looked at by
    itself; return them, and their size."""
    write = _write_json or _writer()
    options = _OPTIONS
    written: list[tuple[str, bytes]] = []
    size_bytes = 0
    with suppress(TypeError):
        for key, value in run:
            document = b'{"_id":%b,"value":%b}' % (write(key, None, 0), write(value, None, options))
            if len(document) > _SIZE_MAX:
                break
            written.append((key, document))
            size_bytes += len(document)
            if size_bytes >= SLICE_BYTES:
                break
    return written, size_bytes


_write_json: Callable[[Any, None, int], bytes] | None = None
_OPTIONS = 0


def _writer() -> Callable[[Any, None, int], bytes]:
    """Return, and keep, what writes compact JSON and with _OPTIONS raises TypeError for most of what is none."""
    global _write_json, _OPTIONS  # noqa: PLW0603 - an import statement in each call would take a tenth of its time
    import orjson

    _OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
    _write_json = orjson.dumps
    return _write_json


def encode_bytes_document(key: str, value: Any) -> bytes:
    """Return the compact JSON text of the document that keeps ``value`` (bytes or None) as base64 text.

    Raises:
        InvalidValueTypeError: the value is not bytes, bytearray, memoryview or None.
        InvalidValueError: its document would be too large.
    """
    if value is None:
        return encode_document(key, None)
    value = _exact_bytes(key, value)
    document = bytes_document(key, value)
    if len(document) > _SIZE_MAX and (units := utf16_units(document.decode())) > _SIZE_MAX:
        base64_size = (len(value) + 2) // 3 * 4
        fitting = (_SIZE_MAX - (units - base64_size)) // 4 * 3
        raise InvalidValueError(
            f"The value of key {shown(key)} has {len(value):,} bytes, the limit with this key is {fitting:,}: split it"
            " over several keys, or compress it."
        )
    return document


def encode_kept_bytes(key: str, value: Any) -> bytes:
    """Return the body that keeps ``value`` where bytes are kept as they are; refuse what is refused elsewhere."""
    if type(value) is not bytes or value[:2] == b'{"':
        if value is None:
            return encode_bytes_document(key, None)
        value = _exact_bytes(key, value)
    if len(value) > _BYTES_ALWAYS_FIT:
        encode_bytes_document(key, value)
    return kept_body(value)


def bytes_to_text(value: Any) -> str | None:
    """Return bytes as the base64 text that keeps them; None stays None."""
    if value is None:
        return None
    return base64.b64encode(_exact_bytes("", value)).decode("ascii")


def _exact_bytes(key: str, value: Any) -> bytes:
    """Return a value as bytes themselves, for encoders that take no subclass; without a key, none is named."""
    if type(value) is bytes:
        if value[:2] == b'{"' and (reason := unreadable_document(value)):
            raise InvalidValueError(f"The value of key {shown(key)} {reason}")
        return value
    if not isinstance(value, bytes | bytearray | memoryview):
        refuse_no_bytes(key, value)
    try:
        copied = memoryview(value).tobytes()
    except ValueError:
        raise InvalidValueError(
            f"The value of key {shown(key)} is a memoryview that was released: give the bytes."
        ) from None
    return _exact_bytes(key, copied)


def _encode_slowly(key: str, value: Any) -> bytes:
    value, plain = _JSONCopy(key).of(value, 0, PATH_START)
    if not plain:
        # ASCII escapes keep a lone surrogate, which no UTF-8 text can hold.
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return _envelope(key, text if _is_utf8(text) else json.dumps(value, separators=(",", ":")))
    document = json.dumps({"_id": key, "value": value}, ensure_ascii=False, separators=(",", ":"))
    return _checked_size(key, document.encode())


class _JSONCopy:
    """Copies a value into exact JSON types: subclasses become their base, tuples lists."""

    def __init__(self, key: str) -> None:
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
            refuse_type(self._key, value, self._path)
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


def _envelope(key: str, text: str) -> bytes:
    document = {"_id": key, "value": text, "encoding": _MARKER}
    return _checked_size(key, json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())


def _checked_size(key: str, document: bytes) -> bytes:
    # UTF-16 never takes more units than UTF-8 takes bytes, so only documents that are long in bytes are counted.
    if len(document) > _SIZE_MAX:
        units = utf16_units(document.decode())
        if units > _SIZE_MAX:
            raise InvalidValueError(
                f"The value of key {shown(key)} makes a document of {units:,} characters (UTF-16 units), the limit is"
                f" {limits.DOCUMENT_MAX_UTF16:,}: split the value over several keys, or compress it."
            )
    return document


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# -- reading ----------------------------------------------------------------------------------------------------


def parse_document(body: bytes) -> Document | Damaged:
    """Return the document of a JSON text, or Damaged where it is none.

    Integers are exact. What the fast reader refuses and JSON allows (a number beyond a float's range, an escaped lone
    surrogate) is read all the same.
    """
    read = _read_json or _reader()
    try:
        document = read(body)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        try:
            document = json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            return Damaged(f"the stored document is not valid JSON ({type(error).__name__})")
    if not isinstance(document, dict):
        return Damaged(f"the stored document is not a JSON object but {type(document).__name__}")
    return document


_read_json: Callable[[bytes], Any] | None = None


def _reader() -> Callable[[bytes], Any]:
    """Return, and keep, what reads JSON with exact integers."""
    global _read_json  # noqa: PLW0603 - see _writer
    import msgspec

    _read_json = msgspec.json.Decoder().decode
    return _read_json


def stored_value(document: Document | bytes) -> Any:
    """Return the JSON value that a document keeps; None where it has none. Bytes are base64 text.

    Raises:
        UndecodableError: it carries a marker that no store of this version writes, or text that does not parse.
    """
    if isinstance(document, bytes):
        return bytes_to_text(document)
    value = document.get("value")
    if "encoding" not in document:
        return value
    marker = document["encoding"]
    if marker != _MARKER or not isinstance(value, str):
        name = shown(marker) if isinstance(marker, str) else type(marker).__name__
        raise UndecodableError(
            f"it is stored in an encoding that this version does not know ({name} beside a value of type"
            f" {type(value).__name__})"
        )
    parsed = _parse_text(value)
    if isinstance(parsed, Damaged):
        raise UndecodableError(parsed.reason)
    return parsed[0]


def _parse_text(text: str) -> tuple[Any] | Damaged:
    import msgspec

    try:
        return (msgspec.json.decode(text),)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        try:
            return (json.loads(text, parse_constant=_refuse_constant),)
        except (ValueError, RecursionError):
            return Damaged("the text of the value is not valid JSON")


def bytes_from_text(value: Any) -> bytes | None:
    """Return the bytes of base64 text; None stays None.

    Raises:
        UndecodableError: the value is no text, or not strict base64.
    """
    if value is None:
        return None
    import msgspec

    if not isinstance(value, str):
        raise UndecodableError(f"it is not base64 text but {type(value).__name__}: a JSON store wrote it?")
    try:
        # A fifth of the standard library's time, and as strict with every Python, which base64 is from 3.13 on.
        decoded: bytes = msgspec.convert(value, bytes)
        return decoded
    except (msgspec.ValidationError, UnicodeEncodeError):
        raise UndecodableError("its text is not base64: a JSON store wrote it?") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
