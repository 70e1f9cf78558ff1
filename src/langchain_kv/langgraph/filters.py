"""Filters of a search: which values they let pass.

A field must equal what the filter says, or pass all its operators. Numbers equal numbers of the same size, whatever
their type, but never a bool; None equals null and a missing field; an object must have the fields of the filter's, a
list its items, one by one. ``$gt`` and its like compare numbers with numbers and text with text; nothing else passes
them. A name is a field's as it is: points mean nothing.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from langchain_kv.engines.base import Held
from langchain_kv.errors import UsageError
from langchain_kv.values.keys import type_name

__all__ = ["Predicate", "compiled", "held_by"]

Predicate = Callable[[dict[str, Any]], bool]

_ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_OPERATORS: Final = ("$eq", "$ne", *_ORDERS)


def compiled(wanted: Mapping[str, Any] | None) -> Predicate | None:
    """Return the function that tells which values pass; None where all do.

    Raises:
        UsageError: it is no filter (a ValueError).
    """
    if not wanted:
        return None
    if not isinstance(wanted, Mapping):
        raise UsageError(f"filter must be a mapping of fields, got {type_name(wanted)}: give {{'kind': 'note'}}.")
    tests = [(_checked_name(name), _test(each)) for name, each in wanted.items()]
    if len(tests) == 1:
        ((only, passes_it),) = tests
        return lambda value: passes_it(value.get(only))

    def passes(value: dict[str, Any]) -> bool:
        return all(test(value.get(name)) for name, test in tests)

    return passes


def held_by(wanted: Mapping[str, Any] | None) -> Held | None:
    """Return a text that the document of every value that passes holds, whoever wrote it; None where none is known.

    Letters and digits of ASCII have one spelling in all that writes JSON. A document may have the JSON of its value as
    text, in which a backslash comes before each quote.
    """
    texts = [each for each in (wanted or {}).values() if isinstance(each, str) and _PLAIN(each) is not None]
    return Held(f'"{max(texts, key=len)}', '"\\') if texts else None


_PLAIN: Final = re.compile("[A-Za-z0-9]+").fullmatch


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise UsageError(f"A filter's field is a text, got {type_name(name)}.")
    return name


def _test(wanted: Any) -> Callable[[Any], bool]:
    if isinstance(wanted, Mapping):
        names = [_checked_name(name) for name in wanted]
        if any(name.startswith("$") for name in names):
            tests = [_operator(name, wanted[name]) for name in names]
            return lambda found: all(test(found) for test in tests)
        fields = [(name, _test(wanted[name])) for name in names]
        return lambda found: isinstance(found, dict) and all(test(found.get(name)) for name, test in fields)
    if isinstance(wanted, list | tuple):
        items = [_test(each) for each in wanted]
        return lambda found: (
            isinstance(found, list)
            and len(found) == len(items)
            and all(test(each) for test, each in zip(items, found, strict=True))
        )
    if type(wanted) is str:
        return lambda found: bool(found == wanted)
    return lambda found: equal(found, wanted)


def _operator(name: str, wanted: Any) -> Callable[[Any], bool]:
    if name not in _OPERATORS:
        raise UsageError(f"Unsupported operator {name!r} of a filter: there are {', '.join(_OPERATORS)}.")
    if name == "$eq":
        return lambda found: equal(found, wanted)
    if name == "$ne":
        return lambda found: not equal(found, wanted)
    compare = _ORDERS[name]
    for kinds in ((int, float), (str,)):
        if isinstance(wanted, kinds) and not isinstance(wanted, bool):
            return lambda found, kinds=kinds: (  # type: ignore[misc]
                isinstance(found, kinds) and not isinstance(found, bool) and compare(found, wanted)
            )
    return lambda found: False


def equal(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal, where True is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(equal(each, other[name]) for name, each in one.items())
    if isinstance(one, list) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)
