"""What callers give a store's methods, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from langchain_kv.errors import InvalidKeyError, UsageError
from langchain_kv.values.keys import check_key, check_keys, type_name

__all__ = ["checked_keys", "checked_pairs", "checked_prefix"]


def checked_keys(keys: Iterable[str]) -> list[str]:
    """Return the keys as a list."""
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise UsageError(f"keys must be a sequence of strings, got one {type_name(keys)}: pass [key].")
    return check_keys(keys)


def checked_pairs(pairs: Iterable[Any]) -> dict[str, Any]:
    """Return the pairs as a dict: of a repeated key the last one wins."""
    if isinstance(pairs, Mapping):
        raise UsageError("mset takes (key, value) pairs, got a mapping: pass mapping.items().")
    if not isinstance(pairs, Iterable):
        raise UsageError(f"mset takes (key, value) pairs, got {type_name(pairs)}: pass [(key, value), ...].")
    listed = [pair if type(pair) is tuple and len(pair) == 2 else _checked_pair(pair) for pair in pairs]
    if len(listed) == 1:
        ((key, value),) = listed
        return {check_key(key): value}
    keys = check_keys([pair[0] for pair in listed])
    return dict(zip(keys, [pair[1] for pair in listed], strict=True))


def _checked_pair(pair: Any) -> tuple[Any, Any]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        size = f" of length {len(pair)}" if hasattr(pair, "__len__") else ""
        raise UsageError(f"mset takes (key, value) pairs, got a {type_name(pair)}{size}: pass [(key, value), ...].")
    return pair[0], pair[1]


def checked_prefix(prefix: str | None) -> str:
    """Return the prefix, empty for None."""
    if prefix is not None and not isinstance(prefix, str):
        raise InvalidKeyError(f"prefix must be a string or None, got {type_name(prefix)}.")
    return check_key(prefix) if prefix else ""
