r"""Namespaces: a tuple of labels, encoded at the beginning of a key.

The key ``k`` of the namespace ``("users", "u1")`` is kept as ``\x1fusers\x1fu1\x1ek``: each label after ``\x1f``, the
key after ``\x1e``. In a label ``\x1d``, ``\x1e`` and ``\x1f`` are spelt ``\x1dd``, ``\x1de`` and ``\x1df``; in the key
nothing is changed. So no two pairs of a namespace and a key are kept as one text; all keys of a namespace begin with
one text, and those of a namespace and of all below it with another; a key that begins with none of these characters is
in no namespace.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from langchain_kv.errors import InvalidKeyError

__all__ = [
    "KEY_SIGN",
    "ancestry",
    "decode_key",
    "indexed_part",
    "is_in_tree",
    "namespace_of",
    "namespace_prefix",
    "namespaces_below",
    "subtree_prefix",
    "tree_prefixes",
    "tree_range",
]

_LABEL: Final = "\x1f"
KEY_SIGN: Final = "\x1e"
"""What stands before the key."""

_ESCAPE: Final = "\x1d"
_SPELLING: Final = {_ESCAPE: _ESCAPE + "d", KEY_SIGN: _ESCAPE + "e", _LABEL: _ESCAPE + "f"}
_MEANING: Final = {spelling: meaning for meaning, spelling in _SPELLING.items()}
_SPECIAL: Final = re.compile("[\x1d-\x1f]")
_SPELT: Final = re.compile("\x1d[def]")


def namespace_prefix(labels: Sequence[str]) -> str:
    """Return what every key of the namespace begins with, and no other key; of no labels, the empty text.

    Raises:
        InvalidKeyError: a label is no text, is empty, or holds a lone surrogate.
    """
    return subtree_prefix(labels) + KEY_SIGN if labels else ""


def subtree_prefix(labels: Sequence[str]) -> str:
    """Return what the keys of the namespace and of those below it begin with.

    So do the keys of namespaces whose label at this depth only begins like the last one of ``labels``: after this text
    comes ``\\x1e`` or ``\\x1f`` in those that are meant.
    """
    return "".join(_LABEL + _SPECIAL.sub(lambda found: _SPELLING[found[0]], _checked(label)) for label in labels)


def tree_prefixes(tree: str) -> list[str]:
    """Return what the keys of a namespace and of those below it begin with, and no others.

    Args:
        tree: what ``subtree_prefix`` answers; empty for all namespaces.
    """
    return [tree + KEY_SIGN, tree + _LABEL] if tree else [_LABEL]


def tree_range(tree: str) -> tuple[str, str]:
    """Return the text from which on, and that before which, all keys stand that ``tree_prefixes`` means, in order."""
    return (tree + KEY_SIGN if tree else _LABEL), tree + chr(ord(_LABEL) + 1)


def is_in_tree(key: str, tree: str) -> bool:
    """Return whether a key that begins with ``tree`` is in its namespace or in one below; see ``tree_prefixes``."""
    if tree:
        return key[len(tree) : len(tree) + 1] in (KEY_SIGN, _LABEL)
    return key.startswith(_LABEL)


def decode_key(key: str) -> tuple[tuple[str, ...], str] | None:
    """Return the namespace and the key of a text that keeps both; None where it is in no namespace."""
    head, found, name = key.partition(KEY_SIGN)
    if not found or not head.startswith(_LABEL):
        return None
    labels = head[1:].split(_LABEL)
    return tuple(_SPELT.sub(lambda found: _MEANING[found[0]], label) for label in labels), name


def namespace_of(key: str) -> str:
    """Return what ``namespace_prefix`` made of the namespace that a key is in; the empty text where it is in none."""
    return key[: key.find(KEY_SIGN) + 1] if key.startswith(_LABEL) else ""


def ancestry(key: str) -> list[str]:
    """Return what names the namespaces that a key is in, from the outermost: of each what the keys of it and of those
    below it begin with; at last what ``namespace_prefix`` made of its own. Empty where it is in none."""
    own = namespace_of(key)
    if not own:
        return []
    ends = [at for at, character in enumerate(own) if character == _LABEL and at]
    return [*(own[:end] for end in (*ends, len(own) - 1)), own]


def indexed_part(prefix: str) -> str:
    """Return the longest text of ``ancestry`` that every key with this prefix has in its own; empty where there is
    none."""
    if not prefix.startswith(_LABEL):
        return ""
    return namespace_of(prefix) or prefix[: prefix.rfind(_LABEL)]


def namespaces_below(prefixes: Iterable[str], labels: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the namespaces of these prefixes that begin with ``labels``, sorted."""
    found = (decode_key(prefix) for prefix in prefixes)
    names = [each[0] for each in found if each is not None and each[0][: len(labels)] == labels]
    return sorted(name for name in names if all(name))  # an empty label is not ours


def _checked(label: object) -> str:
    if not isinstance(label, str):
        raise InvalidKeyError(f"A label of a namespace must be a string, got one of type {type(label).__name__}.")
    if not label:
        raise InvalidKeyError("A label of a namespace must not be empty.")
    text = str.__str__(label)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidKeyError(
            f"The label {text[:60]!r} of a namespace holds a lone surrogate, which UTF-8 cannot express."
        ) from None
    return text
