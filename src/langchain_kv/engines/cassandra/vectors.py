"""Vectors of documents, as they are in the Data API's own column and its index."""

from __future__ import annotations

import math
import struct
from array import array
from binascii import a2b_base64
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from langchain_kv.engines.base import DocId, Settings
from langchain_kv.engines.cassandra.rows import shown_id
from langchain_kv.errors import InvalidValueError, StoreError

__all__ = ["ANN_MAX", "VECTOR_COLUMN", "VectorForm"]

VECTOR_COLUMN: Final = "query_vector_value"

ANN_MAX: Final = 1_000
"""Rows that one statement may ask an index of vectors for."""

FLOAT_BYTES: Final = 4

_NUMBER_MAX: Final = 1e17
"""The largest number of a vector that Apache Cassandra 5.0 indexes (measured)."""

_LENGTH_MIN: Final = 2.0**-63
"""The shortest vector whose square float32 expresses with all its digits: for shorter ones a node answers NaN."""

_Field = list[float] | dict[str, str] | None
_parse: Final = msgspec.json.Decoder(_Field, strict=True).decode


class VectorForm(NamedTuple):
    """The vectors of a collection.

    Attributes:
        dimension: how many numbers each has.
        metric: ``cosine``, ``dot_product`` or ``euclidean``.
    """

    dimension: int
    metric: str

    @classmethod
    def of(cls, settings: Settings) -> VectorForm | None:
        """Return what a collection's settings say; None where it has no vectors."""
        option = settings.get("vector")
        return cls(option["dimension"], option["metric"]) if option else None

    @property
    def column_type(self) -> str:
        """The type of the column in CQL."""
        return f"vector<float, {self.dimension}>"

    @property
    def index_options(self) -> str:
        """What a CREATE INDEX says behind its class. Apache Cassandra knows no ``source_model``."""
        return f" WITH OPTIONS = {{'similarity_function': '{self.metric}'}}"

    @property
    def similarity(self) -> str:
        """The similarity to a vector, as an expression of CQL."""
        return f"similarity_{self.metric}({VECTOR_COLUMN}, ?)"

    def parse(self, doc_id: DocId | None, field: bytes) -> list[float] | None:
        """Return the vector that a document's field is, None where it is null.

        Args:
            doc_id: the document's, None for a vector that is looked for.
            field: JSON text: a list of numbers, or ``{"$binary": base64}`` of big-endian float32.

        Raises:
            InvalidValueError: it is none, has another number of numbers, or one that the index cannot take.
        """
        try:
            given = _parse(field)
            numbers = given if given is None or isinstance(given, list) else _unpacked(given["$binary"])
        except (ValueError, KeyError, struct.error):
            raise self._bad(doc_id, "is neither a list of numbers nor {'$binary': base64}") from None
        return None if numbers is None else self.checked(doc_id, numbers)

    def looked_for(self, packed: bytes) -> list[float]:
        """Return the vector of little-endian float32 to which others are compared.

        Raises:
            InvalidValueError: see ``parse``.
        """
        return self.checked(None, struct.unpack(f"<{len(packed) // FLOAT_BYTES}f", packed))

    def checked(self, doc_id: DocId | None, numbers: Sequence[float]) -> list[float]:
        """Return a vector that the index takes; a node would refuse any other without saying why.

        Raises:
            InvalidValueError: see ``parse``.
        """
        if len(numbers) != self.dimension:
            raise self._bad(doc_id, f"has {len(numbers):,} numbers, and the collection's have {self.dimension:,}")
        vector = array("f", numbers)
        length = math.hypot(*vector)
        if not length <= _NUMBER_MAX and not max(map(abs, vector)) <= _NUMBER_MAX:
            raise self._bad(doc_id, f"has a number beyond {_NUMBER_MAX:.0e}, which no index takes")
        if self.metric == "cosine" and length < _LENGTH_MIN:
            raise self._bad(doc_id, "is zero, or so short that it has no direction, which the metric cosine needs")
        return vector.tolist()

    def _bad(self, doc_id: DocId | None, reason: str) -> StoreError:
        whose = "looked for" if doc_id is None else f"of {shown_id(doc_id)}"
        return InvalidValueError(f"The vector {whose} {reason}: give another one.")


def _unpacked(text: str) -> Sequence[float]:
    packed = a2b_base64(text)
    return struct.unpack(f">{len(packed) // FLOAT_BYTES}f", packed)
