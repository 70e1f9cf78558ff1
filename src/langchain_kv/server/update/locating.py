"""Places in a parsed document that an update reads and changes, by path; missing ones are made where that is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from langchain_kv.errors import DataAPIError
from langchain_kv.limits import DOCUMENT_MAX_DEPTH, DOCUMENT_MAX_UTF16
from langchain_kv.server.query.matching import MISSING
from langchain_kv.values.paths import position

__all__ = ["Draft", "Place", "copied"]

_ELEMENTS_MAX: Final = DOCUMENT_MAX_UTF16 // len("0,")
"""No document has room for the elements of arrays that an update would make beyond these."""


class Place:
    """Where a path leads to: a field of an object or a position in an array, with a value or without."""

    def __init__(self, draft: Draft, inside: dict[str, Any] | list[Any], at: str | int) -> None:
        self._draft = draft
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
        """Set the value; an array that ends before is filled up with null.

        Raises:
            DataAPIError: SHRED_DOC_LIMIT_VIOLATION where no document has room for that.
        """
        if isinstance(self._inside, list):
            self._draft.fill(self._inside, self._at + 1)
        self._inside[self._at] = value

    def remove(self) -> None:
        """Remove the field; in an array null takes its place, so that the others keep theirs."""
        if isinstance(self._inside, dict):
            del self._inside[self._at]
        else:
            self._inside[self._at] = None


class Draft:
    """A document while an update changes it.

    Attributes:
        document: the parsed document, changed in place.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._room = _ELEMENTS_MAX

    def find(self, names: Sequence[str]) -> Place | None:
        """Return where a path leads to; None where that does not exist."""
        value: Any = self.document
        place = None
        for name in names:
            if isinstance(value, dict):
                place = Place(self, value, name)
            elif isinstance(value, list) and (at := position(name)) is not None:
                place = Place(self, value, at)
            else:
                return None
            value = place.value
            if value is MISSING:
                return None
        return place

    def find_or_make(self, names: Sequence[str]) -> Place:
        """Return where a path leads to, making the objects on the way to it.

        Raises:
            DataAPIError: UNSUPPORTED_UPDATE_OPERATION_PATH where something else stands in the way;
                SHRED_DOC_LIMIT_VIOLATION for a place that no document has room for.
        """
        place = self._step(self.document, names, 0)
        for depth in range(1, len(names)):
            inside = place.value
            if inside is MISSING:
                if depth >= DOCUMENT_MAX_DEPTH:
                    raise _no_room(f"nests over {DOCUMENT_MAX_DEPTH} levels")
                inside = {}
                place.put(inside)
            place = self._step(inside, names, depth)
        return place

    def _step(self, inside: Any, names: Sequence[str], depth: int) -> Place:
        name = names[depth]
        if isinstance(inside, dict):
            return Place(self, inside, name)
        if isinstance(inside, list) and (at := position(name)) is not None:
            return Place(self, inside, at)
        kind = "an array, whose elements have numbers" if isinstance(inside, list) else "neither an object nor an array"
        raise DataAPIError.of(
            "UNSUPPORTED_UPDATE_OPERATION_PATH",
            f"The update cannot make the field {name[:100]!r} of the path {'.'.join(names)[:200]!r}: what it would be"
            f" in is {kind}. Set the whole field above it instead.",
        )

    def fill(self, array: list[Any], length: int) -> None:
        """Fill an array up with null to a length, while all that an update adds so may still fit into a document.

        Raises:
            DataAPIError: SHRED_DOC_LIMIT_VIOLATION.
        """
        missing = length - len(array)
        if missing <= 0:
            return
        self._room -= missing
        if self._room < 0:
            raise _no_room(f"fills arrays up with over {_ELEMENTS_MAX} elements")
        array.extend([None] * missing)


def _no_room(reason: str) -> DataAPIError:
    return DataAPIError.of(
        "SHRED_DOC_LIMIT_VIOLATION", f"The update {reason}, which no document has room for: change nearer places."
    )


def copied(value: Any) -> Any:
    """Return a parsed JSON value that shares no object or array with the given one."""
    if isinstance(value, dict):
        return {name: copied(field) for name, field in value.items()}
    return [copied(element) for element in value] if isinstance(value, list) else value
