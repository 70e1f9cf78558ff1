"""A store's values as records, and what is read as values: by its ``encode_value`` and ``decode_value``, in slices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar, cast

from langchain_kv.backends.base import Damaged, Found, Stored
from langchain_kv.errors import InvalidValueError
from langchain_kv.runtime.slices import ITEM_BYTES, SLICE_BYTES, SLICE_KEYS, Steps, by_bytes, parts
from langchain_kv.stores.damage import raise_damaged
from langchain_kv.values import codecs
from langchain_kv.values.plain import are_plain, is_flat
from langchain_kv.values.records import Kind, Record
from langchain_kv.values.refusals import name_key

__all__ = ["decode", "decode_all", "decode_one", "encode", "encode_pairs", "plain_values", "usual_of", "usually"]

V = TypeVar("V")
F = TypeVar("F", bound=Callable[..., Any])

Encode = Callable[[V], Any]
EncodeUsual = Callable[[Sequence[V]], Steps[list[Any] | None]]
Decode = Callable[[Any], V | None]
DecodeUsual = Callable[[list[Any]], list[Any] | None]

RUN: Final = 100
"""Values that are encoded together: what is done in vain for one that is unusual, is done for so many."""

_PARSED_BYTES: Final = 1_000
"""What a value counts for that is neither text nor bytes: a guess at what a codec of the user's does with it."""


def encode(encode_value: Encode[V], key: str, value: V, expires_at_ms: int | None = None) -> Record:
    """Return the record that keeps a value.

    Raises:
        InvalidValueError: it cannot be kept; the text names the key.
    """
    try:
        return _record_of(key, encode_value(value), expires_at_ms)
    except InvalidValueError as error:  # encode_value knows no key
        name_key(error, key)
        raise


def _record_of(key: str, encoded: Any, expires_at_ms: int | None) -> Record:
    if type(encoded) is bytes:
        return Record(key, encoded, Kind.BYTES, expires_at_ms)
    if isinstance(encoded, bytes | bytearray | memoryview):
        return Record(key, codecs.exact_bytes(encoded, key), Kind.BYTES, expires_at_ms)
    return codecs.encode_json(key, encoded, expires_at_ms)


def encode_pairs(
    encode_value: Encode[V],
    pairs: Mapping[str, V],
    expires_at_ms: int | None,
    encode_usual: EncodeUsual[V] | None = None,
) -> Steps[list[Record]]:
    """Return the record of each pair, whose key was checked. The usual values are looked at together.

    Args:
        encode_value: makes of a value what is kept; it is called once for each, which it may use up.
        pairs: the pairs.
        expires_at_ms: see ``Record``.
        encode_usual: makes of some values what ``encode_value`` would, where all of that is plain JSON; else None.
            ``encode_value`` is not called for those.
    """
    left = list(pairs.items())
    if len(left) == 1 and is_flat(left[0][1]):
        return [encode(encode_value, *left[0], expires_at_ms)]
    records: list[Record] = []
    size_bytes = 0
    while len(records) < len(left):
        run = left[len(records) : len(records) + RUN]
        usual = None if encode_usual is None else (yield from encode_usual([value for _, value in run]))
        if usual is not None:
            encoded, error, is_usual = usual, None, True
        else:
            encoded, error = codecs.encode_run(run, encode_value)
            is_usual = bool(encoded) and (yield from are_plain([one for one in encoded if type(one) is not bytes]))
        begun = len(records)
        while is_usual and (done := len(records) - begun) < len(encoded):
            keys = [key for key, _ in run[done : len(encoded)]]
            written = codecs.write_run(keys, encoded[done:], expires_at_ms)
            records += written
            size_bytes += sum([len(record.payload) for record in written])
            is_usual = bool(written)
            if size_bytes >= SLICE_BYTES:
                yield
                size_bytes = 0
        if usual is not None:
            if not is_usual:  # the first that is left was not, after all
                encode_usual = None
            continue
        done = len(records) - begun
        for (key, _), kept in zip(run[done : len(encoded)], encoded[done:], strict=True):
            record = _record_of(key, kept, expires_at_ms)
            records.append(record)
            size_bytes += len(record.payload) + ITEM_BYTES
            if size_bytes >= SLICE_BYTES:
                yield
                size_bytes = 0
        if error is not None:  # after those before it, so that the first bad value is told
            if isinstance(error, InvalidValueError):
                name_key(error, run[len(encoded)][0])
            raise error
    return records


class _Usual(NamedTuple):
    marked: Callable[..., Any]
    of_many: Any


def usually(of_many: EncodeUsual[Any] | DecodeUsual) -> Callable[[F], F]:
    """Mark an ``encode_value`` or ``decode_value`` with what makes the same of many usual values, and None where some
    are not: whoever overrides the one overrides both."""

    def mark(of_one: F) -> F:
        of_one.usual = _Usual(of_one, of_many)  # type: ignore[attr-defined]
        return of_one

    return mark


def usual_of(of_one: Callable[..., Any]) -> Any:
    """Return what ``usually`` marked a store's ``encode_value`` or ``decode_value`` with; None where another took its
    place."""
    function = getattr(of_one, "__func__", of_one)
    usual = getattr(function, "usual", None)  # others may have an attribute of that name
    if not isinstance(usual, _Usual) or usual.marked is not function:  # functools.wraps hands the mark on
        return None
    return usual.of_many


def plain_values(values: Sequence[Any]) -> Steps[list[Any] | None]:
    """Return the values, where all are plain JSON, else None: for ``encode_pairs``, of what is kept as it is."""
    plain = list(values)
    return plain if (yield from are_plain(plain)) else None


def decode(decode_value: Decode[V], key: str, stored: Stored | None, damaged: dict[str, str]) -> V | None:
    """Return the value of what is stored; note in ``damaged`` why there is none, where it is damaged."""
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


def decode_one(decode_value: Decode[V], key: str, stored: Stored | None) -> V | None:
    """As ``decode_all``, of one key."""
    damaged: dict[str, str] = {}
    value = decode(decode_value, key, stored, damaged)
    raise_damaged(damaged, {})  # where anything is
    return value


def decode_all(
    decode_value: Decode[V], wanted: Sequence[str], unique: Sequence[str], stored: Sequence[Stored | None]
) -> Steps[list[V | None]]:
    """Return the value of each key that is wanted, of several. The usual values are looked at together.

    Args:
        decode_value: makes a value of what ``encode_value`` answered.
        wanted: the keys.
        unique: each of them once.
        stored: what is stored of these.

    Raises:
        DamagedValueError: something is damaged; it has the values of the others.
    """
    values = yield from _usual_values(decode_value, stored)
    if values is None:
        damaged: dict[str, str] = {}
        values = []
        for some in by_bytes(stored, _size_of):
            if values:
                yield
            values += _decoded(decode_value, unique[len(values) : len(values) + len(some)], some, damaged)
        if damaged:
            raise_damaged(damaged, {key: one for key, one in zip(unique, values, strict=True) if key not in damaged})
    if len(unique) == len(wanted):
        return values
    by_key = dict(zip(unique, values, strict=True))
    ordered: list[V | None] = []
    for keys in parts(wanted, SLICE_KEYS):
        if ordered:
            yield
        ordered += [by_key[key] for key in keys]
    return ordered


def _usual_values(decode_value: Decode[V], stored: Sequence[Stored | None]) -> Steps[list[V | None] | None]:
    """Return the value of all that is stored, where all of it is usual; else None."""
    usual: DecodeUsual | None = usual_of(decode_value)
    if usual is None:
        return None
    values: list[V | None] = []
    for some in parts(stored, SLICE_KEYS):
        if values:
            yield
        if Damaged in set(map(type, some)):
            return None
        found = usual([None if one is None else one.value for one in cast("Sequence[Found | None]", some)])
        if found is None:
            return None
        values += found
    return values


def _decoded(
    decode_value: Decode[V], keys: Sequence[str], stored: Sequence[Stored | None], damaged: dict[str, str]
) -> list[V | None]:
    # Each once: what is made of a value may be that value, changed.
    values: list[V | None] = []
    for key, one in zip(keys, stored, strict=True):
        if one is None or isinstance(one, Damaged):
            values.append(decode(decode_value, key, one, damaged))
            continue
        try:
            values.append(decode_value(one.value))
        except codecs.UndecodableError as error:
            damaged[key] = str(error)
            values.append(None)
    return values


def _size_of(one: Stored | None) -> int:
    if one is None or isinstance(one, Damaged):
        return 0
    value = one.value
    return len(value) if type(value) is str or type(value) is bytes else _PARSED_BYTES
