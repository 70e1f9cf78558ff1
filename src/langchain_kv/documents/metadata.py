"""Metadata as JSON and back: what JSON lacks is kept as text or a list, and named beside it.

The names stand in a field ``types`` of the value, by JSON pointer (RFC 6901) from the value on, so that the value
reads as it looks, and no metadata of a user's can be taken for them::

    {"page_content": "...", "metadata": {"t": "2026-01-01T00:00:00"}, "id": null, "types": {"/metadata/t": "datetime"}}
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

from langchain_kv.values.codecs import UndecodableError
from langchain_kv.values.keys import shown
from langchain_kv.values.plain import VALUE_MAX_DEPTH
from langchain_kv.values.refusals import refuse_deep

__all__ = ["KINDS", "are_json", "restore", "written"]

_LEAVES: Final = frozenset({str, int, float, bool, type(None)})


class _Form(NamedTuple):
    """How a type is kept: what is kept of a value, what type that has, and the value of it."""

    kind: type
    write: Callable[[Any], Any]
    kept_as: type
    read: Callable[[Any], Any]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _items(values: set[Any]) -> list[Any]:
    return sorted(values, key=repr)  # so that equal sets are kept alike


_FORMS: Final = {
    "datetime": _Form(datetime, datetime.isoformat, str, datetime.fromisoformat),
    "date": _Form(date, date.isoformat, str, date.fromisoformat),
    "UUID": _Form(UUID, str, str, UUID),
    "Decimal": _Form(Decimal, str, str, Decimal),
    "bytes": _Form(bytes, _base64, str, _bytes),
    "tuple": _Form(tuple, list, list, tuple),
    "set": _Form(set, _items, list, set),
}
_NAMES: Final = {form.kind: name for name, form in _FORMS.items()}

KINDS: Final = frozenset(_NAMES)
"""What metadata may hold beside JSON: objects of exactly these types."""


def are_json(values: Iterable[Any], depth: int = 0) -> bool:
    """Tell fast that values stand in JSON as they are; False means "look closer"."""
    for value in values:
        kind = type(value)
        if kind in _LEAVES:
            continue
        if kind is list:
            below = value
        elif kind is dict:
            below = value.values()
        else:
            return False
        if not _LEAVES.issuperset(map(type, below)) and (depth > VALUE_MAX_DEPTH or not are_json(below, depth + 1)):
            return False
    return True


def written(metadata: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return metadata with JSON in the place of what JSON lacks, and the types of that by JSON pointer.

    What has no form of ours stays: whoever writes the JSON refuses it.

    Raises:
        InvalidValueError: they are nested too deep, or hold themselves.
    """
    types: dict[str, str] = {}
    return _json(metadata, "/metadata", 0, types), types


def _json(value: Any, pointer: str, depth: int, types: dict[str, str]) -> Any:
    kind = type(value)
    if kind in _LEAVES:
        return value
    if depth > VALUE_MAX_DEPTH:  # orjson 3.13.0, which would be asked next, corrupts memory with what is deep in tuples
        refuse_deep("", VALUE_MAX_DEPTH)
    if isinstance(value, dict):
        if _LEAVES.issuperset(map(type, value.values())):
            return value
        return {name: _json(item, f"{pointer}/{_step(name)}", depth + 1, types) for name, item in value.items()}
    name = "tuple" if isinstance(value, tuple) else _NAMES.get(kind)
    if name is not None:
        types[pointer] = name
        value = _FORMS[name].write(value)
    if not isinstance(value, list) or _LEAVES.issuperset(map(type, value)):
        return value
    return [_json(item, f"{pointer}/{index}", depth + 1, types) for index, item in enumerate(value)]


def _step(name: Any) -> Any:
    return name.replace("~", "~0").replace("/", "~1") if isinstance(name, str) else name


def restore(value: dict[str, Any], types: Any) -> None:
    """Put back, in the place of the JSON, what has the ``types`` that ``written`` named.

    Raises:
        UndecodableError: a type or a place is not known, or something else stands there.
    """
    if not isinstance(types, dict):
        raise UndecodableError("its types are no object")
    for pointer in sorted(types, key=lambda pointer: pointer.count("/"), reverse=True):  # what is in a tuple, first
        form = _FORMS.get(types[pointer]) if isinstance(types[pointer], str) else None
        if form is None:
            raise UndecodableError(
                f"{shown(pointer)} in it has the type {shown(types[pointer])}, which this version does not know"
            )
        try:
            holder, step = _place(value, pointer)
            kept = holder[step]
            if not isinstance(kept, form.kept_as):
                raise TypeError
            holder[step] = form.read(kept)
        except (LookupError, ValueError, TypeError, ArithmeticError):
            raise UndecodableError(f"{shown(pointer)} in it is no {types[pointer]}") from None


def _place(value: Any, pointer: str) -> tuple[Any, Any]:
    """Return what holds the place that a pointer names, and the place's name or number in that."""
    root, *steps = pointer.split("/")
    if root or steps[:1] != ["metadata"] or len(steps) < 2:
        raise LookupError
    steps = [step.replace("~1", "/").replace("~0", "~") for step in steps]
    for step in steps[:-1]:
        value = value[int(step) if isinstance(value, list) else step]
    return value, int(steps[-1]) if isinstance(value, list) else steps[-1]
