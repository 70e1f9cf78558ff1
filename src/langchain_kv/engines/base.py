"""The engine: documents kept by collection, as JSON text, on this machine or on a cluster of the user's own.

An engine knows nothing of LangChain and nothing of HTTP. It stores *bodies*: the compact JSON text of a document,
``_id`` included, as UTF-8 bytes, which it hands back as they came, so that no layer parses what it only passes on.
Where it ``keeps_raw_values``, a body may also be a value of bytes, as it is.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from langchain_kv.runtime.work_queue import Bridge

__all__ = [
    "KEEP",
    "Change",
    "CollectionName",
    "DocId",
    "Ending",
    "Engine",
    "Held",
    "Keep",
    "NearRow",
    "Row",
    "Settings",
    "Where",
]

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
"""What a collection was created with, in createCollection's own form: ``{"indexing": {"allow": ["_id"]}}``. With the
option ``vector``, whole (``dimension``, ``metric``, ``sourceModel``), the vectors of its documents can be searched."""

NearRow = tuple[Row, float]
"""A row that was found by its vector, and how similar that is, as a float32."""

Where = Callable[[Row], bool]
"""Says of a row whether it is wanted."""


LOOK_PAGE: Final = 1_000
"""Ids that are looked at together, where each is."""


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


_CLASS: Final = re.compile(r"\[[^]]*\]")


@dataclass(frozen=True)
class Ending:
    """A text of a fixed length at a fixed place from the end of bodies.

    Attributes:
        pattern: what a body ends with that has it there: ASCII characters that stand for themselves, and classes of one
            character each, such as ``[0-9]`` and ``[.]``, which GLOB and regular expressions read alike.
        length: its bytes.
        after: the bytes between it and the end of the body.
    """

    pattern: str
    length: int
    after: int

    @cached_property
    def size(self) -> int:
        """The bytes that the pattern matches."""
        return len(_CLASS.sub(".", self.pattern))

    @cached_property
    def before(self) -> bytes:
        """The characters that the pattern begins with, which come before any class."""
        return self.pattern.partition("[")[0].encode()

    @cached_property
    def _matches(self) -> Callable[[bytes], object]:
        return re.compile(self.pattern.encode()).fullmatch

    def text_in(self, body: bytes) -> bytes | None:
        """Return the text of a body; None where it has none."""
        return body[-self.length - self.after : -self.after] if self._matches(body[-self.size :]) else None

    def with_text(self, body: bytes, text: bytes) -> bytes:
        """Return a body that has the ending with this text."""
        return b"".join((body[: -self.length - self.after], text, body[-self.after :]))


class Held(NamedTuple):
    """A text in bodies.

    Attributes:
        text: ASCII characters.
        ends: the characters of which one comes after it; neither ``]`` nor ``^``.
    """

    text: str
    ends: str


class Engine(ABC):
    """Keeps documents by collection. Plain methods block; all are safe from any thread; ``bridge`` is the way in for
    coroutines, by which also those go that stand here with a leading ``a``, where an engine has none of its own.

    Every method that names a collection raises UnknownCollectionError or UnknownKeyspaceError where there is none,
    StoreClosedError after ``close``, EngineError where the storage fails. A write that raises has changed nothing,
    unless the error says otherwise (``applied``). What only some engines promise depends on the attributes here.
    """

    keeps_raw_values: bool = False
    """Whether a row may have a raw value of bytes."""

    keeps_vectors: bool = False
    """Whether ``nearest`` is there, and collections may be created with the option ``vector``."""

    compares_by_numpy: bool = True
    """Whether ``nearest`` needs numpy."""

    read_only: bool = False
    """Whether every write is refused."""

    purge_pause_s: float = 0.0
    """Seconds between two pages of a purge, in which other processes write."""

    atomic_batches: bool = True
    """Whether a batch is one step, stored whole or not at all, and read so.

    Otherwise each row is a step of its own, and PartialWriteError says which of them failed.
    """

    ordered: bool = True
    """Whether scans go in the order of ids, text by code point before the rest.

    Otherwise they go in an order of the engine's own, which is the same in every scan.
    """

    def check_writable(self) -> None:  # noqa: B027 - only a file is known to be none
        """Refuse what it is known that no write can be done to, or made of; nothing is made."""

    # -- documents ----------------------------------------------------------------------------------------------

    @abstractmethod
    def read(self, collection: CollectionName, ids: Sequence[DocId]) -> list[Row | None]:
        """Return the row of each id, in the order of ``ids`` (repeats allowed), None where there is none.

        With ``atomic_batches`` they are read as of one moment.
        """

    def read_with_settings(self, collection: CollectionName, ids: Sequence[DocId]) -> tuple[Settings, list[Row | None]]:
        """Return what ``settings`` and ``read`` do, of one and the same collection. Nobody changes these settings."""
        return self.settings(collection), self.read(collection, ids)

    @abstractmethod
    def write(self, collection: CollectionName, rows: Sequence[Row]) -> None:
        """Store every row, whether its id exists or not; of a repeated id the last. ``atomic_batches``: all or none."""

    @abstractmethod
    def modify(self, collection: CollectionName, ids: Sequence[DocId], change: Change) -> None:
        """Apply ``change`` to each id in order, seeing the effect of earlier ones, each isolated from other writers.

        With ``atomic_batches`` all are changed or none. What ``change`` raises is passed on, and nothing was changed;
        without ``atomic_batches``, where something was by then, it is among the ``errors`` of a PartialWriteError.
        """

    def merge(self, collection: CollectionName, rows: Sequence[Row], ending: Ending, change: Change) -> None:
        """Store every row; where its id exists, with the text of that row near its end.

        Args:
            collection: where.
            rows: each id once, neither raw nor expiring, each with such a text.
            ending: which text.
            change: as of ``modify``, of any of these ids: what is done where the row that is there has no such text, is
                raw or expires. It does the same as this where that has the text.
        """
        self.modify(collection, [row[0] for row in rows], change)

    @abstractmethod
    def delete(self, collection: CollectionName, ids: Sequence[DocId]) -> int:
        """Remove the documents that exist; return how many there were. ``atomic_batches``: all or none."""

    @abstractmethod
    def scan(
        self,
        collection: CollectionName,
        *,
        after: DocId | None = None,
        prefix: str = "",
        limit: int,
        size_bytes: int | None = None,
    ) -> list[Row]:
        """Return the next rows, in the order of ids if the engine is ``ordered``.

        Args:
            collection: where to look.
            after: only what comes after this id, which need not be there any more; None starts at the beginning.
            prefix: with a non-empty prefix, only text ids that start with it.
            limit: at most this many; fewer mean that there are no more, unless ``size_bytes`` ended the page.
            size_bytes: the page ends with the document that makes so many bytes of bodies; None: it does not.
        """

    def scan_listed(
        self, collection: CollectionName, field: str, text: str, *, after: DocId | None, limit: int, size_bytes: int
    ) -> list[Row]:
        """As ``scan``, of rows that may have ``text`` in an indexed field: as its value, or as an element of an array.

        What certainly has not may be left out: an engine that asks no index leaves out nothing.
        """
        return self.scan(collection, after=after, limit=limit, size_bytes=size_bytes)

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
        """As ``scan``, the ids only: no body is read, and fewer than ``limit`` mean that there are no more.

        With ``now_ms``, without those that have expired by then.
        """

    def scan_holding(
        self,
        collection: CollectionName,
        held: Held,
        *,
        after: DocId | None = None,
        prefix: str = "",
        limit: int,
        size_bytes: int | None = None,
    ) -> list[Row]:
        """As ``scan``; rows whose bodies do not hold that may be left out, where the engine looks at that."""
        return self.scan(collection, after=after, prefix=prefix, limit=limit, size_bytes=size_bytes)

    def ids_by_ending(
        self, collection: CollectionName, ending: Ending, *, start: str, end: str, limit: int | None
    ) -> list[str] | None:
        """Return ids in the order of the texts near the end of their bodies, the last text first, then of themselves.

        Args:
            collection: where to look.
            ending: which text. What the pattern begins with is looked at, not the rest.
            start: only ids from here on.
            end: only ids before this.
            limit: at most this many; None: all.

        Returns:
            The ids; None where a body has no such text, or its row expires, and where the engine does not look.
        """
        return None

    def beginnings(self, collection: CollectionName, *, prefix: str, end: str, now_ms: int) -> list[str]:
        """Return what text ids that start with ``prefix`` begin with, up to and with the first ``end``, each once.

        What has no ``end``, or has expired by ``now_ms``, does not count.

        Args:
            collection: where to look.
            prefix: not empty.
            end: one ASCII character, which ``prefix`` does not hold.
            now_ms: the moment.
        """
        found: dict[str, None] = {}
        after: DocId | None = None
        while ids := self.scan_ids(collection, after=after, prefix=prefix, limit=LOOK_PAGE, now_ms=now_ms):
            for doc_id in ids:
                head, cut, _ = str(doc_id).partition(end)
                if cut:
                    found[head + cut] = None
            after = ids[-1]
        return list(found)

    @abstractmethod
    def count(self, collection: CollectionName, *, limit: int | None = None) -> int:
        """Return the number of rows, counting no further than ``limit``."""

    @abstractmethod
    def clear(self, collection: CollectionName, prefix: str = "") -> None:
        """Remove every row, or with a prefix those whose text id starts with it; the collection stays."""

    @abstractmethod
    def purge(self, collection: CollectionName, *, now_ms: int, limit: int) -> int:
        """Remove up to ``limit`` rows that have expired by ``now_ms``; return how many."""

    def nearest(
        self,
        collection: CollectionName,
        vector: bytes,
        *,
        limit: int,
        ids: Sequence[DocId] | None = None,
        where: Where | None = None,
    ) -> list[NearRow]:
        """Return the rows whose documents' vectors are most similar, most similar first, equals in the order of ids.

        Documents without a vector are left out. The settings of the collection have the option ``vector``.

        Args:
            collection: where to look.
            vector: little-endian float32, as many as the collection's dimension.
            limit: at most so many rows; fewer mean that there are no more.
            ids: with these, only they are looked at.
            where: with it, only rows that it holds for. What it raises is passed on.
        """
        raise NotImplementedError(f"{type(self).__name__} keeps no vectors")

    def nearest_listed(
        self, collection: CollectionName, vector: bytes, listed: tuple[str, str], *, limit: int, where: Where
    ) -> list[NearRow]:
        """As ``nearest``, where ``listed`` is an indexed field and a text that wanted rows have in it."""
        return self.nearest(collection, vector, limit=limit, where=where)

    async def aread(self, collection: CollectionName, ids: Sequence[DocId]) -> list[Row | None]:
        """As ``read``."""
        return await self.bridge.read(self.read, collection, ids)

    async def amodify(self, collection: CollectionName, ids: Sequence[DocId], change: Change) -> None:
        """As ``modify``."""
        await self.bridge.write(self.modify, collection, ids, change)

    async def acount(self, collection: CollectionName, *, limit: int | None = None) -> int:
        """As ``count``."""
        return await self.bridge.read(self.count, collection, limit=limit)

    async def aclear(self, collection: CollectionName, prefix: str = "") -> None:
        """As ``clear``."""
        await self.bridge.write(self.clear, collection, prefix)

    # -- collections and keyspaces ------------------------------------------------------------------------------

    @abstractmethod
    def create_collection(self, collection: CollectionName, settings: Settings) -> Settings:
        """Create the collection if it is missing; return the settings in force: those of before, if it was there."""

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
        """Return the keyspaces in the order of their names; an embedded one begins with ``default_keyspace``."""

    # -- life -----------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def bridge(self) -> Bridge:
        """The way in for coroutines: runs this engine's calls without holding up the event loop."""

    @abstractmethod
    def close(self) -> None:
        """Release everything. Idempotent; calls in flight end first."""
