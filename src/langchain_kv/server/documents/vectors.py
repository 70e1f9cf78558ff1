"""Vectors in requests: of documents, and to sort by."""

from __future__ import annotations

from typing import Any

from langchain_kv.engines.vectors import Vectors, numbers_of, packed
from langchain_kv.errors import DataAPIError
from langchain_kv.limits import VECTOR_MAX_DIMENSION, VECTOR_MAX_NUMBER, VECTOR_NEAR_ZERO
from langchain_kv.runtime.arrays import imported_numpy

__all__ = ["no_embedding_service", "no_vectors", "parse_vector"]


def parse_vector(value: Any, vectors: Vectors) -> bytes:
    """Return a vector as an engine takes it.

    Args:
        value: the vector as JSON has it.
        vectors: what those of the collection are.

    Raises:
        DataAPIError: one of the SHRED codes of vectors, INVALID_VECTOR_LENGTH, or INVALID_DATABASE_QUERY where it is
            none that the Data API's database indexes.
    """
    if isinstance(value, list):
        if not value:
            raise DataAPIError.of("SHRED_BAD_VECTOR_SIZE", "A vector has at least one number, and this one is empty.")
        if len(value) > VECTOR_MAX_DIMENSION:
            raise DataAPIError.of(
                "SHRED_DOC_LIMIT_VIOLATION",
                f"The vector has {len(value):,} numbers; at most {VECTOR_MAX_DIMENSION:,} are allowed.",
            )
    elif not isinstance(value, dict) or set(value) != {"$binary"}:
        raise DataAPIError.of(
            "SHRED_BAD_DOCUMENT_VECTOR_TYPE",
            'A vector is a list of numbers, or {"$binary": TEXT} with the base64 text of big-endian float32.',
        )
    try:
        numbers = packed(value)
    except ValueError as error:
        code = "SHRED_BAD_VECTOR_VALUE" if isinstance(value, list) else "SHRED_BAD_BINARY_VECTOR_VALUE"
        raise DataAPIError.of(code, f"The vector cannot be used: {error}.") from None
    if len(numbers) != 4 * vectors.dimension:
        raise DataAPIError.of(
            "INVALID_VECTOR_LENGTH",
            f"The vector has {len(numbers) // 4:,} numbers, and those of the collection have {vectors.dimension:,}:"
            " send as many.",
        )
    _check_indexable(numbers, vectors)
    return numbers


def _check_indexable(vector: bytes, vectors: Vectors) -> None:
    """Refuse a vector that the Data API passes on, and its database's index refuses."""
    largest = _largest(vector)
    if largest > VECTOR_MAX_NUMBER:
        reason = f"one of its numbers is beyond {VECTOR_MAX_NUMBER:.0e}"
    elif largest <= VECTOR_NEAR_ZERO and vectors.metric == "cosine":
        reason = (
            f"none of its numbers is further from zero than {VECTOR_NEAR_ZERO:.0e}, and the metric cosine compares"
            " directions, which it has none of: leave '$vector' out, set it to null, or use another metric"
        )
    else:
        return
    raise DataAPIError.of("INVALID_DATABASE_QUERY", f"The vector cannot be indexed or searched by: {reason}.")


def _largest(vector: bytes) -> float:
    """Return the number that is furthest from zero, without its sign."""
    numpy = imported_numpy()
    numbers: Any = numbers_of(vector) if numpy is None else numpy.frombuffer(vector, "<f4")
    return float(max(map(abs, numbers)) if numpy is None else max(numbers.max(), -numbers.min()))


def no_vectors(name: str) -> DataAPIError:
    """Return the error of a field, or of a sort, of a collection without vectors."""
    return DataAPIError.of(
        "VECTOR_SEARCH_NOT_SUPPORTED",
        f"The collection keeps no vectors: leave out '{name}', or create one with the option 'vector'.",
    )


def no_embedding_service(name: str) -> DataAPIError:
    """Return the error of a text of which a service would have to make a vector."""
    return DataAPIError.of(
        "EMBEDDING_SERVICE_NOT_CONFIGURED",
        f"The collection has no embedding service: leave out '{name}', and send '$vector'.",
    )
