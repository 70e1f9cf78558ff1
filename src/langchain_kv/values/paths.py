"""Paths of field names, and trees of them: what a projection keeps or drops, and what a collection indexes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from langchain_kv.limits import PATH_MAX_NAMES

__all__ = [
    "LEAF",
    "PathError",
    "Tree",
    "add",
    "branch",
    "covers",
    "excluded",
    "included",
    "indexing_tree",
    "position",
    "split",
]

Leaf = Callable[[Any], Any]
"""What to do with the value at the end of a path."""

Tree = dict[str, Any]
"""Field name -> the tree below it, or the Leaf that ends the path."""


_POSITION: Final = re.compile(r"0|[1-9][0-9]{0,8}")
"""Longer ones are beyond any array that a document has room for."""


class PathError(ValueError):
    """A path is not well formed, or lies over another one; the text says how, for the caller's own error."""


def LEAF(value: Any) -> Any:
    """The plain end of a path: the value as it is."""
    return value


def split(path: str) -> list[str]:
    """Return the field names of a dotted path; ``&.`` stands for a dot in a name, ``&&`` for an ampersand.

    Raises:
        PathError: a name is empty, an ampersand stands alone, or there are over 100 names.
    """
    if path.count(".") >= PATH_MAX_NAMES:
        raise PathError(f"has over {PATH_MAX_NAMES} names, and no document nests as deep: use a shorter path")
    names = path.split(".") if "&" not in path else _split_escaped(path)
    if not all(names):
        raise PathError("has an empty field name: leave out the dot at its start, at its end, or doubled")
    return names


def position(name: str) -> int | None:
    """Return the position in an array that a part of a path names, or None where it names none."""
    return int(name) if _POSITION.fullmatch(name) else None


def _split_escaped(path: str) -> list[str]:
    names: list[list[str]] = [[]]  # by characters: adding to a text copies it
    characters = iter(path)
    for character in characters:
        if character == ".":
            names.append([])
            continue
        if character == "&":
            character = next(characters, "")  # noqa: PLW2901
            if character not in (".", "&") or not character:
                raise PathError("has a lone '&': write '&&' for an ampersand and '&.' for a dot in a name")
        names[-1].append(character)
    return ["".join(name) for name in names]


def branch(tree: Tree, names: list[str]) -> Tree:
    """Return the tree below a path, made where there is none.

    Raises:
        PathError: a path ends on the way.
    """
    for name in names:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise PathError("continues another path of the same definition: keep one of the two")
    return tree


def add(tree: Tree, names: list[str], leaf: Leaf) -> None:
    """Put a path into the tree.

    Raises:
        PathError: the path is already there, or one of the two continues the other.
    """
    node = branch(tree, names[:-1])
    if names[-1] in node:
        raise PathError("is also the start of another path of the same definition: keep one of the two")
    node[names[-1]] = leaf


def indexing_tree(paths: Iterable[str]) -> Tree:
    """Return the tree of the paths; of two where one continues the other, the shorter one counts."""
    tree: Tree = {}
    for names in sorted(map(split, paths), key=len):
        node: Any = tree
        for name in names[:-1]:
            node = node.setdefault(name, {}) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node[names[-1]] = LEAF
    return tree


def covers(tree: Tree, names: Iterable[str]) -> bool:
    """Whether a path of the tree is ``names`` or a beginning of it."""
    node: Any = tree
    for name in names:
        node = node.get(name)
        if not isinstance(node, dict):
            return node is not None
    return False


_ABSENT: Final = object()


def included(value: Any, tree: Tree) -> Any:
    """Return a copy of ``value`` with only the paths of the tree; arrays are looked through, scalars stay."""
    if isinstance(value, list):
        return [included(element, tree) for element in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for name, field in value.items():
        below = tree.get(name, _ABSENT)
        if below is not _ABSENT:
            kept[name] = included(field, below) if isinstance(below, dict) else below(field)
    return kept


def excluded(value: Any, tree: Tree) -> Any:
    """Return a copy of ``value`` without the paths that end in LEAF; what another leaf returns stays."""
    if isinstance(value, list):
        return [excluded(element, tree) for element in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for name, field in value.items():
        below = tree.get(name, _ABSENT)
        if below is _ABSENT:
            kept[name] = field
        elif isinstance(below, dict):
            kept[name] = excluded(field, below)
        elif below is not LEAF:
            kept[name] = below(field)
    return kept
