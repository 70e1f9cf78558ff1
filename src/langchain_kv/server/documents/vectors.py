"""Vectors in requests: of documents, and to sort by."""

from __future__ import annotations

from typing import Any

from langchain_kv.engines.vectors import packed
from langchain_kv.errors import DataAPIError
from langchain_kv.limits import VECTOR_MAX_DIMENSION

__all__ = ["no_embedding_service", "no_vectors", "parse_vector"]


def parse_vector(value: Any, dimension: int) -> bytes:
    """Return a vector as an engine takes it.

    Raises:
        DataAPIError: one of the SHRED codes of vectors, or INVALID_VECTOR_LENGTH.
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
    if len(numbers) != 4 * dimension:
        raise DataAPIError.of(
            "INVALID_VECTOR_LENGTH",
            f"The vector has {len(numbers) // 4:,} numbers, and those of the collection have {dimension:,}: send as"
            " many.",
        )
    return numbers


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
