"""Values as the page shows them: what each looks like, cut to what a browser draws at once."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from array import array
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final

from langchain_kv.backends.base import Damaged, Found, Kind, Stored
from langchain_kv.embeddings import vectors
from langchain_kv.values import json_text as exact_text
from langchain_kv.values.codecs import UndecodableError, bytes_from_text
from langchain_kv.values.lenient import exact_number

__all__ = ["SHOWN_MAX", "fingerprint", "json_text", "payload_of", "shown"]

SHOWN_MAX: Final = 64 * 1024
"""Characters of a text, or bytes, that are shown; the whole is there to be downloaded."""

NUMBERS_MAX: Final = 8_192
"""Numbers of a vector that are shown."""

_LEAST_NUMBERS: Final = 4
_LEAST_BASE64: Final = 16  # characters: shorter words are base64 by chance


def shown(stored: Stored) -> dict[str, Any]:
    """Return what the page is told of a value.

    The field ``shape`` says what it looks like: ``json``, ``document``, ``vector``, ``text``, ``bytes`` or ``damaged``.
    What of it is shown stands in the other fields; ``is_cut`` says that there is more, ``is_base64`` that a text may be
    bytes.
    """
    if isinstance(stored, Damaged):
        return {"shape": "damaged", "reason": stored.reason}
    payload = payload_of(stored)
    about = {
        "kind": stored.kind.value,
        "size_bytes": len(payload),
        "expires_at_ms": stored.expires_at_ms,
        "version": fingerprint(stored),
    }
    if stored.kind is Kind.BYTES:
        return {**about, **_of_bytes(payload)}
    return {**about, **_of_json(stored.value, payload)}


def payload_of(found: Found) -> bytes:
    """Return the bytes that are downloaded: bytes as they are, other values as JSON text."""
    return found.value if found.kind is Kind.BYTES else json_text(found.value)


def json_text(value: Any) -> bytes:
    """Return the compact JSON text of a value that was read, with every digit of its numbers."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_no_float).encode()
    except _NoFloatError:  # which makes the other writer needed; that one has no infinities, which MongoDB may keep
        return exact_text.write(value)
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can express
        return json.dumps(value, separators=(",", ":")).encode()


def fingerprint(stored: Stored) -> str:
    """Return a short text that two values share only if they are equal, kind and expiry included."""
    if isinstance(stored, Damaged):
        return ""
    about = f"{stored.kind.value} {stored.expires_at_ms} ".encode()
    return hashlib.sha256(about + payload_of(stored)).hexdigest()[:32]


class _NoFloatError(Exception):
    """A value holds a number that a float would round, see ``lenient.exact_number``."""


def _no_float(value: Any) -> Any:
    if isinstance(value, Decimal):
        raise _NoFloatError
    raise TypeError(f"{type(value).__name__} is no type of JSON")


# -- what it looks like -----------------------------------------------------------------------------------------------


def _of_json(value: Any, payload: bytes) -> dict[str, Any]:
    if isinstance(value, str):
        inner = _parsed(value)
        return _of_text(value) if inner is None else {**_structure(inner, value), "is_text": True}
    return _structure(value, payload.decode())


def _of_text(value: str) -> dict[str, Any]:
    """Return how a text is shown, which may be the bytes of a byte store: where documents are kept, nothing tells.

    What they are is shown at once where there is no doubt, a vector or JSON; else the page offers to decode them.
    """
    data = None
    if len(value) >= _LEAST_BASE64 or value.endswith("="):
        with suppress(UndecodableError):
            data = bytes_from_text(value)
    if not data:
        return _text(value)
    found = _of_bytes(data)
    is_sure = found["shape"] not in ("text", "bytes")
    return {**(found if is_sure else _text(value)), "is_base64": True}


def _of_bytes(payload: bytes) -> dict[str, Any]:
    if vectors.count_of(payload):
        [numbers] = vectors.unpack([payload])
        if numbers is not None:
            return _vector(numbers, "float32" if payload[1] == array("f").itemsize else "float64")
    try:
        text = payload.decode()  # first: json.loads also reads UTF-16, and halves of surrogate pairs
    except UnicodeDecodeError:
        return _bytes(payload)
    inner = _parsed(text)
    if inner is not None:
        return {**_structure(inner, text), "is_text": True}
    if all(character.isprintable() or character in "\t\n\r" for character in text):
        return _text(text)
    return _bytes(payload)


def _structure(value: Any, text: str) -> dict[str, Any]:
    """Return how an object, a list or another JSON value is shown."""
    if isinstance(value, list) and _are_numbers(value):
        return _vector(value, "JSON")
    fields = _document_fields(value)
    if fields is not None:
        return _document(fields)
    return {"shape": "json", "text": text[:SHOWN_MAX], **_cut(text)}


def _bytes(payload: bytes) -> dict[str, Any]:
    return {"shape": "bytes", "base64": base64.b64encode(payload[:SHOWN_MAX]).decode(), **_cut(payload)}


def _text(text: str) -> dict[str, Any]:
    return {"shape": "text", "text": text[:SHOWN_MAX], **_cut(text)}


def _vector(numbers: list[Any], number_type: str) -> dict[str, Any]:
    floats = [_as_float(number) for number in numbers]
    return {
        "shape": "vector",
        "count": len(numbers),
        "number_type": number_type,
        "numbers": floats[:NUMBERS_MAX],
        "least": min(floats),
        "greatest": max(floats),
        "mean": _finite(sum(floats) / len(floats)),
        "norm": _finite(math.hypot(*floats)),
        "is_cut": len(floats) > NUMBERS_MAX,
    }


def _document(fields: dict[str, Any]) -> dict[str, Any]:
    content = fields["page_content"]
    own = ("page_content", "metadata", "type")
    more = {name: each for name, each in fields.items() if name not in own and each is not None}
    metadata = json_text(fields.get("metadata") or {}).decode()
    return {
        "shape": "document",
        "content": content[:SHOWN_MAX],
        "metadata": metadata[:SHOWN_MAX],
        "more": json_text(more).decode()[:SHOWN_MAX],
        "is_cut": len(content) > SHOWN_MAX or len(metadata) > SHOWN_MAX,
    }


def _document_fields(value: Any) -> dict[str, Any] | None:
    """Return the fields of a Document, as a ``DocumentStore`` keeps it or ``create_kv_docstore`` did; else None."""
    if not isinstance(value, dict):
        return None
    name = value.get("id")
    if value.get("lc") == 1 and isinstance(name, list) and name[-1:] == ["Document"]:
        value = value.get("kwargs")
    is_document = isinstance(value, dict) and isinstance(value.get("page_content"), str)
    return value if is_document and isinstance(value.get("metadata", {}), dict) else None


def _are_numbers(value: list[Any]) -> bool:
    """Tell whether a list is a vector: of several numbers, not all of them whole, and none beyond all bounds."""
    if len(value) < _LEAST_NUMBERS or not set(map(type, value)) <= {int, float, Decimal}:
        return False
    if all(type(each) is int for each in value):
        return False
    return all(map(math.isfinite, map(_as_float, value)))


def _as_float(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _parsed(text: str) -> Any:
    """Return the object or list whose JSON text this is; None for anything else."""
    if text.lstrip(" \t\n\r")[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text, parse_float=exact_number)
    except (ValueError, RecursionError):
        return None


def _cut(whole: str | bytes) -> dict[str, bool]:
    return {"is_cut": len(whole) > SHOWN_MAX}
