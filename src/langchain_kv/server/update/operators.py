"""The update operators: each reads its arguments into actions, which change a parsed document in place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow, Underflow
from functools import partial
from typing import Any, Final, NamedTuple

from langchain_kv.errors import DataAPIError
from langchain_kv.limits import NUMBER_MAX_DIGITS
from langchain_kv.server.documents.vectors import no_embedding_service
from langchain_kv.server.query.matching import MISSING, identity
from langchain_kv.server.query.ordering import value_key
from langchain_kv.server.update.locating import Draft, Place, copied
from langchain_kv.values.paths import PathError, split

__all__ = ["OPERATORS", "Action", "identical", "update_error"]

Change = Callable[[Draft], bool]
"""Changes a document; answers whether the Data API would call it modified."""


class Action(NamedTuple):
    """What an operator does at one path.

    Attributes:
        operator: such as ``$set``.
        path: as it was sent.
        names: the path as field names and positions.
        change: does it.
        target: the path to which it moves the value, where it does.
    """

    operator: str
    path: str
    names: list[str]
    change: Change
    target: list[str] | None = None

    @property
    def places(self) -> list[list[str]]:
        """The paths at which it changes a document; of two that lie over one another only the upper."""
        if self.target is None:
            return [self.names]
        upper, lower = sorted((self.names, self.target), key=len)
        return [upper] if lower[: len(upper)] == upper else [upper, lower]


def update_error(kind: str, reason: str) -> DataAPIError:
    """Return the error UNSUPPORTED_UPDATE_OPERATION, or of that name with ``_`` and a ``kind`` behind it."""
    code = "UNSUPPORTED_UPDATE_OPERATION" + (f"_{kind}" if kind else "")
    return DataAPIError.of(code, f"The update cannot be carried out: {reason}.")


def identical(one: Any, other: Any) -> bool:
    """Whether setting one value over the other changes nothing, as the Data API sees it.

    1.0 as it was sent is not the 1 that is stored, and objects have their fields in the same order.
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(identical, one.values(), other.values()))
    if isinstance(one, list):
        return len(one) == len(other) and all(map(identical, one, other))
    return bool(one == other)


# -- paths ------------------------------------------------------------------------------------------------------------

_SPECIAL: Final = {"$vector": "VECTOR", "$vectorize": "VECTORIZE", "$lexical": "LEXICAL"}
_FOR_SPECIAL: Final = ("$set", "$setOnInsert", "$unset")


def _check_path(operator: str, path: str) -> None:
    """Refuse an operator for a field that it cannot change; whether the path is well formed is looked at last."""
    if path in _SPECIAL and operator not in _FOR_SPECIAL:
        raise DataAPIError.of(
            f"UNSUPPORTED_UPDATE_OPERATOR_FOR_{_SPECIAL[path]}", f"{operator} cannot change the field '{path}'."
        )
    if path == "_id" and operator != "$setOnInsert":
        raise DataAPIError.of(
            "UNSUPPORTED_UPDATE_OPERATOR_FOR_DOC_ID",
            f"{operator} cannot change the '_id' of a document: insert a new document, and delete this one.",
        )


def _names(path: str) -> list[str]:
    try:
        return split(path)
    except PathError as error:
        raise update_error("PATH", f"the path {path[:100]!r} {error}") from None


def _plain(operator: str, path: str, kind: str = "MODIFIER") -> None:
    if path.startswith("$"):
        raise update_error(kind, f"{operator} needs names of fields, and {path[:100]!r} starts with '$'")


# -- operators --------------------------------------------------------------------------------------------------------


def _set(operator: str, path: str, value: Any) -> Action:
    _check_path(operator, path)
    names = _names(path)
    if path == "$vectorize":
        raise no_embedding_service(path)

    def change(draft: Draft) -> bool:
        return _put(draft.find_or_make(names), value)

    return Action(operator, path, names, change)


def _put(place: Place, value: Any) -> bool:
    if identical(place.value, value):
        return False
    place.put(copied(value))  # several documents may get it, each its own
    return True


def _unset(operator: str, path: str, _: Any) -> Action:
    _check_path(operator, path)
    names = _names(path)

    def change(draft: Draft) -> bool:
        place = draft.find(names)
        if place is not None:
            place.remove()
        return place is not None

    return Action(operator, path, names, change)


def _current_date(operator: str, path: str, argument: Any) -> Action:
    _check_path(operator, path)
    if argument is not True and argument != {"$type": "date"}:
        raise update_error("PARAM", f'{operator} needs true or {{"$type": "date"}}')
    names = _names(path)

    def change(draft: Draft) -> bool:
        return _put(draft.find_or_make(names), {"$date": time.time_ns() // 1_000_000})

    return Action(operator, path, names, change)


def _extreme(operator: str, path: str, value: Any, *, is_max: bool) -> Action:
    _check_path(operator, path)
    names = _names(path)
    key = value_key(value)

    def change(draft: Draft) -> bool:
        place = draft.find_or_make(names)
        if place.value is not MISSING:
            old = value_key(place.value)
            if not (old < key if is_max else old > key):
                return False
        place.put(copied(value))
        return True

    return Action(operator, path, names, change)


# -- numbers ----------------------------------------------------------------------------------------------------------

_EXACT: Final = Context(
    prec=NUMBER_MAX_DIGITS, Emax=10**9, Emin=-(10**9), traps=[Inexact, InvalidOperation, Overflow, Underflow]
)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _arithmetic(operator: str, path: str, number: Any, *, calculate: Callable[[Any, Any], tuple[Any, bool]]) -> Action:
    """Parse $inc or $mul.

    ``calculate`` sees the old number (or MISSING) and answers the new one, and whether the document counts as modified.
    """
    _plain(operator, path)
    _check_path(operator, path)
    if not _is_number(number):
        raise update_error("PARAM", f"{operator} needs a number for {path[:100]!r}")
    names = _names(path)

    def change(draft: Draft) -> bool:
        place = draft.find_or_make(names)
        old = place.value
        if old is not MISSING and not _is_number(old):
            raise update_error("TARGET", f"{operator} changes numbers, and {path[:100]!r} holds something else")
        new, is_modified = calculate(old, number)
        if is_modified:
            place.put(new)
        return is_modified

    return Action(operator, path, names, change)


def _added(old: Any, number: Any) -> tuple[Any, bool]:
    if old is MISSING:
        return number, True
    if type(number) is int and number == 0:
        return old, False
    new = _bounded(old + number) if type(old) is type(number) is int else _exactly(_EXACT.add, old, number)
    # Of a sum with a decimal the Data API makes a decimal, which is another value than the integer that was there.
    return new, new != old or isinstance(number, Decimal) is not isinstance(old, Decimal)


def _multiplied(old: Any, number: Any) -> tuple[Any, bool]:
    if old is MISSING:
        return 0, True
    if not old:
        return old, False
    new = _bounded(old * number) if type(old) is type(number) is int else _exactly(_EXACT.multiply, old, number)
    return new, new != old


def _bounded(number: int) -> int:
    """Return an integer that a document can hold.

    Raises:
        DataAPIError: SHRED_DOC_LIMIT_VIOLATION.
    """
    if abs(number) >= 10**NUMBER_MAX_DIGITS:
        raise _too_long()
    return number


def _exactly(calculate: Callable[[Decimal, Decimal], Decimal], old: Any, number: Any) -> Decimal:
    """Calculate with every digit.

    Raises:
        DataAPIError: SHRED_DOC_LIMIT_VIOLATION where the result has more digits than a document can hold.
    """
    try:
        result = calculate(Decimal(old), Decimal(number))
        result = result.normalize(_EXACT) if result else Decimal(0)
    except (Inexact, InvalidOperation, Overflow, Underflow):
        raise _too_long() from None
    if sum(map(str.isdigit, str(result))) > NUMBER_MAX_DIGITS:  # those of the exponent count as well
        raise _too_long()
    return result


def _too_long() -> DataAPIError:
    return DataAPIError.of(
        "SHRED_DOC_LIMIT_VIOLATION",
        f"The result of the update has over {NUMBER_MAX_DIGITS} digits: use a smaller number, or a text.",
    )


# -- moving and arrays ------------------------------------------------------------------------------------------------


def _rename(operator: str, path: str, target: Any) -> Action:
    _check_path(operator, path)
    if not isinstance(target, str):
        raise update_error("PARAM", f"{operator} needs the new path of {path[:100]!r} as a text")
    _check_path(operator, target)
    if path == target:
        raise update_error("PATH", f"{operator} of {path[:100]!r} needs another path than that")
    names, target_names = _names(path), _names(target)

    def change(draft: Draft) -> bool:
        place = draft.find(names)
        if place is None:
            return False
        if place.is_in_array:
            raise update_error("PATH", f"{operator} cannot move {path[:100]!r}, which is an element of an array")
        value = place.value
        place.remove()
        new_place = draft.find_or_make(target_names)
        if new_place.is_in_array:
            raise update_error("PATH", f"{operator} cannot move to {target[:100]!r}, which is an element of an array")
        new_place.put(value)
        return True

    return Action(operator, path, names, change, target_names)


def _pop(operator: str, path: str, end: Any) -> Action:
    _check_path(operator, path)
    if not _is_number(end) or not (1 <= end < 2 or -2 < end <= -1):  # the Data API cuts it to an integer
        raise update_error("PARAM", f"{operator} needs 1 (the last element) or -1 (the first)")
    names = _names(path)
    at = -1 if end > 0 else 0

    def change(draft: Draft) -> bool:
        place = draft.find(names)
        if place is None:
            return False
        array = _as_array(operator, path, place.value)
        if array:
            del array[at]
            return True
        return False

    return Action(operator, path, names, change)


def _push(operator: str, path: str, argument: Any) -> Action:
    values, at = _parse_elements(operator, path, argument, ("$each", "$position"))
    names = _names(path)

    def change(draft: Draft) -> bool:
        array = _array_at(operator, path, draft.find_or_make(names))
        start = len(array) if at is None else at
        array[start:start] = copied(values)
        return True

    return Action(operator, path, names, change)


def _add_to_set(operator: str, path: str, argument: Any) -> Action:
    values, _ = _parse_elements(operator, path, argument, ("$each",))
    names = _names(path)
    identities = [identity(value, as_sent=True) for value in values]

    def change(draft: Draft) -> bool:
        array = _array_at(operator, path, draft.find_or_make(names))
        known = {identity(element, as_sent=True) for element in array}
        before = len(array)
        for value, own in zip(values, identities, strict=True):
            if own not in known:
                known.add(own)
                array.append(copied(value))
        return len(array) > before

    return Action(operator, path, names, change)


def _parse_elements(operator: str, path: str, argument: Any, known: Iterable[str]) -> tuple[list[Any], int | None]:
    """Return the elements to add and, if given, where; an argument with modifiers has nothing else.

    Of several that are wrong the first is told, as by the Data API.
    """
    _check_path(operator, path)
    _plain(operator, path, "PARAM")
    if not isinstance(argument, dict) or not any(name.startswith("$") for name in argument):
        return [argument], None
    for name, value in argument.items():
        if name not in known:
            raise update_error("MODIFIER", f"{operator} has no modifier {name[:100]!r}; there are {', '.join(known)}")
        if name == "$each" and not isinstance(value, list):
            raise update_error("PARAM", f"{operator} needs a list in the modifier $each")
        if name == "$position" and type(value) is not int:
            raise update_error("PARAM", f"{operator} needs an integer in the modifier $position")
    if "$each" not in argument:
        raise update_error("PARAM", f"{operator} needs a list in the modifier $each")
    return argument["$each"], argument.get("$position")


def _array_at(operator: str, path: str, place: Place) -> list[Any]:
    if place.value is MISSING:
        place.put([])
    return _as_array(operator, path, place.value)


def _as_array(operator: str, path: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise update_error("TARGET", f"{operator} changes arrays, and {path[:100]!r} holds something else")
    return value


OPERATORS: Final[dict[str, Callable[[str, str, Any], Action]]] = {
    "$addToSet": _add_to_set,
    "$currentDate": _current_date,
    "$inc": partial(_arithmetic, calculate=_added),
    "$max": partial(_extreme, is_max=True),
    "$min": partial(_extreme, is_max=False),
    "$mul": partial(_arithmetic, calculate=_multiplied),
    "$pop": _pop,
    "$push": _push,
    "$rename": _rename,
    "$set": _set,
    "$setOnInsert": _set,
    "$unset": _unset,
}
"""What reads each operator's argument of one path, in the order in which the operators are carried out."""
