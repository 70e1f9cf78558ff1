"""The engine: documents kept by collection, as JSON text, on this machine or on a cluster of the user's own.

An engine knows nothing of LangChain and nothing of HTTP. It stores *bodies*: the compact JSON text of a document,
``_id``
included, as UTF-8 bytes, which it hands back as they came, so that no layer parses what it only passes on. Where it
``keeps_bytes``, a body may also be a value of bytes (``kept.py``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from langchain_kv.work_queue import Bridge

__all__ = ["KEEP", "Change", "CollectionName", "DocId", "Engine", "Keep", "Settings"]

DocId = str | bytes
"""The identity of a document. A text ``_id`` is itself (``str``); an ``_id`` of any other type (number, boolean,
null, date)
is ``bytes``: one type tag and its canonical text, so that ``5`` and ``"5"`` are two documents. Text sorts before the
rest,
each by code point."""

Settings = dict[str, Any]
"""What a collection was created with, in createCollection's own form: ``{"indexing": {"allow": ["_id"]}}``."""


class Keep(Enum):
    """The type of KEEP."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
"""What a change answers to leave a document as it is."""

Change = Callable[[DocId, bytes | None], bytes | Keep | None]
"""Sees an id and its body (None where there is no document); answers a new body, None to have no document, or KEEP.

It may be called more than once for an id, so it has no effects of its own but overwriting its own notes for that id."""


class CollectionName(NamedTuple):
    """A collection's full name."""

    keyspace: str
    name: str


class Engine(ABC):
    """Keeps documents by collection. All methods block; all are safe from any thread; ``bridge`` is the async way in.

    Every method that names a collection raises UnknownCollectionError or UnknownKeyspaceError where there is none,
    StoreClosedError
    after ``close``, EngineError where the storage fails. A write that raises has changed nothing, unless the error
    says otherwise (``applied``).
    """

    keeps_bytes: bool = False
    """Whether stores may keep values of bytes here as they are (``kept.py``), in the place of a document."""

    # -- documents ----------------------------------------------------------------------------------------------

    @abstractmethod
    def read(self, collection: CollectionName, ids: Sequence[DocId]) -> list[bytes | None]:
        """Return the body of each id, in the order of ``ids`` (repeats allowed), None where there is no document."""

    def read_with_settings(
        self, collection: CollectionName, ids: Sequence[DocId]
    ) -> tuple[Settings, list[bytes | None]]:
        """Return what ``settings`` and ``read`` do, of one and the same collection; the settings are not to be
        changed."""
        return self.settings(collection), self.read(collection, ids)

    @abstractmethod
    def write(self, collection: CollectionName, documents: Sequence[tuple[DocId, bytes]]) -> None:
        """Store every document, whether its id exists or not: all of them or none. Of a repeated id the last wins."""

    @abstractmethod
    def modify(self, collection: CollectionName, ids: Sequence[DocId], change: Change) -> None:
        """Apply ``change`` to each id in order, seeing the effect of earlier ones: all or none, isolated from other
        writers.

        An exception that ``change`` raises undoes the whole call and is passed on.
        """

    @abstractmethod
    def delete(self, collection: CollectionName, ids: Sequence[DocId]) -> int:
        """Remove the documents that exist, all or none; return how many there were."""

    @abstractmethod
    def scan(
        self,
        collection: CollectionName,
        *,
        after: DocId | None = None,
        prefix: str = "",
        limit: int,
        size_bytes: int | None = None,
    ) -> list[tuple[DocId, bytes]]:
        """Return the next documents in the order of ids.

        Args:
            collection: where to look.
            after: only ids after this one; None starts at the beginning.
            prefix: with a non-empty prefix, only text ids that start with it.
            limit: at most this many; fewer mean that there are no more, unless ``size_bytes`` ended the page.
            size_bytes: the page ends with the document that makes so many bytes of bodies; None: it does not.
        """

    @abstractmethod
    def scan_ids(
        self, collection: CollectionName, *, after: DocId | None = None, prefix: str = "", limit: int
    ) -> list[DocId]:
        """As ``scan``, the ids only: no body is read, and fewer than ``limit`` mean that there are no more."""

    @abstractmethod
    def count(self, collection: CollectionName, *, limit: int | None = None) -> int:
        """Return the number of documents, counting no further than ``limit``."""

    @abstractmethod
    def clear(self, collection: CollectionName) -> None:
        """Remove every document; the collection stays."""

    # -- collections and keyspaces ------------------------------------------------------------------------------

    @abstractmethod
    def create_collection(self, collection: CollectionName, settings: Settings) -> Settings:
        """Create the collection if it is missing; return the settings in force (the existing ones where it was
        there)."""

    @abstractmethod
    def drop_collection(self, collection: CollectionName) -> None:
        """Remove the collection and its documents; a missing one is no error (a missing keyspace is)."""

    @abstractmethod
    def settings(self, collection: CollectionName) -> Settings:
        """Return what the collection was created with."""

    @abstractmethod
    def collections(self, keyspace: str) -> dict[str, Settings]:
        """Return the settings of each collection of the keyspace, by name, in the order of names."""

    @abstractmethod
    def create_keyspace(self, keyspace: str) -> None:
        """Create the keyspace if it is missing."""

    @abstractmethod
    def drop_keyspace(self, keyspace: str) -> None:
        """Remove the keyspace and all in it; a missing one is no error."""

    @abstractmethod
    def keyspaces(self) -> list[str]:
        """Return the keyspaces in the order of their names; ``default_keyspace`` is always one of them unless
        dropped."""

    # -- life -----------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def bridge(self) -> Bridge:
        """The way in for coroutines: runs this engine's calls without holding up the event loop."""

    @abstractmethod
    def close(self) -> None:
        """Release everything. Idempotent; calls in flight end first."""
