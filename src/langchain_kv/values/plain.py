"""Which values the Data API takes as they are, told before orjson writes them, which lets more pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

from langchain_kv import limits
from langchain_kv.runtime.slices import Steps, parts

__all__ = [
    "EXTENDED_TYPES",
    "JSON_KINDS",
    "PATH_START",
    "VALUE_MAX_DEPTH",
    "are_plain",
    "is_flat",
    "is_plain",
    "is_plain_object",
    "utf16_units",
]

VALUE_MAX_DEPTH = 200
"""Levels of nesting that a value may have on any target: what every JSON reader and writer in use can take."""

EXTENDED_TYPES = frozenset({"$date", "$uuid", "$objectId", "$binary"})
"""An object of just one of these names is a value of the Data API's own types."""

PATH_START = len("value")
"""Every path of names begins with the document's own."""

_DEPTH_MAX = limits.DOCUMENT_MAX_DEPTH - 1
_PATH_MAX = limits.PATH_MAX_UTF16
_LEAVES: frozenset[type] = frozenset({str, int, bool, type(None)})
_OBJECT: frozenset[type] = frozenset({dict})
_NAMES = {str}
_ARRAYS: frozenset[type] = frozenset({list, tuple})
_KINDS: frozenset[type] = _LEAVES | _OBJECT | _ARRAYS | {float}

JSON_KINDS: frozenset[type] = _KINDS - {tuple}
"""The types that JSON has."""

_FLAT_MAX = 100
"""Names of an object that is encoded in a moment: some ten microseconds."""

_LEVEL_MAX = 4_000_000
"""Items of one level that are looked at together: a value that contains itself has no end of them."""

_LEVEL_PART = 10_000
"""Items of one level that are looked at together: a millisecond."""


def is_flat(value: Any) -> bool:
    """Tell fast that a value is encoded in a moment: text, bytes, or an object of a few that are no containers."""
    kind = type(value)
    if kind is dict and len(value) <= _FLAT_MAX:
        return set(map(type, value.values())) <= _LEAVES
    return kind is bytes or kind in _LEAVES


def is_plain(value: Any, depth: int, path: int) -> bool:
    """Tell whether the Data API takes ``value`` as it is.

    Raises TypeError (or AttributeError) for what JSON does not have, and for nesting beyond VALUE_MAX_DEPTH.

    Args:
        value: any; integers beyond 64 bits and lone surrogates, which orjson refuses, are not looked for.
        depth: levels of nesting around the value, the document's own not counted.
        path: UTF-16 units of the path of names that leads to the value.
    """
    kind = type(value)
    if kind is str or value is None or kind is bool or kind is int:
        return True
    if kind is float:
        if not math.isfinite(value):
            raise TypeError("not finite")
        return True
    if depth >= VALUE_MAX_DEPTH:
        raise TypeError("too deep")
    if kind is dict:
        return is_plain_object(value, depth, path)
    if kind is list or kind is tuple:
        plain = depth < _DEPTH_MAX
        if value and type(value[0]) is float and _is_finite_numbers(value):
            return plain
        for item in value:
            if not is_plain(item, depth + 1, path):
                plain = False
        return plain
    raise TypeError(kind)


def is_plain_object(value: dict[str, Any], depth: int, path: int) -> bool:
    """As ``is_plain``."""
    plain = depth < _DEPTH_MAX
    if len(value) == 1 and not EXTENDED_TYPES.isdisjoint(value):
        (item,) = value.values()
        return plain and type(item) in (str, int)
    always_fit = (_PATH_MAX - path - 1) // 2  # characters of a name, whichever they are
    for name, item in value.items():
        if not name or name[0] == "$":
            plain = False
        kind = type(item)
        if (kind is str or kind is int) and len(name) <= always_fit:
            continue
        below = path + 1 + utf16_units(name)
        if below > _PATH_MAX:
            plain = False
        if kind is dict and depth + 1 < VALUE_MAX_DEPTH:
            is_plain_below = is_plain_object(item, depth + 1, below)
        else:
            is_plain_below = is_plain(item, depth + 1, below)
        plain = plain and is_plain_below
    return plain


def are_plain(
    values: list[Any], depth: int = 0, path: int = PATH_START, *, kinds: frozenset[type] = _KINDS
) -> Steps[bool]:
    """Tell fast, of many values, that the Data API takes them all as they are; False means "look at each".

    They are gone through level by level, because a pass over what is at one level costs a fraction of a call for each.

    Args:
        values: the values.
        depth: as for ``is_plain``.
        path: as for ``is_plain``.
        kinds: the types that may be there.
    """
    level = values
    for _ in range(limits.DOCUMENT_MAX_DEPTH - depth):
        longest = -1
        below: list[Any] = []
        for number, some in enumerate(parts(level, _LEVEL_PART) if len(level) > _LEVEL_PART else (level,)):
            if number:
                yield
            found = _next_level(some, kinds)
            if found is None or len(below) > _LEVEL_MAX:
                return False
            longest = max(longest, found[0])
            below += found[1]
        if longest < 0:
            return True
        path += 1 + 2 * longest if longest else 0  # at most two units a character
        if path > _PATH_MAX:
            return False
        level = below
    return False


def _next_level(level: Sequence[Any], allowed: frozenset[type]) -> tuple[int, list[Any]] | None:
    """Return the length of the longest name, and what stands one level below; None to look at each by itself.

    The length is 0 without any name, and -1 where all are leaves.
    """
    kinds = set(map(type, level))
    if kinds <= _LEAVES:
        return -1, []
    if not kinds <= allowed or (float in kinds and not _is_finite_numbers([i for i in level if type(i) is float])):
        return None
    objects = level if kinds == _OBJECT else [item for item in level if type(item) is dict]
    arrays = [item for item in level if type(item) is list or type(item) is tuple] if kinds & _ARRAYS else []
    names: set[Any] = set().union(*objects)
    if names and (set(map(type, names)) != _NAMES or not all(names) or "$" in {name[0] for name in names}):
        return None
    below = list(chain.from_iterable(map(dict.values, objects)))
    for items in arrays:
        if not (items and type(items[0]) is float and _is_finite_numbers(items)):
            below += items
    return max(map(len, names), default=0), below


def _is_finite_numbers(values: list[Any] | tuple[Any, ...]) -> bool:
    """Tell fast that a list holds finite numbers only, as an embedding does; False means "look closer"."""
    try:
        total = sum(values)
    except (TypeError, OverflowError):
        return False
    # bool counts as a number here, and is JSON; a NaN or an infinity among the numbers makes the sum one.
    return isinstance(total, float) and total - total == 0


def utf16_units(text: str) -> int:
    """Return how many UTF-16 units a text takes, in which the Data API counts."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2
