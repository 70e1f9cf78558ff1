"""What a key is: a non-empty string of at most 8,000 bytes of UTF-8, on every target."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from langchain_kv import limits
from langchain_kv.errors import InvalidKeyError

__all__ = ["check_key", "check_keys", "shown", "type_name"]


def shown(key: object) -> str:
    """Return how a key is shown in messages: quoted, and cut when long."""
    text = repr(key)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"


def type_name(value: object) -> str:
    """Return the full name of a value's type: with its module, but for the builtins."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def check_key(key: object, max_bytes: int = limits.KEY_MAX_BYTES) -> str:
    """Return the key as an exact ``str``.

    Args:
        key: the key.
        max_bytes: how many bytes of UTF-8 it may take; fewer where something is put before it.

    Raises:
        InvalidKeyError: it is not a non-empty string of at most 8,000 bytes of UTF-8.
    """
    if not isinstance(key, str):
        # Only its type: with the two parts of a pair swapped, what is here is the value.
        how = "decode it with .decode()" if isinstance(key, bytes) else "convert it with str()"
        raise InvalidKeyError(f"A key must be a string, got {type_name(key)}: {how}.")
    if not key:
        raise InvalidKeyError("A key must not be empty: the Data API has no document with an empty _id.")
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
    if size > max_bytes:
        rest = limits.KEY_MAX_BYTES - max_bytes
        why = f" ({limits.KEY_MAX_BYTES:,}, of which its namespace takes {rest:,})" if rest > 0 else ""
        raise InvalidKeyError(
            f"Key {shown(key)} takes {size:,} bytes of UTF-8, the limit is {max_bytes:,}{why}: use a hash of it as key."
        )
    return key


def check_keys(keys: Iterable[object], max_bytes: int = limits.KEY_MAX_BYTES) -> list[str]:
    """Check each key as ``check_key`` does; return them all."""
    listed = list(keys)
    if len(listed) == 1:
        return [check_key(listed[0], max_bytes)]
    # The usual keys pass by a few looks at all of them together.
    if set(map(type, listed)) == {str} and all(listed):
        names = cast("list[str]", listed)
        if "".join(names).isascii() and max(map(len, names)) <= max_bytes:
            return names
    return [check_key(key, max_bytes) for key in listed]
