"""What callers give a store's methods, checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from langchain_kv.errors import InvalidKeyError, UsageError
from langchain_kv.runtime.slices import SLICE_KEYS, by_parts, next_turn, parts
from langchain_kv.values.keys import USUAL_KEYS, KeyRule, check_key, check_keys, type_name

__all__ = [
    "achecked_keys",
    "achecked_pairs",
    "checked_function",
    "checked_keys",
    "checked_labels",
    "checked_pairs",
    "checked_prefix",
    "unique_keys",
]


def checked_keys(keys: Iterable[str], rule: KeyRule = USUAL_KEYS) -> list[str]:
    """Return the keys as a list."""
    return check_keys(_listed_keys(keys), rule)


async def achecked_keys(keys: Iterable[str], rule: KeyRule = USUAL_KEYS) -> list[str]:
    """As ``checked_keys``."""
    return list(await by_parts(lambda some: check_keys(some, rule), _listed_keys(keys)))


def _listed_keys(keys: Iterable[str]) -> list[str]:
    if type(keys) is list:  # the usual call: what it is not need not be asked
        return keys.copy()
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise UsageError(f"keys must be a sequence of strings, got one {type_name(keys)}: pass [key].")
    return list(keys)  # at once: the caller's may change between two parts


async def unique_keys(keys: Sequence[str]) -> list[str]:
    """Return each of the keys once, in the order of their first places."""
    unique: dict[str, None] = {}
    for some in parts(keys, SLICE_KEYS):
        if unique:
            await next_turn()
        unique.update(dict.fromkeys(some))
    return list(unique)


def checked_pairs(
    pairs: Iterable[Any], rule: KeyRule = USUAL_KEYS, *, verb: str = "mset", first_wins: bool = False
) -> dict[str, Any]:
    """Return the pairs as a dict: of a repeated key the last one wins, or the first."""
    if isinstance(pairs, Mapping):
        raise UsageError(f"{verb} takes (key, value) pairs, got a mapping: pass mapping.items().")
    if not isinstance(pairs, Iterable):
        raise UsageError(f"{verb} takes (key, value) pairs, got {type_name(pairs)}: pass [(key, value), ...].")
    listed = [pair if type(pair) is tuple and len(pair) == 2 else _checked_pair(pair, verb) for pair in pairs]
    if len(listed) == 1:
        ((key, value),) = listed
        return {check_key(key, rule): value}
    keys = check_keys([pair[0] for pair in listed], rule)
    values = [pair[1] for pair in listed]
    if not first_wins:
        return dict(zip(keys, values, strict=True))
    found: dict[str, Any] = {}
    for key, value in zip(keys, values, strict=True):
        found.setdefault(key, value)
    return found


async def achecked_pairs(
    pairs: Iterable[Any], rule: KeyRule = USUAL_KEYS, *, verb: str = "mset", first_wins: bool = False
) -> dict[str, Any]:
    """As ``checked_pairs``."""
    if isinstance(pairs, Mapping) or not isinstance(pairs, Iterable):
        return checked_pairs(pairs, rule, verb=verb)
    checked: dict[str, Any] = {}
    for some in parts(list(pairs), SLICE_KEYS):
        if checked:
            await next_turn()
        found = checked_pairs(some, rule, verb=verb, first_wins=first_wins)
        if first_wins:
            for key, value in found.items():
                checked.setdefault(key, value)
        else:
            checked.update(found)
    return checked


def _checked_pair(pair: Any, verb: str) -> tuple[Any, Any]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        size = f" of length {len(pair)}" if hasattr(pair, "__len__") else ""
        raise UsageError(f"{verb} takes (key, value) pairs, got a {type_name(pair)}{size}: pass [(key, value), ...].")
    return pair[0], pair[1]


def checked_prefix(prefix: str | None, rule: KeyRule = USUAL_KEYS) -> str:
    """Return the prefix, empty for None."""
    if prefix is not None and not isinstance(prefix, str):
        raise InvalidKeyError(f"prefix must be a string or None, got {type_name(prefix)}.")
    return check_key(prefix, rule) if prefix else ""


def checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of a namespace as a tuple; each of them is checked where it is used."""
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        raise InvalidKeyError(f"A namespace is a sequence of labels, got one {type_name(labels)}: give ('users',).")
    return tuple(labels)


def checked_function(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the function of an update."""
    if not callable(f):
        raise UsageError(f"update takes a function of the value, got {type_name(f)}: pass lambda old: ...")
    if inspect.iscoroutinefunction(f):
        raise UsageError("update takes a plain function, got a coroutine function: nothing is awaited in it.")
    return f
