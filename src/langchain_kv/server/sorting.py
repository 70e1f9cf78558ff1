"""The field ``sort``: checked as the Data API does; sorting itself is not built yet, and refused."""

from __future__ import annotations

from typing import Any

from langchain_kv.errors import DataAPIError
from langchain_kv.server.paths import PathError, split
from langchain_kv.server.settings import Indexing

__all__ = ["check_sort"]


def check_sort(sort: Any, indexing: Indexing) -> None:
    """Refuse any sort that says something.

    Raises:
        DataAPIError: one of the SORT codes, or VECTOR_SEARCH_NOT_SUPPORTED.
    """
    if sort is None or sort == {}:
        return
    if not isinstance(sort, dict):
        raise DataAPIError.of("SORT_CLAUSE_INVALID", 'A sort is an object of paths, such as {"_id": 1}.')
    for path, direction in sort.items():
        if path in ("$vector", "$vectorize"):
            raise DataAPIError.of(
                "VECTOR_SEARCH_NOT_SUPPORTED", f"The collection keeps no vectors: do not sort by {path}."
            )
        if direction not in (1, -1) or isinstance(direction, bool):
            raise DataAPIError.of("SORT_CLAUSE_VALUE_INVALID", "A path is sorted by 1 (ascending) or -1 (descending).")
        try:
            names = split(path)
        except PathError as error:
            raise DataAPIError.of("SORT_CLAUSE_PATH_INVALID", f"The path {path[:100]!r} {error}.") from None
        if not indexing.has(names):
            raise DataAPIError.of(
                "SORT_CLAUSE_PATH_UNINDEXED",
                f"The collection does not index the path {path[:100]!r}: sort what you read.",
            )
    raise DataAPIError.of("SORT_CLAUSE_INVALID", "The local Data API does not sort yet: sort what you read.")
