"""The waist: four verbs over batches, in both colours. A store is written once over it; a new place for values is one
Backend."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any

from langchain_kv.callers import warn_caller
from langchain_kv.codecs import Damaged, Document, Stored
from langchain_kv.errors import DataAPIError

__all__ = ["INDEXING", "Backend", "Damaged", "Document", "Record", "Stored", "check_settings"]

Record = tuple[str, bytes]
"""What is written: a key, and the compact JSON text of its whole document, ``{"_id": key, "value": ...}``, as UTF-8
bytes; or, where the backend keeps bytes, the body that keeps a value of bytes (``kept.py``).
It is made once, by the codec, and travels as it is into a request's body or a file."""

INDEXING: dict[str, Any] = {"allow": ["_id"]}
"""The indexing that the stores' collections are created with: the one langchain-astradb uses."""


_CONFLICT = "EXISTING_COLLECTION_DIFFERENT_SETTINGS"


def check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Decide whether an existing collection can hold a store's values.

    Args:
        name: the collection.
        settings: what it was created with, in createCollection's form. Lexical and rerank settings do not matter here.

    Raises:
        CollectionConflictError: its indexing, ids or vector setting differ from what a store creates.

    Warns:
        UserWarning: it indexes every field (as langchain-community's class made it); it is used all the same.
    """
    if settings.get("vector") or settings.get("defaultId"):
        other = "a vector collection" if settings.get("vector") else "a collection with ids of its own (defaultId)"
        raise DataAPIError.of(
            _CONFLICT, f"Collection '{name}' exists as {other}: choose another name for the store's collection."
        )
    indexing = settings.get("indexing")
    if not indexing:
        warn_caller(
            f"Collection '{name}' is detected as having indexing turned on for all fields (either created manually or"
            " by older versions of this class). It works, but limits of indexed values apply (text of 8,000 bytes,"
            " lists of 1,000 items) and writes cost more. Consider copying it to a new collection."
        )
    elif indexing != INDEXING:
        raise DataAPIError.of(
            _CONFLICT,
            f"Collection '{name}' is detected as having the following indexing policy: {json.dumps(indexing)}. This is"
            f" incompatible with the one a store uses, {json.dumps(INDEXING)}. Choose another name for the collection.",
        )


class Backend(ABC):
    """Where values live. Keys are checked and de-duplicated by the caller; batches may be of any size, and empty.

    The verbs block; their twins with a leading ``a`` do not. Both colours may be used on one object, from any thread
    and any
    event loop. All errors are of ``langchain_kv.errors``.
    """

    keyspace: str
    """The keyspace in use."""

    keeps_bytes: bool = False
    """Whether records may keep values of bytes as they are, and what is read may be such values."""

    # -- the four verbs -------------------------------------------------------------------------------------------

    @abstractmethod
    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        """Return what is stored of each key, in the order of ``keys``, None where there is nothing."""

    @abstractmethod
    async def aget_many(self, keys: Sequence[str]) -> list[Stored | None]:
        """As ``get_many``."""

    @abstractmethod
    def put_many(self, records: Sequence[Record]) -> None:
        """Store every record, whether its key exists or not; PartialWriteError where only some could be."""

    @abstractmethod
    async def aput_many(self, records: Sequence[Record]) -> None:
        """As ``put_many``."""

    @abstractmethod
    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove the keys; missing ones are no error. PartialWriteError where only some could be."""

    @abstractmethod
    async def adelete_many(self, keys: Sequence[str]) -> None:
        """As ``delete_many``."""

    @abstractmethod
    def scan_keys(self, prefix: str) -> Iterator[list[str]]:
        """Yield pages of the text keys that start with ``prefix``, each once, ship no values; memory is bounded by a
        page or two."""

    @abstractmethod
    def ascan_keys(self, prefix: str) -> AsyncGenerator[list[str], None]:
        """As ``scan_keys``."""

    @abstractmethod
    def scan_items(self, prefix: str) -> Iterator[list[tuple[str, Stored]]]:
        """As ``scan_keys``, with what is stored."""

    @abstractmethod
    def ascan_items(self, prefix: str) -> AsyncGenerator[list[tuple[str, Stored]], None]:
        """As ``scan_items``."""

    # -- life -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def setup(self, *, pre_delete: bool = False) -> None:
        """Open the collection, creating it (and, embedded, its keyspace) where it is missing; with ``pre_delete``
        drop it first.

        Raises CollectionConflictError where it exists with other settings; warns once where it indexes every field.
        """

    @abstractmethod
    async def asetup(self, *, pre_delete: bool = False) -> None:
        """As ``setup``."""

    @abstractmethod
    def drop(self) -> None:
        """Remove the collection and everything in it; a missing one is no error."""

    @abstractmethod
    async def adrop(self) -> None:
        """As ``drop``."""

    @abstractmethod
    def close(self) -> None:
        """Release what only this backend used. Idempotent."""

    @abstractmethod
    async def aclose(self) -> None:
        """As ``close``."""
