"""What a key is: a string, of as many bytes of UTF-8 as its target takes; mostly 8,000, and not empty."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, cast

from langchain_kv import limits
from langchain_kv.errors import InvalidKeyError

__all__ = ["USUAL_KEYS", "KeyRule", "check_key", "check_keys", "shown", "type_name"]


class KeyRule(NamedTuple):
    """Which keys a target takes.

    Attributes:
        max_bytes: how many bytes of UTF-8 a key may take; fewer where something is put before it.
        allows_empty: whether the empty text is a key.
    """

    max_bytes: int = limits.KEY_MAX_BYTES
    allows_empty: bool = False


USUAL_KEYS: Final = KeyRule()
"""Those that every target takes which keeps documents."""


def shown(key: object) -> str:
    """Return how a key is shown in messages: quoted, and cut when long."""
    text = repr(key)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"


def type_name(value: object) -> str:
    """Return the full name of a value's type: with its module, but for the builtins."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def check_key(key: object, rule: KeyRule = USUAL_KEYS) -> str:
    """Return the key as an exact ``str``.

    Args:
        key: the key.
        rule: which keys its target takes.

    Raises:
        InvalidKeyError: it is none of them.
    """
    if not isinstance(key, str):
        # Only its type: with the two parts of a pair swapped, what is here is the value.
        how = "decode it with .decode()" if isinstance(key, bytes) else "convert it with str()"
        raise InvalidKeyError(f"A key must be a string, got {type_name(key)}: {how}.")
    if not key and not rule.allows_empty:
        raise InvalidKeyError("A key must not be empty: the target has no record with an empty one.")
    if type(key) is not str:
        key = str.__str__(key)
    if key.isascii():
        size = len(key)
    else:
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            raise InvalidKeyError(
                f"Key {shown(key)} holds a lone surrogate, which UTF-8 cannot express: use valid Unicode text."
            ) from None
    if size > rule.max_bytes:
        raise InvalidKeyError(
            f"Key {shown(key)} takes {size:,} bytes of UTF-8, the limit is {rule.max_bytes:,} (what the target takes,"
            " without the labels of a namespace): use a hash of it as key."
        )
    return key


def check_keys(keys: Iterable[object], rule: KeyRule = USUAL_KEYS) -> list[str]:
    """Check each key as ``check_key`` does; return them all."""
    listed = list(keys)
    if len(listed) == 1:
        return [check_key(listed[0], rule)]
    # The usual keys pass by a few looks at all of them together.
    if set(map(type, listed)) == {str} and (rule.allows_empty or all(listed)):
        names = cast("list[str]", listed)
        if "".join(names).isascii() and max(map(len, names)) <= rule.max_bytes:
            return names
    return [check_key(key, rule) for key in listed]
