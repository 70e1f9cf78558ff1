"""What a call answers: a list of vectors, or one array of them, filled in the order in which they are found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from langchain_kv.embeddings.vectors import count_of, fill, imported_numpy, unpack
from langchain_kv.runtime.slices import SLICE_BYTES

__all__ = ["ArrayAnswer", "ListAnswer", "VectorAnswer"]


class VectorAnswer(ABC):
    """Has a place for the vector of each text.

    Attributes:
        slice_bytes: bytes of packed vectors that are put in one part.
    """

    slice_bytes = SLICE_BYTES

    @abstractmethod
    def put(self, places: list[int], values: Sequence[bytes]) -> list[int]:
        """Put packed vectors, all of one length, in their places.

        Returns:
            Which of them hold NaN or an infinity, and are not put: where they are in ``values``.
        """

    def put_fresh(self, places: list[int], vectors: Sequence[Any], values: Sequence[bytes]) -> None:
        """Put the vectors that a model answered in their places; ``values`` are the same, packed."""
        self.put(places, values)

    @abstractmethod
    def repeat(self, place: int, source: int) -> None:
        """Put a copy of one place's vector in another."""


class ListAnswer(VectorAnswer):
    """A list of lists.

    Attributes:
        vectors: None in a place that has no vector yet.
    """

    def __init__(self, count: int) -> None:
        self.vectors: list[Any] = [None] * count

    def put(self, places: list[int], values: Sequence[bytes]) -> list[int]:
        unsound = []
        for at, vector in enumerate(unpack(values)):
            if vector is None:
                unsound.append(at)
            else:
                self.vectors[places[at]] = vector
        return unsound

    def put_fresh(self, places: list[int], vectors: Sequence[Any], values: Sequence[bytes]) -> None:
        if set(map(type, vectors)) == {list}:
            for place, vector in zip(places, vectors, strict=True):
                self.vectors[place] = vector
        else:
            self.put(places, values)

    def repeat(self, place: int, source: int) -> None:
        self.vectors[place] = list(self.vectors[source])


class ArrayAnswer(VectorAnswer):
    """An array of float32 with a row for each text. It needs numpy."""

    slice_bytes = 4 * SLICE_BYTES  # which are only copied

    def __init__(self, count: int) -> None:
        self._count = count
        self._array: Any = None

    @property
    def array(self) -> Any:
        """The array; one of no columns where there are no texts."""
        return imported_numpy().empty((0, 0), "<f4") if self._array is None else self._array

    def put(self, places: list[int], values: Sequence[bytes]) -> list[int]:
        if self._array is None:
            self._array = imported_numpy().empty((self._count, count_of(values[0])), "<f4")
        return fill(self._array, places, values)  # an unsound row is written over later

    def repeat(self, place: int, source: int) -> None:
        self._array[place] = self._array[source]
