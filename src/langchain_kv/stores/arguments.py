"""What callers give a store's methods, checked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_kv.errors import InvalidKeyError, UsageError
from langchain_kv.keys import check_key, check_keys, type_name
from langchain_kv.slices import SLICE_KEYS, by_parts, parts

__all__ = ["achecked_keys", "achecked_pairs", "checked_keys", "checked_pairs", "checked_prefix", "unique_keys"]


def checked_keys(keys: Iterable[str]) -> list[str]:
    """Return the keys as a list."""
    return check_keys(_listed_keys(keys))


async def achecked_keys(keys: Iterable[str]) -> list[str]:
    """As ``checked_keys``."""
    return list(await by_parts(check_keys, _listed_keys(keys)))


def _listed_keys(keys: Iterable[str]) -> list[str]:
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise UsageError(f"keys must be a sequence of strings, got one {type_name(keys)}: pass [key].")
    return list(keys)  # at once: the caller's may change between two parts


async def unique_keys(keys: Sequence[str]) -> list[str]:
    """Return each of the keys once, in the order of their first places."""
    unique: dict[str, None] = {}
    for some in parts(keys, SLICE_KEYS):
        unique.update(dict.fromkeys(some))
        await asyncio.sleep(0)
    return list(unique)


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


async def achecked_pairs(pairs: Iterable[Any]) -> dict[str, Any]:
    """As ``checked_pairs``."""
    if isinstance(pairs, Mapping) or not isinstance(pairs, Iterable):
        return checked_pairs(pairs)
    checked: dict[str, Any] = {}
    for some in parts(list(pairs), SLICE_KEYS):
        checked.update(checked_pairs(some))
        await asyncio.sleep(0)
    return checked


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
