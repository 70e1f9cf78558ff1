"""Comparisons of a field of a parsed document with a value: the Data API's semantics, in which types never mix."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, Final

from langchain_kv.server.ids import is_extended

__all__ = ["Test", "compare", "equal", "find"]

Test = Callable[[dict[str, Any]], bool]
"""Whether a parsed document meets a condition."""

_MISSING: Final = object()


def compare(names: list[str], operator: str, operand: Any) -> Test:
    """Return the test of one comparison.

    Args:
        names: the path, as field names and array positions.
        operator: such as ``$eq``; its operand was checked.
        operand: the parsed value to compare with.
    """
    holds = _OPERATORS[operator]
    return lambda document: holds(find(document, names), operand)


def find(value: Any, names: Iterable[str]) -> Any:
    """Return the value at a path (digits are positions in arrays), or an object of its own where there is none."""
    for name in names:
        if isinstance(value, dict):
            value = _MISSING if is_extended(value) else value.get(name, _MISSING)
        elif isinstance(value, list) and name.isdecimal() and name.isascii() and int(name) < len(value):
            value = value[int(name)]
        else:
            return _MISSING
    return value


def equal(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: numbers by value, objects with their fields in the same order."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        if is_extended(one) and is_extended(other):
            return _plain(one) == _plain(other)
        return list(one) == list(other) and all(map(equal, one.values(), other.values()))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, int | Decimal) and isinstance(other, int | Decimal):
        return one == other
    return type(one) is type(other) and bool(one == other)


def _plain(value: dict[str, Any]) -> tuple[str, Any]:
    """Return an extended value in a form that compares: UUIDs and ObjectIds in any case of letters are equal."""
    ((kind, inner),) = value.items()
    return (kind, inner.lower() if kind in ("$uuid", "$objectId") and isinstance(inner, str) else inner)


def _equals(field: Any, operand: Any) -> bool:
    """Whether the field equals the operand, or is an array that holds it; objects and arrays are not looked for."""
    if equal(field, operand):
        return True
    is_whole = isinstance(operand, list) or (isinstance(operand, dict) and not is_extended(operand))
    return isinstance(field, list) and not is_whole and any(equal(element, operand) for element in field)


def _is_in(field: Any, operand: list[Any]) -> bool:
    return any(_equals(field, one) for one in operand)


def _has_all(field: Any, operand: list[Any]) -> bool:
    """Whether each operand is in the array; a field that is no array counts as an array of itself."""
    elements = field if isinstance(field, list) else [field]
    return all(any(equal(element, one) for element in elements) for one in operand)


def _ordered(holds: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def test(field: Any, operand: Any) -> bool:
        left, right = _order_key(field), _order_key(operand)
        return left is not None and right is not None and left[0] == right[0] and holds(left[1], right[1])

    return test


def _order_key(value: Any) -> tuple[str, Any] | None:
    """Return the kind of a value that has an order, and what it is ordered by; None for one that has none."""
    if isinstance(value, bool):
        return "boolean", value
    if isinstance(value, int | Decimal):
        return "number", value
    if isinstance(value, str):
        return "text", value
    if is_extended(value) and "$date" in value:
        return "date", value["$date"]
    return None


_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "$eq": _equals,
    "$ne": lambda field, operand: not _equals(field, operand),
    "$in": _is_in,
    "$nin": lambda field, operand: not _is_in(field, operand),
    "$gt": _ordered(lambda one, other: bool(one > other)),
    "$gte": _ordered(lambda one, other: bool(one >= other)),
    "$lt": _ordered(lambda one, other: bool(one < other)),
    "$lte": _ordered(lambda one, other: bool(one <= other)),
    "$exists": lambda field, operand: (field is not _MISSING) is operand,
    "$all": _has_all,
    "$size": lambda field, operand: isinstance(field, list) and len(field) == operand,
}
