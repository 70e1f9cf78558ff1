"""Projections: which parts of a stored document are sent. What a projection does not touch is passed on unparsed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from langchain_kv.errors import DataAPIError
from langchain_kv.json_text import read, write
from langchain_kv.server.paths import LEAF, PathError, Tree, add, excluded, included, split
from langchain_kv.server.stored import checked, field_texts

__all__ = ["EVERYTHING", "Projection", "read_projection"]

_SPECIAL: Final = ("$vector", "$vectorize", "$lexical", "$similarity")
_DOCUMENT: Final = msgspec.json.Encoder()
_ABSENT: Final = object()


class Projection(NamedTuple):
    """A projection that was checked.

    Attributes:
        keeps: whether it names what is kept (else what is dropped).
        tree: the paths it names; None leaves documents as they are.
    """

    keeps: bool
    tree: Tree | None

    def apply(self, body: bytes) -> bytes:
        """Return the part of a stored document that is to be sent; only fields that it reaches into are parsed.

        Raises:
            DataAPIError: DOCUMENT_FROM_DB_UNPARSEABLE where it is no JSON object.
        """
        if self.tree is None:
            return checked(body)
        kept: dict[str, msgspec.Raw] = {}
        for name, text in field_texts(body).items():
            below = self.tree.get(name, _ABSENT)
            if below is _ABSENT:
                if not self.keeps:
                    kept[name] = text
            elif isinstance(below, dict):
                part = (included if self.keeps else excluded)(read(bytes(text)), below)
                kept[name] = msgspec.Raw(write(part))
            elif below is not LEAF:
                kept[name] = msgspec.Raw(write(below(read(bytes(text)))))
            elif self.keeps:
                kept[name] = text
        return _DOCUMENT.encode(kept)


EVERYTHING: Final = Projection(False, None)
"""The projection of a command that has none."""


def read_projection(definition: Any) -> Projection:
    """Read the field ``projection`` of a command.

    Raises:
        DataAPIError: UNSUPPORTED_PROJECTION_DEFINITION where it is no object, UNSUPPORTED_PROJECTION_PARAM where a part
            of it cannot be used.
    """
    if definition is None:
        return EVERYTHING
    if not isinstance(definition, dict):
        raise DataAPIError.of(
            "UNSUPPORTED_PROJECTION_DEFINITION", 'A projection is an object of paths, such as {"value": true}.'
        )
    if "*" in definition:
        return _read_star(definition)
    keeps: dict[str, bool] = {}
    slices: dict[str, Callable[[Any], Any]] = {}
    for path, wanted in _entries(definition, ""):
        if isinstance(wanted, bool):
            keeps[path] = wanted
        else:
            slices[path] = wanted
    keeps_id = keeps.pop("_id", None)
    if len(set(keeps.values())) > 1:
        raise _unsupported("it says of some paths what to keep and of others what to drop: do one or the other")
    is_keeping = True in keeps.values()
    tree: Tree = {}
    for path in keeps:
        _add(tree, path, LEAF)
    for path, cut in slices.items():
        _add(tree, path, cut)
    if (keeps_id is not False) is is_keeping:
        _add(tree, "_id", LEAF)
    return Projection(is_keeping, tree) if tree or is_keeping else EVERYTHING


def _read_star(definition: dict[str, Any]) -> Projection:
    if len(definition) > 1:
        raise _unsupported("'*' has to be its only entry")
    return EVERYTHING if _is_wanted("*", definition["*"]) else Projection(True, {})


def _entries(definition: dict[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    """Yield each path with whether it is wanted, or with what cuts its array."""
    for name, value in definition.items():
        if not name:
            raise _unsupported("it has an empty path")
        if name in _SPECIAL and not above:
            _is_wanted(name, value)  # documents here have no such field; it does not count as kept or dropped
            continue
        if name.startswith("$"):
            if name != "$slice" or not above:
                raise _unsupported(f"it has no operator {name[:100]!r}: there is $slice, below a path")
            yield above, _read_slice(value)
            continue
        path = f"{above}.{name}" if above else name
        if isinstance(value, dict):
            yield from _entries(value, path)
        else:
            yield path, _is_wanted(path, value)


def _is_wanted(path: str, value: Any) -> bool:
    if isinstance(value, bool | int | Decimal):
        return bool(value)
    raise _unsupported(f"the path {path[:100]!r} needs true or false, 1 or 0, or an object")


def _read_slice(value: Any) -> Callable[[Any], Any]:
    """Return what cuts an array by ``count`` (of its start, or negative, of its end) or by ``[skip, count]``."""
    numbers = value if isinstance(value, list) else [value]
    if not all(type(number) is int for number in numbers) or (isinstance(value, list) and len(value) != 2):
        raise _unsupported("$slice needs an integer, or a list of two: how many to skip, and how many to send")
    if len(numbers) == 1:
        (count,) = numbers
        return lambda field: (field[:count] if count >= 0 else field[count:]) if isinstance(field, list) else field
    skip, count = numbers
    if count < 0:
        raise _unsupported("the second number of $slice is how many elements to send, 0 or more")

    def cut(field: Any) -> Any:
        if not isinstance(field, list):
            return field
        start = skip if skip >= 0 else max(0, len(field) + skip)
        return field[start : start + count]

    return cut


def _add(tree: Tree, path: str, leaf: Callable[[Any], Any]) -> None:
    try:
        add(tree, split(path), leaf)
    except PathError as error:
        raise _unsupported(f"the path {path[:100]!r} {error}") from None


def _unsupported(reason: str) -> DataAPIError:
    return DataAPIError.of("UNSUPPORTED_PROJECTION_PARAM", f"The projection cannot be used: {reason}.")
