"""Sorts: the field ``sort`` checked, and the first documents of a sorted result picked while going through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from langchain_kv.engines.base import DocId, Settings
from langchain_kv.engines.vectors import VECTOR, vectors_of
from langchain_kv.errors import DataAPIError
from langchain_kv.limits import SORT_MAX_FIELDS, SORT_MAX_ROWS
from langchain_kv.server.commands.requests import Collection
from langchain_kv.server.documents.stored import parsed_fields
from langchain_kv.server.documents.vectors import no_embedding_service, no_vectors, parse_vector
from langchain_kv.server.query.matching import find
from langchain_kv.server.query.ordering import SortKey, id_key, sort_key
from langchain_kv.values.paths import PathError, split

__all__ = ["Picker", "Sort", "VectorSort", "parse_sort"]


class VectorSort(NamedTuple):
    """A sort by how similar documents' vectors are to one.

    Attributes:
        vector: that one, as an engine takes it.
    """

    vector: bytes


class Sort(NamedTuple):
    """A sort that was checked.

    Attributes:
        fields: each path as field names, and whether it descends; the first counts most.
    """

    fields: Sequence[tuple[list[str], bool]]

    def keys(self, body: bytes) -> list[SortKey]:
        """Return what a stored document is sorted by: a key for each field, then, for equals, one for its ``_id``."""
        document = parsed_fields(body, {"_id", *(names[0] for names, _ in self.fields)})
        return [*(sort_key(find(document, names)) for names, _ in self.fields), id_key(document["_id"])]


def parse_sort(sort: Any, collection: Collection) -> Sort | VectorSort | None:
    """Parse the field ``sort`` of a command; None where it is absent, null or empty.

    Raises:
        DataAPIError: one of the SORT codes, or the code of a search that this server does not have.
    """
    if sort is None or sort == {}:
        return None
    if not isinstance(sort, dict):
        raise _invalid('it is an object of paths, such as {"_id": 1}')
    if any(name in sort for name in _SEARCHES):
        return _parse_search(sort, collection.settings)
    if len(sort) > SORT_MAX_FIELDS:
        raise _invalid(f"it has {len(sort)} paths, and at most {SORT_MAX_FIELDS} are allowed here")
    fields = [(_parse_path(path), path) for path in sort]
    for path, direction in sort.items():
        if type(direction) is not int or direction not in (1, -1):
            raise DataAPIError.of(
                "SORT_CLAUSE_VALUE_INVALID", f"The path {path[:100]!r} is sorted by 1 (ascending) or -1 (descending)."
            )
    for names, path in fields:
        if not collection.indexing.has(names):
            raise DataAPIError.of(
                "SORT_CLAUSE_PATH_UNINDEXED",
                f"The collection does not index the path {path[:100]!r}: sort what you read. What is indexed is"
                " decided when a collection is created.",
            )
    return Sort([(names, sort[path] == -1) for names, path in fields])


_BAD_FORMS: Final = ("SHRED_BAD_DOCUMENT_VECTOR_TYPE", "SHRED_BAD_BINARY_VECTOR_VALUE")
_SEARCHES: Final = ("$lexical", "$vector", "$vectorize")


def _parse_search(sort: dict[str, Any], settings: Settings) -> VectorSort:
    if "$lexical" in sort:
        raise DataAPIError.of(
            "LEXICAL_NOT_ENABLED_FOR_COLLECTION",
            "Lexical search is not enabled for the collection: do not sort by $lexical.",
        )
    name = VECTOR if VECTOR in sort else "$vectorize"
    if len(sort) > 1:
        raise _invalid(f"{name} has to be its only entry")
    if name != VECTOR:
        if not isinstance(sort[name], str) or not sort[name].strip():
            raise DataAPIError.of("SORT_CLAUSE_VALUE_INVALID", f"{name} needs a text of which to make a vector.")
        raise no_embedding_service(name)
    if not isinstance(sort[name], list | dict):
        raise DataAPIError.of(
            "SORT_CLAUSE_VALUE_INVALID",
            f'{name} needs the vector to compare with: a list of numbers, or {{"$binary": TEXT}}.',
        )
    vectors = vectors_of(settings)
    if vectors is None:
        raise no_vectors(name)
    try:
        return VectorSort(parse_vector(sort[name], vectors))
    except DataAPIError as error:
        if error.code in _BAD_FORMS:
            raise DataAPIError.of("SORT_CLAUSE_VALUE_INVALID", str(error)) from None
        raise


def _parse_path(path: str) -> list[str]:
    if path.startswith("$"):
        raise _bad_path(path, "starts with '$'")
    try:
        return split(path)
    except PathError as error:
        raise _bad_path(path, str(error)) from None


def _bad_path(path: str, reason: str) -> DataAPIError:
    return DataAPIError.of("SORT_CLAUSE_PATH_INVALID", f"The path {path[:100]!r} {reason}.")


def _invalid(reason: str) -> DataAPIError:
    return DataAPIError.of("SORT_CLAUSE_INVALID", f"The sort cannot be used: {reason}.")


class Picker:
    """Takes documents in any order and keeps the ids of the first ones, in the order of a sort.

    Args:
        sort: the order.
        count: how many to keep; memory is bounded by twice as many ids and keys.
    """

    def __init__(self, sort: Sort, count: int) -> None:
        self._sort, self._count = sort, count
        self._seen = 0
        self._kept: list[tuple[list[SortKey], DocId]] = []

    def add(self, document_id: DocId, body: bytes) -> None:
        """Take a document.

        Raises:
            DataAPIError: OVERLOADED_SORT_ROW_LIMIT with the 10,000th.
        """
        self._seen += 1
        if self._seen >= SORT_MAX_ROWS:
            raise DataAPIError.of(
                "OVERLOADED_SORT_ROW_LIMIT",
                f"{SORT_MAX_ROWS} documents or more match, which are too many to sort: narrow the filter.",
            )
        self._kept.append((self._sort.keys(body), document_id))
        if len(self._kept) > 2 * self._count + 100:
            self._cut()

    def picked(self) -> list[DocId]:
        """Return the ids of the first documents, in order."""
        self._cut()
        return [document_id for _, document_id in self._kept]

    def _cut(self) -> None:
        """Sort by one key after the other, the one that counts least first; equals keep their places."""
        self._kept.sort(key=lambda row: row[0][-1])
        for position in reversed(range(len(self._sort.fields))):
            is_descending = self._sort.fields[position][1]
            self._kept.sort(key=lambda row, at=position: row[0][at], reverse=is_descending)  # type: ignore[misc]
        del self._kept[self._count :]
