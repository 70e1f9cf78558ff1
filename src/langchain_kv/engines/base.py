"""The engine: documents kept by collection, as JSON text, on this machine or on a cluster of the user's own.

An engine knows nothing of LangChain and nothing of HTTP. It stores *bodies*: the compact JSON text of a document,
``_id`` included, as UTF-8 bytes, which it hands back as they came, so that no layer parses what it only passes on.
Where it ``keeps_raw_values``, a body may also be a value of bytes, as it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from langchain_kv.runtime.work_queue import Bridge

__all__ = ["KEEP", "Change", "CollectionName", "DocId", "Engine", "Keep", "Row", "Settings"]

DocId = str | bytes
"""The identity of a document. A text ``_id`` is itself (``str``); an ``_id`` of any other type (number, boolean, null,
date) is ``bytes``: one type tag and its canonical text, so that ``5`` and ``"5"`` are two documents. Text sorts before
the rest, each by code point."""

Row = tuple[DocId, bytes, bool, int | None]
"""What an engine keeps: the id; the body; whether that is a raw value of bytes, in the place of a document's text; and
from which moment on stores leave it out, in milliseconds of Unix time, None where for ever (in a document it stands in
the field ``expires_at``, too).

A plain tuple, because a batch has thousands, and any class costs as much as all the rest of passing one on."""

Settings = dict[str, Any]
"""What a collection was created with, in createCollection's own form: ``{"indexing": {"allow": ["_id"]}}``."""


class Keep(Enum):
    """The type of KEEP."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
"""What a change answers to leave a document as it is."""

Change = Callable[[DocId, Row | None], Row | Keep | None]
"""Sees an id and its row (None where there is none); answers a new row of that id, None to have none, or KEEP.

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

    keeps_raw_values: bool = False
    """Whether a row may have a raw value of bytes."""

    # -- documents ----------------------------------------------------------------------------------------------

    @abstractmethod
    def read(self, collection: CollectionName, ids: Sequence[DocId]) -> list[Row | None]:
        """Return the row of each id, in the order of ``ids`` (repeats allowed), None where there is none."""

    def read_with_settings(self, collection: CollectionName, ids: Sequence[DocId]) -> tuple[Settings, list[Row | None]]:
        """Return what ``settings`` and ``read`` do, of one and the same collection; the settings are not to be
        changed."""
        return self.settings(collection), self.read(collection, ids)

    @abstractmethod
    def write(self, collection: CollectionName, rows: Sequence[Row]) -> None:
        """Store every row, whether its id exists or not: all of them or none. Of a repeated id the last wins."""

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
        self, collection: CollectionName, *, after: DocId | None = None, prefix: str = "", limit: int
    ) -> list[Row]:
        """Return the next rows in the order of ids.

        Args:
            collection: where to look.
            after: only ids after this one; None starts at the beginning.
            prefix: with a non-empty prefix, only text ids that start with it.
            limit: at most this many; fewer mean that there are no more.
        """

    @abstractmethod
    def scan_ids(
        self,
        collection: CollectionName,
        *,
        after: DocId | None = None,
        prefix: str = "",
        limit: int,
        now_ms: int | None = None,
    ) -> list[DocId]:
        """As ``scan``, the ids only: no body is read. With ``now_ms``, without those that have expired by then."""

    @abstractmethod
    def count(self, collection: CollectionName, *, limit: int | None = None) -> int:
        """Return the number of rows, counting no further than ``limit``."""

    @abstractmethod
    def clear(self, collection: CollectionName, prefix: str = "") -> None:
        """Remove every row, or with a prefix those whose text id starts with it; the collection stays."""

    @abstractmethod
    def purge(self, collection: CollectionName, *, now_ms: int, limit: int) -> int:
        """Remove up to ``limit`` rows that have expired by ``now_ms``; return how many."""

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
