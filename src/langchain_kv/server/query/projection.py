"""Projections: which parts of a stored document are sent. What a projection does not touch is passed on unparsed."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from langchain_kv.errors import DataAPIError
from langchain_kv.server.documents.stored import checked, field_texts
from langchain_kv.values.json_text import read, write
from langchain_kv.values.paths import LEAF, PathError, Tree, add, branch, excluded, included, split

__all__ = ["EVERYTHING", "Projection", "parse_projection"]

_HIDDEN: Final = ("$vector", "$vectorize", "$lexical")
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

_WITHOUT_VECTORS: Final = Projection(False, dict.fromkeys(_HIDDEN, LEAF))
"""The same in a collection with vectors."""


def parse_projection(definition: Any, *, has_vectors: bool = False) -> Projection:
    """Parse the field ``projection`` of a command, in a collection with or without vectors.

    Vectors are sent only where the projection says so.

    Raises:
        DataAPIError: UNSUPPORTED_PROJECTION_DEFINITION where it is no object, UNSUPPORTED_PROJECTION_PARAM where a part
            of it cannot be used.
    """
    if definition is None:
        return _WITHOUT_VECTORS if has_vectors else EVERYTHING
    if not isinstance(definition, dict):
        raise DataAPIError.of(
            "UNSUPPORTED_PROJECTION_DEFINITION", 'A projection is an object of paths, such as {"value": true}.'
        )
    if "*" in definition:
        return _parse_star(definition)
    paths = _Paths()
    try:
        paths.read(definition)
        is_keeping = paths.is_keeping is True
        if (paths.keeps_id is not False) is is_keeping:
            add(paths.tree, ["_id"], LEAF)
        for name in _HIDDEN if has_vectors else ():
            if (name in paths.shown) is is_keeping:
                add(paths.tree, [name], LEAF)
    except PathError as error:
        raise _unsupported(f"one of its paths {error}") from None
    return Projection(is_keeping, paths.tree) if paths.tree or is_keeping else EVERYTHING


def _parse_star(definition: dict[str, Any]) -> Projection:
    if len(definition) > 1:
        raise _unsupported("'*' has to be its only entry")
    return EVERYTHING if _is_wanted("*", definition["*"]) else Projection(True, {})


class _Branch:
    """Where a definition inside of a definition lies; its tree is made with the first path that ends in it.

    No path is written out: below a long name there may be many.
    """

    def __init__(self, above: _Branch | None = None, name: str = "") -> None:
        self._above, self._name = above, name
        self._tree: Tree | None = None

    def tree(self) -> Tree:
        """Return the tree of the paths below."""
        if self._tree is None:
            self._tree = {} if self._above is None else branch(self._above.tree(), split(self._name))
        return self._tree

    def end(self, leaf: Callable[[Any], Any]) -> None:
        """Let a path end here."""
        if self._above is not None:
            add(self._above.tree(), split(self._name), leaf)


class _Paths:
    """What a definition says, gathered.

    Attributes:
        tree: the paths it names, but for ``_id``.
        is_keeping: whether these are kept, or dropped; None where there are only slices.
        keeps_id: what it says of ``_id``.
        shown: the fields for searches that it asks for.
    """

    def __init__(self) -> None:
        self._root = _Branch()
        self.tree = self._root.tree()
        self.is_keeping: bool | None = None
        self.keeps_id: bool | None = None
        self.shown: set[str] = set()

    def read(self, definition: dict[str, Any], here: _Branch | None = None) -> None:
        """Parse a definition, or one inside of it.

        Raises:
            PathError: a path is not well formed, or lies over another one.
        """
        for name, value in definition.items():
            if not name:
                raise _unsupported("it has an empty path")
            if name in _HIDDEN and here is None:
                if _is_wanted(name, value):  # which does not count as kept or dropped
                    self.shown.add(name)
            elif name.startswith("$"):
                if here is None:
                    raise _unsupported(f"of the paths that start with '$' it has {', '.join(_HIDDEN)} only")
                if name != "$slice":
                    raise _unsupported(f"it has no operator {name[:100]!r}: there is $slice, below a path")
                here.end(_parse_slice(value))
            elif name == "*":
                raise _unsupported("'*' has to be its only entry")
            elif isinstance(value, dict):
                self.read(value, _Branch(here or self._root, name))
            elif name == "_id" and here is None:
                self.keeps_id = _is_wanted(name, value)
            else:
                self._note(name, _is_wanted(name, value))
                _Branch(here or self._root, name).end(LEAF)

    def _note(self, name: str, is_wanted: bool) -> None:
        if self.is_keeping is not None and self.is_keeping is not is_wanted:
            raise _unsupported(
                f"it says of some paths what to keep and of others what to drop, such as {name[:100]!r}: do one or the"
                " other"
            )
        self.is_keeping = is_wanted


def _is_wanted(path: str, value: Any) -> bool:
    if isinstance(value, bool | int | Decimal):
        return bool(value)
    raise _unsupported(f"the path {path[:100]!r} needs true or false, 1 or 0, or an object")


def _parse_slice(value: Any) -> Callable[[Any], Any]:
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


def _unsupported(reason: str) -> DataAPIError:
    return DataAPIError.of("UNSUPPORTED_PROJECTION_PARAM", f"The projection cannot be used: {reason}.")
