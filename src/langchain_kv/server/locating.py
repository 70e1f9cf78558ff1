"""Places in a parsed document that an update reads and changes, by path; missing ones are made where that is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from langchain_kv.errors import DataAPIError
from langchain_kv.limits import DOCUMENT_MAX_UTF16
from langchain_kv.server.matching import MISSING
from langchain_kv.server.paths import position

__all__ = ["Place", "find_or_make_place", "find_place"]

_POSITION_MAX: Final = DOCUMENT_MAX_UTF16 // len("null,")
"""No array that reaches further, filled up with null, fits into a document."""


class Place:
    """Where a path leads to: a field of an object or a position in an array, with a value or without."""

    def __init__(self, inside: dict[str, Any] | list[Any], at: str | int) -> None:
        self._inside: Any = inside
        self._at: Any = at

    @property
    def is_in_array(self) -> bool:
        """Whether it is a position in an array."""
        return isinstance(self._inside, list)

    @property
    def value(self) -> Any:
        """The value there, or MISSING."""
        if isinstance(self._inside, dict):
            return self._inside.get(self._at, MISSING)
        return self._inside[self._at] if self._at < len(self._inside) else MISSING

    def put(self, value: Any) -> None:
        """Set the value; an array that ends before is filled up with null."""
        if isinstance(self._inside, list):
            self._inside.extend([None] * (self._at + 1 - len(self._inside)))
        self._inside[self._at] = value

    def remove(self) -> None:
        """Remove the field; in an array null takes its place, so that the others keep theirs."""
        if isinstance(self._inside, dict):
            del self._inside[self._at]
        else:
            self._inside[self._at] = None


def find_place(document: dict[str, Any], names: Sequence[str]) -> Place | None:
    """Return where a path leads to; None where that does not exist."""
    value: Any = document
    place = None
    for name in names:
        if isinstance(value, dict):
            place = Place(value, name)
        elif isinstance(value, list) and (at := position(name)) is not None:
            place = Place(value, at)
        else:
            return None
        value = place.value
        if value is MISSING:
            return None
    return place


def find_or_make_place(document: dict[str, Any], names: Sequence[str]) -> Place:
    """Return where a path leads to, making the objects on the way to it.

    Raises:
        DataAPIError: UNSUPPORTED_UPDATE_OPERATION_PATH where something else stands in the way;
            SHRED_DOC_LIMIT_VIOLATION for a position that no document has room for.
    """
    place = _step(document, names, 0)
    for depth in range(1, len(names)):
        inside = place.value
        if inside is MISSING:
            inside = {}
            place.put(inside)
        place = _step(inside, names, depth)
    return place


def _step(inside: Any, names: Sequence[str], depth: int) -> Place:
    name = names[depth]
    if isinstance(inside, dict):
        return Place(inside, name)
    if isinstance(inside, list) and (at := position(name)) is not None:
        if at > _POSITION_MAX:
            raise DataAPIError.of(
                "SHRED_DOC_LIMIT_VIOLATION",
                f"Position {at} of an array is beyond what a document has room for (at most {_POSITION_MAX}).",
            )
        return Place(inside, at)
    kind = "an array, whose elements have numbers" if isinstance(inside, list) else "neither an object nor an array"
    raise DataAPIError.of(
        "UNSUPPORTED_UPDATE_OPERATION_PATH",
        f"The update cannot make the field {name[:100]!r} of the path {'.'.join(names)[:200]!r}: what it would be in is"
        f" {kind}. Set the whole field above it instead.",
    )
