"""A store's values as records, and what is read as values: by the store's ``encode_value`` and ``decode_value``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any, Final, TypeVar

from langchain_kv.backends.base import Damaged, Stored
from langchain_kv.errors import InvalidValueError
from langchain_kv.stores.damage import raise_damaged
from langchain_kv.values import codecs
from langchain_kv.values.keys import shown
from langchain_kv.values.records import Kind, Record

__all__ = ["decode", "decode_all", "encode", "encode_pairs"]

V = TypeVar("V")

Encode = Callable[[V], Any]
Decode = Callable[[Any], V | None]

RUN: Final = 100
"""Values that are encoded together: what is done in vain for one that is unusual, is done for so many."""


def encode(encode_value: Encode[V], key: str, value: V, expires_at_ms: int | None = None) -> Record:
    """Return the record that keeps a value.

    Raises:
        InvalidValueError: it cannot be kept; the text names the key.
    """
    try:
        encoded = encode_value(value)
        if type(encoded) is bytes:
            return Record(key, encoded, Kind.BYTES, expires_at_ms)
        if isinstance(encoded, bytes | bytearray | memoryview):
            return Record(key, codecs.exact_bytes(encoded, key), Kind.BYTES, expires_at_ms)
        return codecs.encode_json(key, encoded, expires_at_ms)
    except InvalidValueError as error:  # encode_value knows no key
        if shown(key) not in str(error):
            error.args = (f"Key {shown(key)}: {error}",)
        raise


def encode_pairs(encode_value: Encode[V], pairs: Mapping[str, V], expires_at_ms: int | None) -> list[Record]:
    """Return the records of checked keys and their values."""
    if len(pairs) == 1:
        ((key, value),) = pairs.items()
        return [encode(encode_value, key, value, expires_at_ms)]
    keys, records = list(pairs), list[Record]()
    for start in range(0, len(keys), RUN):
        run = keys[start : start + RUN]
        values = [pairs[key] for key in run]
        usual = _encode_run(encode_value, run, values, expires_at_ms)
        records += usual or list(map(encode, repeat(encode_value), run, values, repeat(expires_at_ms)))
    return records


def _encode_run(
    encode_value: Encode[V], keys: list[str], values: list[V], expires_at_ms: int | None
) -> list[Record] | None:
    """Return the records of usual values, encoded together; None where one is to be looked at by itself."""
    try:
        encoded = [encode_value(value) for value in values]
    except InvalidValueError:
        return None
    if set(map(type, encoded)) == {bytes}:
        return [Record(key, value, Kind.BYTES, expires_at_ms) for key, value in zip(keys, encoded, strict=True)]
    return codecs.encode_run(keys, encoded, expires_at_ms)


def decode(decode_value: Decode[V], key: str, stored: Stored | None, damaged: dict[str, str]) -> V | None:
    """Return the value of what is stored; None where there is none, or where it joins ``damaged`` (why, by key)."""
    if stored is None:
        return None
    if isinstance(stored, Damaged):
        damaged[key] = stored.reason
        return None
    try:
        return decode_value(stored.value)
    except codecs.UndecodableError as error:
        damaged[key] = str(error)
        return None


def decode_all(
    decode_value: Decode[V], wanted: list[str], unique: list[str], stored: Sequence[Stored | None]
) -> list[V | None]:
    """Return the values of the keys ``wanted``, given what is stored of each unique one.

    Raises:
        DamagedValueError: some cannot be read.
    """
    damaged: dict[str, str] = {}
    values: list[V | None] = [decode(decode_value, key, one, damaged) for key, one in zip(unique, stored, strict=True)]
    if not damaged and len(unique) == len(wanted):
        return values
    by_key = dict(zip(unique, values, strict=True))
    if damaged:
        raise_damaged(damaged, {key: value for key, value in by_key.items() if key not in damaged})
    return [by_key[key] for key in wanted]
