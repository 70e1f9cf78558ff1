"""What engines say alike of keyspaces and collections."""

from __future__ import annotations

from langchain_kv.engines.base import CollectionName
from langchain_kv.errors import DataAPIError

__all__ = ["no_vectors", "unknown_collection", "unknown_keyspace"]


def unknown_collection(collection: CollectionName) -> DataAPIError:
    """Make the UnknownCollectionError that names the collection."""
    return DataAPIError.of(
        "UNKNOWN_COLLECTION_OR_TABLE",
        f"There is no collection '{collection.name}' in keyspace '{collection.keyspace}'; create it first"
        " (a store does unless its set-up mode is OFF), or check the name and the place",
    )


def no_vectors() -> DataAPIError:
    """Make the error of a search by vector in a collection that keeps none."""
    return DataAPIError.of(
        "VECTOR_SEARCH_NOT_SUPPORTED",
        "The collection keeps no vectors: do not sort by $vector, or create a collection with the option 'vector'.",
    )


def unknown_keyspace(keyspace: str) -> DataAPIError:
    """Make the UnknownKeyspaceError that names the keyspace."""
    return DataAPIError.of(
        "UNKNOWN_KEYSPACE", f"There is no keyspace '{keyspace}'; create it first, or check the name and the place"
    )
