"""What a store does to a whole batch, in slices: encoding pairs, decoding what was read, and its order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from langchain_kv.codecs import Stored
from langchain_kv.slices import SLICE_BYTES, SLICE_KEYS, Steps, parts
from langchain_kv.stores.damage import raise_damaged

__all__ = ["decode_each", "encode_each", "in_order", "usual_bytes", "usual_values"]

V = TypeVar("V")

_KEPT: Final = {bytes, type(None)}

_ITEM_BYTES: Final = SLICE_BYTES // SLICE_KEYS
"""What a value counts for, however short it is."""

_UNKNOWN_BYTES: Final = 4_000
"""What a document counts for whose value is no text: a guess."""


def encode_each(pairs: Mapping[str, V], encode: Callable[[str, V], bytes]) -> Steps[list[tuple[str, bytes]]]:
    """Return each key with what ``encode`` makes of it and its value."""
    records: list[tuple[str, bytes]] = []
    size_bytes = 0
    for key, value in pairs.items():
        if size_bytes >= SLICE_BYTES:
            yield
            size_bytes = 0
        body = encode(key, value)
        records.append((key, body))
        size_bytes += len(body) + _ITEM_BYTES
    return records


def decode_each(
    keys: Sequence[str], stored: Sequence[Stored | None], decode: Callable[[str, Stored | None, dict[str, str]], V]
) -> Steps[list[V]]:
    """Return what ``decode`` makes of each key and what is stored of it; it notes in its last argument what is damaged.

    Raises:
        DamagedValueError: something is; it has the values of the others.
    """
    damaged: dict[str, str] = {}
    values: list[V] = []
    size_bytes = 0
    for key, document in zip(keys, stored, strict=True):
        if size_bytes >= SLICE_BYTES:
            yield
            size_bytes = 0
        values.append(decode(key, document, damaged))
        text = document.get("value") if isinstance(document, dict) else None
        size_bytes += len(text) + _ITEM_BYTES if isinstance(text, str) else _UNKNOWN_BYTES
    if damaged:
        raise_damaged(damaged, {key: value for key, value in zip(keys, values, strict=True) if key not in damaged})
    return values


def usual_values(stored: Sequence[Stored | None]) -> Steps[list[Any] | None]:
    """Return the value of each document, None where there is none; None where one is to be decoded by itself."""
    values: list[Any] = []
    for some in parts(stored, SLICE_KEYS):
        if values:
            yield
        for document in some:
            if document is None:
                values.append(None)
            elif type(document) is dict and "encoding" not in document:
                values.append(document.get("value"))
            else:
                return None
    return values


def usual_bytes(stored: Sequence[Stored | None]) -> Steps[list[Any] | None]:
    """Return the values where all are bytes that were kept as they are, or missing; None where one is to be decoded."""
    values: list[Any] = []
    for some in parts(stored, SLICE_KEYS):
        if values:
            yield
        if not set(map(type, some)) <= _KEPT:
            return None
        values += some
    return values


def in_order(wanted: Sequence[str], unique: Sequence[str], values: list[V]) -> Steps[list[V]]:
    """Return the value of each key that is wanted; ``values`` are those of the unique ones."""
    if len(unique) == len(wanted):
        return values
    by_key = dict(zip(unique, values, strict=True))
    found: list[V] = []
    for some in parts(wanted, SLICE_KEYS):
        if found:
            yield
        found += [by_key[key] for key in some]
    return found
