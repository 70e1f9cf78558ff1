"""What a store does to a whole batch, in slices: encoding pairs, and decoding what was read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from langchain_kv.codecs import Stored
from langchain_kv.slices import SLICE_BYTES, SLICE_KEYS, Steps, by_parts, in_slices, is_short, parts, whole
from langchain_kv.stores.damage import raise_damaged

__all__ = [
    "Decode",
    "Together",
    "adecode_all",
    "by_usual",
    "decode_all",
    "encode_each",
    "usual_bytes",
    "usual_values",
]

V = TypeVar("V")

Decode = Callable[[str, Stored | None, dict[str, str]], Any]
"""Decodes what is stored of a key; notes in its last argument why it cannot, where it is damaged."""

Together = Callable[[Sequence[Stored | None]], list[Any] | None]
"""Decodes the usual values of a batch; answers None where one is to be decoded by itself."""

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


def decode_all(
    wanted: Sequence[str],
    unique: Sequence[str],
    stored: Sequence[Stored | None],
    decode: Decode,
    together: Together | None,
) -> list[Any]:
    """Return the value of each key that is wanted.

    Args:
        wanted: the keys.
        unique: each of them once.
        stored: what is stored of these.
        decode: decodes one.
        together: decodes the usual ones of a batch.

    Raises:
        DamagedValueError: something is damaged; it has the values of the others.
    """
    values = together(stored) if together else None
    if values is None:
        values = whole(_decode_each(unique, stored, decode))
    if len(unique) == len(wanted):
        return values
    by_key = dict(zip(unique, values, strict=True))
    return [by_key[key] for key in wanted]


async def adecode_all(
    wanted: Sequence[str],
    unique: Sequence[str],
    stored: Sequence[Stored | None],
    decode: Decode,
    together: Together | None,
) -> list[Any]:
    """As ``decode_all``."""
    values: list[Any] | None = None
    if together:
        values = together(stored) if is_short(stored) else await by_usual(together, stored)
    if values is None:
        values = await in_slices(_decode_each(unique, stored, decode))
    if len(unique) == len(wanted):
        return values
    by_key = dict(zip(unique, values, strict=True))
    return list(await by_parts(lambda some: [by_key[key] for key in some], wanted))


def _decode_each(keys: Sequence[str], stored: Sequence[Stored | None], decode: Decode) -> Steps[list[Any]]:
    damaged: dict[str, str] = {}
    values: list[Any] = []
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


def usual_values(stored: Sequence[Stored | None]) -> list[Any] | None:
    """Return the value of each document, None where there is none; None where one is to be decoded by itself."""
    values: list[Any] = []
    for document in stored:
        if document is None:
            values.append(None)
        elif type(document) is dict and "encoding" not in document:
            values.append(document.get("value"))
        else:
            return None
    return values


def usual_bytes(stored: Sequence[Stored | None]) -> list[Any] | None:
    """Return the values where all are bytes that were kept as they are, or missing; None where one is to be decoded."""
    return list(stored) if set(map(type, stored)) <= _KEPT else None


async def by_usual(together: Together, stored: Sequence[Stored | None]) -> list[Any] | None:
    """Return what ``together`` makes of the values, a part at a time; None where it does of one."""
    values: list[Any] = []
    for some in parts(stored, SLICE_KEYS):
        if values:
            await asyncio.sleep(0)
        found = together(some)
        if found is None:
            return None
        values += found
    return values
