"""Why a value cannot be stored: which key, where in the value, what it is, and what to store in its place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import Final, NoReturn

from langchain_kv.errors import InvalidValueError, InvalidValueTypeError
from langchain_kv.values.keys import shown, type_name

__all__ = [
    "name_key",
    "refuse_deep",
    "refuse_integer",
    "refuse_name",
    "refuse_no_bytes",
    "refuse_number",
    "refuse_type",
    "unreadable_document",
]

_DOCSTORE: Final = "keep Documents in DocumentStore"

_WITH_METHODS: Final = (
    ("isoformat", "convert it with .isoformat()"),
    ("model_dump", "convert it with .model_dump(mode='json')"),
    ("tolist", "convert it with .tolist()"),
    ("total_seconds", "convert it with .total_seconds()"),
    ("as_integer_ratio", "convert it with float() or str()"),
    ("__dataclass_fields__", "convert it with dataclasses.asdict()"),
    ("__iter__", "convert it with list() or dict()"),
)
"""What turns a value into JSON, by what it can do."""

_DOCUMENT: Final = b'{"lc": 1, "type": "constructor", "id": ["langchain", "schema", "document", "'
_NOT_LOADED: Final = re.compile(
    rb'(?<!"__lc_escaped__": )\{"lc": 1, "type": "not_implemented", "id": (\["[^"\]]*"(?:, "[^"\]]*")*\])'
)


def _at(path: Sequence[str | int]) -> str:
    """Return in words where in a value something stands; empty for the value itself."""
    steps = [f"[{shown(step)}]" for step in path[:10]]
    return f" at {''.join(steps)}{'...' if len(path) > 10 else ''}" if steps else ""


def refuse_number(key: str, value: float, path: Sequence[str | int]) -> NoReturn:
    """Raise for NaN and the infinities."""
    raise InvalidValueError(
        f"The value of key {shown(key)} holds {value!r}{_at(path)}, which JSON does not have: store None or text in its"
        " place."
    )


def refuse_integer(key: str, path: Sequence[str | int]) -> NoReturn:
    """Raise for an integer of thousands of digits."""
    raise InvalidValueError(
        f"The value of key {shown(key)} holds{_at(path)} an integer of more digits than Python converts to text: store"
        " it as hexadecimal text."
    ) from None


def refuse_deep(key: str, levels: int) -> NoReturn:
    """Raise for more nesting than ``levels``; an empty key is not told."""
    raise InvalidValueError(
        f"The value{f' of key {shown(key)}' if key else ''} is nested more than {levels} levels deep, or holds itself:"
        " flatten it, or store it as text."
    )


def refuse_name(key: str, name: object, path: Sequence[str | int]) -> NoReturn:
    """Raise for a field name that is no text."""
    raise InvalidValueTypeError(
        f"The value of key {shown(key)} holds{_at(path)} an object with a field name of type {type_name(name)}: JSON's"
        " names are strings, convert it with str()."
    )


def refuse_type(key: str, value: object, path: Sequence[str | int]) -> NoReturn:
    """Raise for a type that JSON does not have; an empty key is not told."""
    raise InvalidValueTypeError(
        f"The value{f' of key {shown(key)}' if key else ''} holds{_at(path)} an object of type {type_name(value)},"
        f" which is not JSON (dict, list, str, int, float, bool, None): {_conversion(value)}."
    )


def refuse_no_bytes(key: str, value: object) -> NoReturn:
    """Raise for what is given to a byte store and is no bytes; an empty key is not told."""
    if _is_document(value):
        how = _DOCSTORE
    elif isinstance(value, str):
        how = "encode text with .encode(), or keep it in KVStore or AstraDBStore"
    else:
        how = "keep JSON values in KVStore or AstraDBStore"
    raise InvalidValueTypeError(
        f"A byte store keeps bytes, got {type_name(value)}{f' for key {shown(key)}' if key else ''}: {how}."
    )


def _conversion(value: object) -> str:
    if _is_document(value):
        return _DOCSTORE
    if isinstance(value, bytes | bytearray | memoryview):
        return "keep bytes in KVByteStore or AstraDBByteStore, or convert them to text"
    if isinstance(value, Enum):
        return "convert it with .value"
    return next(
        (how for method, how in _WITH_METHODS if hasattr(type(value), method)), "convert it, with str() for one"
    )


def _is_document(value: object) -> bool:
    """Tell whether it is LangChain's Document, of which this layer knows nothing but the name."""
    names = {(kind.__module__, kind.__name__) for kind in type(value).__mro__}
    return ("langchain_core.documents.base", "Document") in names


def unreadable_document(value: bytes) -> str | None:
    """Return why bytes are a serialized Document of LangChain that LangChain itself can never load, None if not.

    Its ``create_kv_docstore`` writes a note in the place of metadata that is not JSON, such as a datetime. One such
    document makes every read of it, and of those beside it, fail.
    """
    found = _NOT_LOADED.search(value) if value.startswith(_DOCUMENT) else None
    if found is None:
        return None
    name = ".".join(re.findall(r'"([^"]*)"', found[1].decode(errors="replace")))
    return (
        f"is a Document with metadata of type {name:.80}, which LangChain could not load again: keep it in"
        " DocumentStore, or convert what is not JSON in its metadata (a datetime with .isoformat(), others with str())."
    )


def name_key(error: InvalidValueError, key: str) -> None:
    """Have an error name the key, where whoever raised it did not know that."""
    text = str(error)
    if shown(key) not in text:
        rest = text.removeprefix("The value ")
        error.args = (f"The value of key {shown(key)}{': ' if rest == text else ' '}{rest}",)
