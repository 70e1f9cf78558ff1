"""Vectors of documents, as they are in the Data API's own column and its index."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from langchain_kv.engines.base import DocId
from langchain_kv.engines.cassandra.rows import shown_id
from langchain_kv.engines.vectors import Vectors, numbers_of, packed
from langchain_kv.errors import DataAPIError
from langchain_kv.limits import VECTOR_MAX_NUMBER

__all__ = ["ANN_MAX", "VECTOR_COLUMN", "column_type", "index_options", "looked_for", "similarity", "vector_in"]

VECTOR_COLUMN: Final = "query_vector_value"

ANN_MAX: Final = 1_000
"""Rows that one statement may ask an index of vectors for."""

_LENGTH_MIN: Final = 2.0**-63
"""The shortest vector whose square float32 expresses with all its digits: for shorter ones a node answers NaN."""


def column_type(vectors: Vectors) -> str:
    """Return the type of the column in CQL."""
    return f"vector<float, {vectors.dimension}>"


def index_options(vectors: Vectors) -> str:
    """Return what a CREATE INDEX says behind its class. Apache Cassandra knows no ``source_model``."""
    return f" WITH OPTIONS = {{'similarity_function': '{vectors.metric}'}}"


def similarity(vectors: Vectors) -> str:
    """Return the similarity to a vector, as an expression of CQL."""
    return f"similarity_{vectors.metric}({VECTOR_COLUMN}, ?)"


def vector_in(vectors: Vectors, doc_id: DocId | None, field: bytes) -> list[float] | None:
    """Return the vector that a document's field is, None where it is null.

    Args:
        vectors: of the collection.
        doc_id: the document's.
        field: its JSON text.

    Raises:
        DataAPIError: SHRED_BAD_VECTOR_VALUE: it is none, or the index cannot take it.
    """
    value = msgspec.json.decode(field)
    if value is None:
        return None
    try:
        return _checked(vectors, packed(value))
    except ValueError as error:
        raise _bad(f"of {shown_id(doc_id)}", error) from None


def looked_for(vectors: Vectors, vector: bytes) -> list[float]:
    """Return a vector of little-endian float32 to which others are compared.

    Raises:
        DataAPIError: SHRED_BAD_VECTOR_VALUE: the index cannot compare with it.
    """
    try:
        return _checked(vectors, vector)
    except ValueError as error:
        raise _bad("looked for", error) from None


def _checked(vectors: Vectors, vector: bytes) -> list[float]:
    """Return the numbers of a vector that the index takes; a node refuses any other without saying why."""
    numbers = numbers_of(vector)
    if len(numbers) != vectors.dimension:
        raise ValueError(f"it has {len(numbers):,} numbers, and the collection's have {vectors.dimension:,}")
    length = math.hypot(*numbers)
    if not length <= VECTOR_MAX_NUMBER and not max(map(abs, numbers)) <= VECTOR_MAX_NUMBER:
        raise ValueError(f"it has a number beyond {VECTOR_MAX_NUMBER:.0e}, which Apache Cassandra indexes none of")
    if vectors.metric == "cosine" and length < _LENGTH_MIN:
        raise ValueError("it is zero, or so short that it has no direction, which the metric cosine needs")
    return numbers


def _bad(whose: str, error: ValueError) -> DataAPIError:
    return DataAPIError.of("SHRED_BAD_VECTOR_VALUE", f"The vector {whose} cannot be used: {error}.")
