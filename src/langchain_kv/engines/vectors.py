"""Vectors of documents: what an engine keeps beside a body, and the search for the most similar ones.

An engine takes a document's vector from its body, so whoever writes the body has nothing else to say, and a body
without one has none. The search compares with every vector of a collection, which lie in one matrix in memory: up to a
hundred thousand that is fast enough (numpy multiplies 100,000 by 1,536 in 50 ms), and an index of as many would take
minutes to build.
"""

from __future__ import annotations

import base64
import binascii
import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple, Protocol

import msgspec

from langchain_kv.engines.base import DocId, NearRow, Row, Settings, Where
from langchain_kv.runtime.arrays import imported_numpy
from langchain_kv.values.lenient import LenientDecoder

__all__ = [
    "MATRICES_MAX_BYTES",
    "VECTOR",
    "Matrix",
    "Metric",
    "Near",
    "Vectors",
    "hand_over",
    "merged",
    "nearest_rows",
    "numbers_of",
    "packed",
    "spelled",
    "vector_of",
    "vectors_of",
]

VECTOR: Final = "$vector"
"""The field of a document that is its vector: a list of numbers, or ``{"$binary": TEXT}``, base64 of big-endian
float32."""

MATRICES_MAX_BYTES: Final = 1024**3
"""Bytes of vectors that one place's searches keep in memory; of larger collections the vectors are read each time."""

Metric = Literal["cosine", "dot_product", "euclidean"]


class Vectors(NamedTuple):
    """What a collection's vectors are.

    Attributes:
        dimension: how many numbers each has.
        metric: how two are compared.
    """

    dimension: int
    metric: Metric


def vectors_of(settings: Settings) -> Vectors | None:
    """Return what the vectors of a collection with these settings are; None where it keeps none."""
    option = settings.get("vector")
    return None if option is None else Vectors(option["dimension"], option.get("metric", "cosine"))


# -- a document's vector ----------------------------------------------------------------------------------------------


class _Body(msgspec.Struct):
    vector: Any = msgspec.field(default=None, name=VECTOR)


_bodies: Final = LenientDecoder(_Body)


_HANDED_MAX: Final = 128
"""Vectors that wait for their bodies to be stored; of more, some are read from these again."""

_HANDED_BODY_MAX_BYTES: Final = 128 * 1024
"""A larger body is read again: many of them that are never stored, as their ``_id`` exists, would fill the memory."""

_MINUS_ZERO: Final = struct.pack("<f", -0.0)
_handed: Final[dict[bytes, bytes]] = {}


def hand_over(body: bytes, vector: bytes) -> None:
    """Have ``vector_of`` answer a vector, which was made of the one in this body, once without reading the body.

    Who checks a body has the vector already, and reading takes longer than storing. By the whole text, so that whatever
    becomes of the body, no other one gets its vector.
    """
    if len(body) > _HANDED_BODY_MAX_BYTES or _MINUS_ZERO in vector:  # of the sign the text of the body says nothing
        return
    if len(_handed) >= _HANDED_MAX:
        _handed.clear()
    _handed[body] = vector


def vector_of(body: bytes) -> bytes:
    """Return the vector of a document's JSON text as ``packed`` does; nothing where it has none that can be read."""
    handed = _handed.pop(body, None)
    if handed is not None:
        return handed
    try:
        value = _bodies.decode(body).vector
        return b"" if value is None else packed(value)
    except (ValueError, RecursionError):
        return b""


_NUMBERS: Final = {int, float, Decimal}


def packed(value: Any) -> bytes:
    """Return the float32 numbers, little-endian, of a vector as JSON has it.

    Raises:
        ValueError: it is no vector: not a list of finite numbers, nor the base64 text of some float32.
    """
    if isinstance(value, dict):
        return _unpacked_binary(value)
    if not isinstance(value, list):
        raise ValueError("it is neither a list of numbers nor {'$binary': text}")
    kinds = set(map(type, value))
    if not kinds <= _NUMBERS:
        raise ValueError("one of its elements is no number")
    try:
        numbers = list(map(float, value)) if Decimal in kinds else value
        found = struct.pack(f"<{len(numbers)}f", *numbers)  # a third of an array's time
    except (OverflowError, struct.error) as error:
        raise ValueError("one of its numbers is beyond the range of float32") from error
    _check_finite(numbers)
    return found


def _unpacked_binary(value: dict[str, Any]) -> bytes:
    text = value.get("$binary")
    if len(value) != 1 or not isinstance(text, str):
        raise ValueError("an object in its place is {'$binary': text}")
    try:
        numbers = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the text of $binary is no base64") from error
    if len(numbers) % 4:
        raise ValueError("the bytes of $binary are no whole number of float32")
    floats = array("f", numbers)
    if sys.byteorder == "little":
        floats.byteswap()
    _check_finite(floats)
    if sys.byteorder == "big":
        floats.byteswap()
    return floats.tobytes()


def _check_finite(numbers: Sequence[float]) -> None:
    # The sum of finite numbers, as Python makes it in double precision, is finite.
    if not -float("inf") < sum(numbers) < float("inf"):
        raise ValueError("one of its numbers is NaN, infinite, or beyond the range of float32")


# -- search -----------------------------------------------------------------------------------------------------------


class Near(NamedTuple):
    """A document that was found by its vector.

    Attributes:
        id: the document's.
        similarity: from 0 to 1 where the metric is cosine, and by dot product of vectors of length 1; a float32.
    """

    id: DocId
    similarity: float


class Matrix:
    """Vectors of one collection, one row each, in no order. It needs numpy, and a lock of its user's.

    Args:
        vectors: what they are.
        room: for how many there is to be room at first.

    Attributes:
        vectors: what they are.
        last: a mark of its user's: up to where it has seen what was written.
    """

    def __init__(self, vectors: Vectors, room: int = 0) -> None:
        self.vectors, self.last = vectors, 0
        self._dimension, self._metric = vectors
        self._numpy = imported_numpy()
        self._numbers = self._numpy.empty((room, self._dimension), "<f4")
        self._lengths = self._numpy.empty(room, "<f4")
        self._ids: list[DocId] = []
        self._rows: dict[DocId, int] = {}
        self._others: set[DocId] = set()

    def __len__(self) -> int:
        """How many ids were put, those whose vector is none of this collection included."""
        return len(self._ids) + len(self._others)

    def __contains__(self, doc_id: DocId) -> bool:
        """Whether it has a vector of that document."""
        return doc_id in self._rows

    @property
    def ids(self) -> set[DocId]:
        """Of which documents it has seen a vector."""
        return {*self._ids, *self._others}

    @property
    def size_bytes(self) -> int:
        """How much memory the vectors take."""
        return int(self._numbers.nbytes)

    def put(self, found: Iterable[tuple[DocId, bytes]]) -> None:
        """Take vectors, each in the place of that of the same id."""
        size = 4 * self._dimension
        known: list[tuple[int, bytes]] = []
        new: list[tuple[DocId, bytes]] = []
        latest = dict(found)
        for doc_id, vector in latest.items():
            row = self._rows.get(doc_id)
            if len(vector) != size:
                self.remove([doc_id])
                self._others.add(doc_id)
            elif row is not None:
                known.append((row, vector))
            else:
                self._others.discard(doc_id)
                new.append((doc_id, vector))
        for row, vector in known:
            self._fill(slice(row, row + 1), [vector])
        start = len(self._ids)
        self._make_room(start + len(new))
        self._ids += [doc_id for doc_id, _ in new]
        self._rows.update((doc_id, start + at) for at, (doc_id, _) in enumerate(new))
        if new:
            self._fill(slice(start, start + len(new)), [vector for _, vector in new])

    def _fill(self, rows: slice, vectors: list[bytes]) -> None:
        numbers = self._numpy.frombuffer(b"".join(vectors), "<f4").reshape(len(vectors), self._dimension)
        self._numbers[rows] = numbers
        self._lengths[rows] = self._numpy.sqrt(self._numpy.einsum("ij,ij->i", numbers, numbers, dtype="f8"))

    def _make_room(self, count: int) -> None:
        if count > len(self._numbers):
            room = max(count, len(self._numbers) * 5 // 4)
            for name in ("_numbers", "_lengths"):
                old = getattr(self, name)
                grown = self._numpy.empty((room, *old.shape[1:]), "<f4")
                grown[: len(self._ids)] = old[: len(self._ids)]
                setattr(self, name, grown)

    def remove(self, ids: Iterable[DocId]) -> None:
        """Forget the vectors of these documents, as far as it has them."""
        for doc_id in ids:
            self._others.discard(doc_id)
            row = self._rows.pop(doc_id, None)
            if row is None:
                continue
            moved = self._ids.pop()  # the last one takes the place
            if moved != doc_id:
                end = len(self._ids)
                self._ids[row], self._rows[moved] = moved, row
                self._numbers[row], self._lengths[row] = self._numbers[end], self._lengths[end]

    def nearest(self, vector: bytes, count: int) -> list[Near]:
        """Return the most similar ``count``, most similar first, equals in the order of ids."""
        if not self._ids or count <= 0:
            return []
        numpy, size = self._numpy, len(self._ids)
        query = numpy.frombuffer(vector, "<f4")
        scores = self._scores(query, size)
        if count < size:
            least = numpy.partition(scores, size - count)[size - count]
            rows = numpy.flatnonzero(
                scores >= least
            )  # all that equal the last one: which of them is for the ids to say
        else:
            rows = numpy.arange(size)
        keys = zip((-scores[rows]).tolist(), rows.tolist(), strict=True)
        order = sorted(keys, key=lambda key: (key[0], isinstance(self._ids[key[1]], bytes), self._ids[key[1]]))
        chosen = [row for _, row in order[:count]]
        similarities = similarity(numpy, self._metric, self._numbers[chosen], query)
        found = [Near(self._ids[row], value) for row, value in zip(chosen, similarities, strict=True)]
        return sorted(found, key=lambda near: -near.similarity)  # which the last digits of a sum may turn round

    def _scores(self, query: Any, size: int) -> Any:
        """Return a number for each row, the greater the more similar."""
        products = self._numbers[:size] @ query
        lengths = self._lengths[:size]
        if self._metric == "euclidean":
            return 2 * products - lengths * lengths
        if self._metric == "cosine":
            with self._numpy.errstate(divide="ignore", invalid="ignore"):
                products /= lengths
            self._numpy.nan_to_num(products, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        return products


def similarity(numpy: Any, metric: Metric, rows: Any, query: Any) -> list[float]:
    """Return how similar each row is to a vector, as the Data API tells it: a float32, computed in double precision.

    Of a vector of zeros, which has no direction, the cosine counts as 0.
    """
    many, one = rows.astype("f8"), query.astype("f8")
    if metric == "euclidean":
        difference = many - one
        values = 1 / (1 + numpy.einsum("ij,ij->i", difference, difference))
    else:
        values = many @ one
        if metric == "cosine":
            lengths = numpy.sqrt(numpy.einsum("ij,ij->i", many, many) * (one @ one))
            values = numpy.divide(values, lengths, out=numpy.zeros_like(values), where=lengths > 0)
        values = (1 + values) / 2
    found: list[float] = values.astype("f4").astype("f8").tolist()
    return found


class Searchable(Protocol):
    """Vectors among which the most similar ones are found."""

    def nearest(self, vector: bytes, count: int) -> list[Near]:
        """Return the most similar ``count``, most similar first, equals in the order of ids."""


def nearest_rows(
    among: Searchable,
    vector: bytes,
    read: Callable[[list[DocId]], Mapping[DocId, Row]],
    limit: int,
    where: Where | None,
) -> list[NearRow]:
    """Return the rows of the most similar vectors, which a condition may leave out.

    Args:
        among: the vectors.
        vector: to what they are compared.
        read: reads rows by their ids.
        limit: at most so many.
        where: the condition.
    """
    found: list[NearRow] = []
    looked_at, count = 0, limit if where is None else 4 * limit + _FIRST_LOOK
    while limit > 0:
        near = among.nearest(vector, count)
        for start in range(looked_at, len(near), _READ_AT_ONCE):
            part = near[start : start + _READ_AT_ONCE]
            rows = read([one.id for one in part])
            for one in part:
                row = rows.get(one.id)
                if row is not None and (where is None or where(row)):
                    found.append((row, one.similarity))
                    if len(found) == limit:
                        return found
        if len(near) < count:
            break
        looked_at, count = count, 100 * count
    return found


_FIRST_LOOK: Final = 100
_READ_AT_ONCE: Final = 100


def merged(blocks: Iterable[Sequence[Near]], count: int) -> list[Near]:
    """Return the most similar ``count`` of what was found in several blocks."""
    found: list[Near] = []
    for block in blocks:
        found = sorted([*found, *block], key=lambda near: (-near.similarity, isinstance(near.id, bytes), near.id))[
            :count
        ]
    return found


def numbers_of(vector: bytes) -> list[float]:
    """Return the numbers of a vector."""
    return list(struct.unpack(f"<{len(vector) // 4}f", vector))


_FLOAT: Final = struct.Struct("<f")


def spelled(value: float) -> str:
    """Return a float32 in the fewest digits that tell it from every other float32."""
    for digits in range(6, 10):
        text = f"{value:.{digits}g}"
        if _FLOAT.unpack(_FLOAT.pack(float(text)))[0] == value:
            break
    return repr(float(text))
