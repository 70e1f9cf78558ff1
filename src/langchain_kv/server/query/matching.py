"""Comparisons of a field of a parsed document with a value: the Data API's semantics, in which types never mix."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, Final, NamedTuple

from langchain_kv.server.documents.ids import is_extended
from langchain_kv.values.paths import position

__all__ = ["MISSING", "Test", "compare", "equal", "find", "identity"]

Test = Callable[[dict[str, Any]], bool]
"""Whether a parsed document meets a condition."""

MISSING: Final = object()
"""Stands for the value of a path that a document does not have."""


def compare(names: list[str], operator: str, operand: Any, *, is_negated: bool = False) -> Test:
    """Return the test of one comparison.

    Args:
        names: the path, as field names and array positions.
        operator: such as ``$eq``; its operand was checked.
        operand: the parsed value to compare with.
        is_negated: whether it stands below ``$not``. There ``$gt`` is ``$lte``, as on the Data API: neither holds for a
            field of another type, or for none.
    """
    if is_negated and operator in _OPPOSITES:
        return compare(names, _OPPOSITES[operator], operand)
    holds = _OPERATORS[operator]
    if operator in _LISTS:  # what is compared with each document is made ready once
        operand = _LISTS[operator](operand)
    if is_negated:
        return lambda document: not holds(find(document, names), operand)
    return lambda document: holds(find(document, names), operand)


def find(value: Any, names: Iterable[str]) -> Any:
    """Return the value at a path (digits are positions in arrays), or MISSING where there is none."""
    for name in names:
        if isinstance(value, dict):
            value = MISSING if is_extended(value) else value.get(name, MISSING)
        elif isinstance(value, list) and (at := position(name)) is not None and at < len(value):
            value = value[at]
        else:
            return MISSING
    return value


def equal(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: numbers by value, objects with their fields in the same order."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        if is_extended(one) and is_extended(other):
            return identity(one) == identity(other)
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
    """Whether the field equals the operand, or is an array that holds it; null is not looked for in arrays."""
    return equal(field, operand) if operand is None else _is_one(field, operand)


def _is_one(field: Any, operand: Any) -> bool:
    """Whether the field equals the operand, or is an array that holds it; objects and arrays are not looked for."""
    if equal(field, operand):
        return True
    return isinstance(field, list) and not _is_whole(operand) and any(equal(element, operand) for element in field)


class _AnyOf(NamedTuple):
    """The values of an ``$in``, by identity: all of them, and those that are looked for in arrays, too."""

    all: frozenset[str]
    in_arrays: frozenset[str]

    @classmethod
    def of(cls, values: list[Any]) -> _AnyOf:
        return cls(_identities(values), _identities(value for value in values if not _is_whole(value)))


def _is_in(field: Any, operand: _AnyOf) -> bool:
    if identity(field) in operand.all:
        return True
    return isinstance(field, list) and any(identity(element) in operand.in_arrays for element in field)


def _has_all(field: Any, operand: frozenset[str]) -> bool:
    """Whether each operand is in the array; a field of one value counts as an array of it, an object does not."""
    if isinstance(field, list):
        return operand <= _identities(field)
    return not _is_whole(field) and operand == {identity(field)}


def _is_whole(value: Any) -> bool:
    """Whether a value is an array or an object of fields: these are compared as a whole."""
    return isinstance(value, list) or (isinstance(value, dict) and not is_extended(value))


def _identities(values: Iterable[Any]) -> frozenset[str]:
    return frozenset(map(identity, values))


def identity(value: Any, *, as_sent: bool = False) -> str:
    """Return a text that two JSON values share if, and only if, they are equal: both lists of a comparison may be long.

    It is a text because nobody can choose texts whose hashes collide, as one can choose numbers.

    Args:
        value: the value, or MISSING, which equals no value.
        as_sent: whether ``1.0`` and ``1`` are kept apart, and extended values whose letters differ in case.
    """
    if isinstance(value, str):
        return '"' + value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        return (type(value).__name__ if as_sent else "number") + _number_text(value)
    if isinstance(value, list):
        return "[" + _joined(identity(element, as_sent=as_sent) for element in value)
    if isinstance(value, dict):
        if is_extended(value) and not as_sent:
            kind, inner = _plain(value)
            return kind + identity(inner)
        parts = ((name, identity(field, as_sent=as_sent)) for name, field in value.items())
        return "{" + _joined(part for pair in parts for part in pair)
    return "null" if value is None else "missing"


def _joined(parts: Iterable[str]) -> str:
    """Join texts such that others, joined, are another text."""
    return "".join(f"{len(part)}:{part}" for part in parts)


def _number_text(value: int | Decimal) -> str:
    """Return the digits and the exponent of a number: the same for ``100`` and ``1E+2``."""
    exponent: Any = 0
    if isinstance(value, int):
        text = str(value)
    else:
        sign, digits, exponent = value.as_tuple()
        text = "-" * sign + "".join(map(str, digits))
    significant = text.rstrip("0")
    return f"{significant}E{exponent + len(text) - len(significant)}" if significant.strip("-") else "0"


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
    "$exists": lambda field, operand: (field is not MISSING) is operand,
    "$all": _has_all,
    "$size": lambda field, operand: isinstance(field, list) and len(field) == operand,
}
_LISTS: Final[dict[str, Callable[[list[Any]], Any]]] = {"$in": _AnyOf.of, "$nin": _AnyOf.of, "$all": _identities}
_OPPOSITES: Final = {"$gt": "$lte", "$gte": "$lt", "$lt": "$gte", "$lte": "$gt"}
