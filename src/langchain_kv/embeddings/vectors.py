"""Vectors as bytes, and back: float32 where that is every number as it is, else float64.

The form, in which all numbers are little-endian::

    byte 0        0xE1, the version of this form: no text in UTF-8 goes on as this does, so no JSON is taken for it
    byte 1        4: the numbers are float32, 8: float64
    bytes 2, 3    zero
    bytes 4 to 7  how many numbers there are
    the rest      the numbers

numpy does this several times as fast. Without it the standard library's ``array`` makes and reads the same bytes.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from langchain_kv.errors import UnsupportedError
from langchain_kv.runtime.arrays import imported_numpy

__all__ = ["Unfit", "are_vectors", "count_of", "fill", "first_numbers", "imported_numpy", "pack", "unpack", "vector_of"]

_VERSION: Final = 0xE1
_HEADER: Final = struct.Struct("<BBHI")
_SHORT: Final = 4
_LONG: Final = 8
_SWAPPED: Final = sys.byteorder == "big"


class Unfit(NamedTuple):
    """Stands for what is no vector that could be kept.

    Attributes:
        reason: why, in words for the user; nothing of its numbers.
    """

    reason: str


# -- writing ----------------------------------------------------------------------------------------------------------


def pack(vectors: Sequence[Any]) -> list[bytes | Unfit]:
    """Return the bytes of each vector."""
    numpy = imported_numpy()
    packed = None if numpy is None else _packed_by_numpy(numpy, vectors)
    return [_packed(vector) for vector in vectors] if packed is None else packed


def _packed_by_numpy(numpy: Any, vectors: Sequence[Any]) -> list[bytes | Unfit] | None:
    """Return the bytes of vectors of one length whose numbers are all float32; None where they are looked at singly."""
    numbers = _numbers(numpy, vectors)
    if numbers is None or numbers.ndim != 2 or not numbers.size or not numpy.can_cast(numbers.dtype, "f8", "same_kind"):
        return None
    rows, columns = numbers.shape
    table = numpy.empty((rows, _HEADER.size // _SHORT + columns), "<f4")
    short = table[:, _HEADER.size // _SHORT :]
    with numpy.errstate(over="ignore"):
        short[...] = numbers
    if not (short == numbers).all() or not numpy.isfinite(short).all():
        return None
    table[:, : _HEADER.size // _SHORT] = numpy.frombuffer(_HEADER.pack(_VERSION, _SHORT, 0, columns), "<f4")
    size = _HEADER.size + columns * _SHORT
    text = table.tobytes()
    return [text[start : start + size] for start in range(0, len(text), size)]


def _numbers(numpy: Any, vectors: Sequence[Any]) -> Any:
    """Return vectors as an array; None where they are of several lengths, or of no numbers."""
    try:
        if set(map(type, vectors)) == {list}:  # numpy takes three times as long for lists
            form = struct.Struct(f"<{len(vectors[0])}d")
            return numpy.frombuffer(b"".join([form.pack(*vector) for vector in vectors]), "<f8").reshape(
                len(vectors), -1
            )
        return numpy.asarray(vectors)
    except (TypeError, ValueError, OverflowError, struct.error):
        return None


def _packed(vector: Any) -> bytes | Unfit:
    if isinstance(vector, str | bytes | bytearray):
        return Unfit(f"it is {type(vector).__name__}, not numbers")
    try:
        numbers = list(vector)
        exact = array("d", struct.pack(f"{len(numbers)}d", *numbers))
    except (TypeError, ValueError, OverflowError, struct.error):
        return Unfit(f"it is not a sequence of numbers but {type(vector).__name__}, or something in it is no number")
    if not exact:
        return Unfit("it has no numbers")
    # A sum of finite numbers is seldom beyond all numbers; then each of them is looked at.
    if not math.isfinite(sum(exact)) and not all(map(math.isfinite, exact)):
        return Unfit("it holds NaN or an infinity")
    short = array("f", exact)  # an infinity where a number is too large for it
    is_short = array("d", short) == exact
    return _HEADER.pack(_VERSION, _SHORT if is_short else _LONG, 0, len(exact)) + _little(short if is_short else exact)


def _little(numbers: array[float]) -> bytes:
    if _SWAPPED:
        numbers.byteswap()
    return numbers.tobytes()


# -- reading ----------------------------------------------------------------------------------------------------------


def count_of(value: object) -> int:
    """Return how many numbers these bytes are, 0 where they are not in the form above."""
    if not isinstance(value, bytes) or len(value) < _HEADER.size:
        return 0
    version, size, zero, count = _HEADER.unpack_from(value)
    is_ours = version == _VERSION and size in (_SHORT, _LONG) and not zero
    return count if is_ours and len(value) == _HEADER.size + size * count else 0


def first_numbers(value: bytes, count: int) -> tuple[str, tuple[float, ...]]:
    """Return which numbers these bytes are, ``float32`` or ``float64``, and the first of them, at most ``count``.

    Args:
        value: bytes in the form above.
        count: how many.
    """
    some = min(count, count_of(value))
    return (
        ("float32", struct.unpack_from(f"<{some}f", value, _HEADER.size))
        if value[1] == _SHORT
        else (
            "float64",
            struct.unpack_from(f"<{some}d", value, _HEADER.size),
        )
    )


def are_vectors(values: Sequence[bytes | None], count: int | None) -> list[bool]:
    """Return of each whether it is so many numbers in the form above; None is nothing."""
    if not count:
        return [False] * len(values)
    head, size, start = _HEADER.pack(_VERSION, _SHORT, 0, count), _HEADER.size + count * _SHORT, _HEADER.size
    return [
        value is not None and ((value[:start] == head and len(value) == size) or count_of(value) == count)
        for value in values
    ]


def unpack(values: Sequence[bytes]) -> list[list[float] | None]:
    """Return the vector of each, None in the place of one with NaN or an infinity.

    Args:
        values: bytes in the form above.
    """
    numpy = imported_numpy()
    table = None if numpy is None else _table(numpy, values)
    if table is None:
        return [_unpacked(value) for value in values]
    if _is_finite(numpy, table):
        found: list[list[float] | None] = table.tolist()
        return found
    return [row.tolist() if numpy.isfinite(row).all() else None for row in table]


def fill(array: Any, places: list[int], values: Sequence[bytes]) -> list[int]:
    """Put vectors into rows of an array of float32, as long as they are; return which hold NaN or an infinity.

    Args:
        array: of numpy.
        places: the row of each vector.
        values: bytes in the form above.

    Raises:
        UnsupportedError: a number is beyond float32.
    """
    numpy = imported_numpy()
    width = array.shape[1] * _SHORT
    if set(map(len, values)) == {_HEADER.size + width}:
        room = memoryview(array.reshape(-1).view("u1"))  # half of what an assignment for each row takes
        for place, value in zip(places, values, strict=True):
            room[place * width : (place + 1) * width] = memoryview(value)[_HEADER.size :]
    else:
        for place, value in zip(places, values, strict=True):
            array[place] = _as_short(numpy, value)
    whole = range(places[0], places[0] + len(places))
    rows = array[whole.start : whole.stop] if places == list(whole) else array[places]
    return [] if _is_finite(numpy, rows) else numpy.flatnonzero(~numpy.isfinite(rows).all(axis=1)).tolist()


def _as_short(numpy: Any, value: bytes) -> Any:
    numbers = numpy.frombuffer(value, "<f4" if value[1] == _SHORT else "<f8", -1, _HEADER.size)
    if (numpy.abs(numbers[numpy.isfinite(numbers)]) > numpy.finfo("f4").max).any():
        raise UnsupportedError(
            "A vector holds a number that is beyond float32: use embed_documents, which returns lists."
        )
    return numbers


def _is_finite(numpy: Any, table: Any) -> bool:
    # A sum takes half the time. That of finite numbers is seldom beyond all numbers; then each of them is looked at.
    return bool(numpy.isfinite(numpy.einsum("ij->", table)) or numpy.isfinite(table).all())


def _table(numpy: Any, values: Sequence[bytes]) -> Any:
    """Return float32 vectors of one length as rows; None where some are of another kind or length."""
    head = values[0][: _HEADER.size]
    if head[1] != _SHORT or {value[: _HEADER.size] for value in values} != {head}:
        return None
    numbers = numpy.frombuffer(b"".join(values), "<f4")
    return numbers.reshape(len(values), -1)[:, _HEADER.size // _SHORT :]


def _unpacked(value: bytes) -> list[float] | None:
    numbers = array("f" if value[1] == _SHORT else "d")
    numbers.frombytes(memoryview(value)[_HEADER.size :])
    if _SWAPPED:
        numbers.byteswap()
    if not math.isfinite(sum(numbers)) and not all(map(math.isfinite, numbers)):
        return None
    return numbers.tolist()


def vector_of(value: bytes) -> list[float] | Unfit:
    """Return a vector that LangChain's CacheBackedEmbeddings kept, as JSON text, or that was packed since."""
    if count_of(value):
        return unpack([value])[0] or Unfit("it holds NaN or an infinity")
    try:
        vector: list[float] = msgspec.json.decode(value, type=list[float])
    except (msgspec.DecodeError, TypeError):  # NaN is none of JSON's numbers, either
        return Unfit("it is no JSON of a list of numbers")
    return vector
