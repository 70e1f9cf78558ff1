"""Documents that LangChain's ``create_kv_docstore`` wrote, read without its loader: nothing is made of them by name.

It wrote ``{"lc": 1, "type": "constructor", "id": [..., "Document"], "kwargs": {...}}``, and in the place of metadata
that is no JSON a note, which its own loader refuses, and with it the whole batch::

    {"lc": 1, "type": "not_implemented", "id": ["datetime", "date"], "repr": "datetime.date(2026, 1, 1)"}

Such a repr is parsed here, and never evaluated.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from langchain_kv.documents.metadata import KINDS
from langchain_kv.values.codecs import UndecodableError
from langchain_kv.values.keys import shown

__all__ = ["fields_in"]

_DOCUMENT: Final = (
    ["langchain", "schema", "document", "Document"],
    ["langchain_core", "documents", "base", "Document"],
)
_ESCAPED: Final = "__lc_escaped__"

_MADE_BY: Final[dict[str, Callable[..., Any]]] = {
    "datetime.datetime": datetime,
    "datetime.date": date,
    "datetime.timezone": timezone,
    "datetime.timedelta": timedelta,
    "zoneinfo.ZoneInfo": ZoneInfo,
    "tzutc": lambda: UTC,  # of dateutil
    "UUID": UUID,
    "Decimal": Decimal,
    "set": set,
}
"""What the calls make that stand in reprs."""

_UTC: Final = re.compile(r"(?<=[ ,]tzinfo=)<UTC>(?=\)\Z)")
"""How the zone of pytz shows itself."""


def fields_in(text: bytes) -> dict[str, Any]:
    """Return the fields of the document whose serialized form this is.

    Raises:
        UndecodableError: it is none, or its metadata holds what cannot be kept.
    """
    try:
        found = json.loads(text)
        is_document = isinstance(found, dict) and found.get("lc") == 1 and found.get("id") in _DOCUMENT
        if not is_document or found.get("type") != "constructor" or not isinstance(found.get("kwargs"), dict):
            raise UndecodableError("its bytes are no Document that create_kv_docstore wrote")
        fields: dict[str, Any] = found["kwargs"]
        return {**fields, "metadata": _revived(fields.get("metadata", {}), "/metadata")}
    except UndecodableError:
        raise
    except (ValueError, RecursionError):
        raise UndecodableError("its bytes are no JSON text, as create_kv_docstore wrote it") from None


def _revived(value: Any, pointer: str) -> Any:
    if isinstance(value, list):
        return [_revived(item, f"{pointer}/{index}") for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and _ESCAPED in value:  # an object of the user's that looked like one of LangChain's
        return value[_ESCAPED]
    if value.get("lc") == 1 and isinstance(value.get("id"), list):
        if value.get("type") == "not_implemented":
            return _rescued(value, pointer)
        if value.get("type") in ("constructor", "secret"):
            raise UndecodableError(f"{shown(pointer)} in it is an object of LangChain's own, of which nothing is made")
    return {name: _revived(item, f"{pointer}/{name}") for name, item in value.items()}


def _rescued(note: dict[str, Any], pointer: str) -> Any:
    text = note.get("repr")
    try:
        found = _parsed(text) if isinstance(text, str) else None
    except Exception:  # whatever the parser and these types raise
        found = None
    if type(found) not in KINDS:
        name = ".".join(map(str, note["id"]))
        raise UndecodableError(f"{shown(pointer)} in it is a note of a {name:.80}, of which it cannot be made again")
    return found


def _parsed(text: str) -> Any:
    """Return the value of which this is the repr. What takes Python's parser too deep down, it refuses itself.

    Raises:
        ValueError: the repr has something else in it; or one of many others.
    """
    return _value(ast.parse(_UTC.sub("datetime.timezone.utc", text), mode="eval").body)


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=str() | bytes() | int() | float() | None):
            return node.value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Set():
            return set(map(_value, node.elts))
        case ast.Tuple():
            return tuple(map(_value, node.elts))
        case ast.Attribute() if ast.unparse(node) == "datetime.timezone.utc":
            return UTC
        case ast.Call():
            named = {word.arg: _value(word.value) for word in node.keywords if word.arg}
            return _MADE_BY[ast.unparse(node.func)](*map(_value, node.args), **named)
    raise ValueError
