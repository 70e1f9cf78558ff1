"""The waist: what a store asks of the place where its values are.

A store turns values into records and hands them to a ``Backend``, which knows nothing of LangChain. Whoever adds a
place for values subclasses ``SyncBackend`` or ``AsyncBackend`` and writes plain calls or coroutines: the others come
with the class. Whoever changes records on their way subclasses ``Wrapper`` (``wrappers.py``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, closing
from functools import cached_property

from langchain_kv import limits
from langchain_kv.backends.found import (
    Change,
    Damaged,
    Found,
    Merge,
    Nearest,
    Page,
    Skimmed,
    Stored,
    alive_of,
    is_alive,
)
from langchain_kv.backends.merging import Merging
from langchain_kv.engines.base import Ending, Held
from langchain_kv.errors import PartialWriteError, StoreError, UnsupportedError
from langchain_kv.runtime.halfway import Halfway
from langchain_kv.runtime.work_queue import Bridge, QueueBridge, run_aside
from langchain_kv.values.namespaces import is_in_tree, namespace_of
from langchain_kv.values.records import Kind, Record

__all__ = [
    "Backend",
    "Change",
    "Damaged",
    "Found",
    "Kind",
    "Merge",
    "Nearest",
    "Page",
    "Record",
    "Skimmed",
    "Stored",
    "SyncBackend",
    "alive_of",
    "is_alive",
    "unsupported",
]


class Backend(ABC):
    """Where values are, as a store sees it. Subclass ``SyncBackend``, ``AsyncBackend`` or ``Wrapper``.

    The caller has checked the keys, which are exact ``str``, and removed duplicates. Batches may be of any size, and
    empty. Every verb has an async twin with a leading ``a``; both may be used on one object, from any thread and any
    event loop. A record that has expired is never handed up, and never listed. All errors are of
    ``langchain_kv.errors``; those that concern a key or a limit name it.
    """

    can_update: bool = False
    """Whether ``update`` and ``touch_many`` are there."""

    keeps_bytes: bool = True
    """Whether bytes are read as bytes. Else they are text, base64, which only its reader knows to be bytes, unless it
    was written as ``Kind.MARKED_BYTES``."""

    in_key_order: bool = False
    """Whether ``scan`` goes in an order of the keys, and ``scan_after`` goes on in it."""

    @property
    def key_max_bytes(self) -> int:
        """How many bytes of UTF-8 a key may take."""
        return limits.KEY_MAX_BYTES

    @property
    def allows_empty_key(self) -> bool:
        """Whether the empty text is a key."""
        return False

    # -- what every backend has ---------------------------------------------------------------------------------------

    @abstractmethod
    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        """Return what is stored of each key, in the order of ``keys``; None where there is nothing."""

    @abstractmethod
    async def aget_many(self, keys: Sequence[str]) -> list[Stored | None]:
        """As ``get_many``."""

    @abstractmethod
    def put_many(self, records: Sequence[Record]) -> None:
        """Store every record, whether its key exists or not.

        Raises:
            PartialWriteError: some were stored and some were not; it says which.
        """

    @abstractmethod
    async def aput_many(self, records: Sequence[Record]) -> None:
        """As ``put_many``."""

    def check_many(self, records: Sequence[Record]) -> None:  # noqa: B027 - most that a target refuses it knows itself
        """Refuse records of which it is known that ``put_many`` would refuse them; nothing is stored. For dry runs."""

    def check_writable(self) -> None:  # noqa: B027 - most targets tell only who writes
        """Refuse a target of which it is known that nothing can be written there, or that what holds the values can not
        be made; nothing is. For dry runs."""

    @abstractmethod
    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove the keys; missing ones are no error.

        Raises:
            PartialWriteError: some were removed and some were not; it says which.
        """

    @abstractmethod
    async def adelete_many(self, keys: Sequence[str]) -> None:
        """As ``delete_many``."""

    def skim_many(self, keys: Sequence[str]) -> list[Stored | bytes | None]:
        """As ``get_many``; some may come unparsed, as the JSON text of a document of ``documents.py``."""
        return [*self.get_many(keys)]

    async def askim_many(self, keys: Sequence[str]) -> list[Stored | bytes | None]:
        """As ``skim_many``."""
        return [*await self.aget_many(keys)]

    @abstractmethod
    def scan(self, prefix: str, *, values: bool) -> Generator[Page]:
        """Yield pages of the keys that start with ``prefix``, each key once, in no promised order.

        Keys that others write or remove meanwhile may or may not be seen. A page has a bounded number of bytes.

        Args:
            prefix: literal; empty for all keys.
            values: whether what is stored comes with each key; else None does, and no value is read, let alone sent.
        """

    @abstractmethod
    def ascan(self, prefix: str, *, values: bool) -> AsyncGenerator[Page]:
        """As ``scan``."""

    def scan_keys(self, prefix: str) -> Generator[list[str]]:
        """As ``scan`` without values: the keys alone."""
        with closing(self.scan(prefix, values=False)) as pages:
            for page in pages:
                yield [key for key, _ in page]

    async def ascan_keys(self, prefix: str) -> AsyncGenerator[list[str]]:
        """As ``scan_keys``."""
        async with aclosing(self.ascan(prefix, values=False)) as pages:
            async for page in pages:
                yield [key for key, _ in page]

    def scan_after(self, prefix: str, after: str) -> Generator[Page]:
        """As ``scan`` with values, from behind a key on, which need not be there any more. Plain calls only: it is for
        copies that go on after an end that came too early.

        Raises:
            UnsupportedError: this target lists its keys in no order.
        """
        raise UnsupportedError(f"{self!r} lists its keys in no order: list all of them.")

    def scan_tree(self, tree: str, *, values: bool, holding: Held | None = None) -> Generator[Skimmed]:
        """As ``scan``, of a namespace and of those below it; for who needs few values, some may come unparsed.

        Args:
            tree: what ``values.namespaces.subtree_prefix`` answers; empty for all namespaces.
            values: as of ``scan``.
            holding: with it, values whose documents do not hold it may be left out, where that is quicker.
        """
        with closing(self.scan(tree, values=values)) as pages:
            for page in pages:
                yield [item for item in page if is_in_tree(item[0], tree)]

    async def ascan_tree(self, tree: str, *, values: bool, holding: Held | None = None) -> AsyncGenerator[Skimmed]:
        """As ``scan_tree``."""
        async with aclosing(self.ascan(tree, values=values)) as pages:
            async for page in pages:
                yield [item for item in page if is_in_tree(item[0], tree)]

    def namespaces(self, tree: str) -> set[str]:
        """Return what ``values.namespaces.namespace_of`` answers of the keys of ``scan_tree``."""
        with closing(self.scan_tree(tree, values=False)) as pages:
            return {namespace_of(key) for page in pages for key, _ in page}

    async def anamespaces(self, tree: str) -> set[str]:
        """As ``namespaces``."""
        async with aclosing(self.ascan_tree(tree, values=False)) as pages:
            return {namespace_of(key) async for page in pages for key, _ in page}

    def keys_by_ending(self, tree: str, ending: Ending, limit: int | None) -> list[str] | None:
        """Return the keys of ``scan_tree`` in the order of the texts near the end of their payloads, the last text
        first, then of themselves; None where that is not to be had, and where a payload has no such text.

        Args:
            tree: as of ``scan_tree``.
            ending: which text. What the pattern begins with is looked at, not the rest.
            limit: at most so many; None: all.
        """
        return None

    async def akeys_by_ending(self, tree: str, ending: Ending, limit: int | None) -> list[str] | None:
        """As ``keys_by_ending``."""
        return None

    def nearest(self, tree: str, vector: bytes, limit: int) -> Nearest | None:
        """Return what of ``scan_tree`` is nearest to a vector, by the cosine; None where that is not to be had.

        Args:
            tree: as of ``scan_tree``.
            vector: float32 numbers, little-endian.
            limit: at most so many; a Data API answers 1,000 at most.
        """
        return None

    async def anearest(self, tree: str, vector: bytes, limit: int) -> Nearest | None:
        """As ``nearest``."""
        return None

    @abstractmethod
    def open(self, *, clear: bool = False) -> None:
        """Make what holds the records, where it is missing. Called before the first verb, and again after a failure.

        Args:
            clear: remove every record that is there.
        """

    @abstractmethod
    async def aopen(self, *, clear: bool = False) -> None:
        """As ``open``."""

    @abstractmethod
    def close(self) -> None:
        """Release what only this backend uses. Idempotent; later calls raise StoreClosedError."""

    @abstractmethod
    async def aclose(self) -> None:
        """As ``close``."""

    # -- what SyncBackend and AsyncBackend have already, in a simple way or as a refusal -----------------------------

    @abstractmethod
    def add_many(self, records: Sequence[Record]) -> list[bool]:
        """Store the records whose keys are absent, each in one step with seeing that; return which were, in order.

        Raises:
            UnsupportedError: this target cannot.
            PartialWriteError: some failed; ``written`` has those that were absent and are stored now.
        """

    @abstractmethod
    async def aadd_many(self, records: Sequence[Record]) -> list[bool]:
        """As ``add_many``."""

    @abstractmethod
    def update(self, key: str, change: Change) -> None:
        """Change one key in one step with seeing what is stored of it.

        Raises:
            UnsupportedError: this target cannot.
        """

    @abstractmethod
    async def aupdate(self, key: str, change: Change) -> None:
        """As ``update``."""

    @abstractmethod
    def merge_many(self, records: Sequence[Record], merge: Merge) -> None:
        """Store every record; where its key exists, what ``merge`` makes of it and of what is there, in one step.

        Raises:
            UnsupportedError: this target cannot.
            PartialWriteError: some were stored and some were not; it says which.
        """

    @abstractmethod
    async def amerge_many(self, records: Sequence[Record], merge: Merge) -> None:
        """As ``merge_many``."""

    @abstractmethod
    def touch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        """Have those of the keys that expire sooner expire at this moment; the values stay as they are.

        Raises:
            UnsupportedError: this target cannot.
        """

    @abstractmethod
    async def atouch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        """As ``touch_many``."""

    @abstractmethod
    def count(self, prefix: str) -> int:
        """Return how many keys start with ``prefix``."""

    @abstractmethod
    async def acount(self, prefix: str) -> int:
        """As ``count``."""

    @abstractmethod
    def clear(self, prefix: str) -> None:
        """Remove the keys that start with ``prefix``. Those that others write meanwhile may stay."""

    @abstractmethod
    async def aclear(self, prefix: str) -> None:
        """As ``clear``."""

    @abstractmethod
    def purge(self) -> int:
        """Remove for good what has expired, a page at a time; return how many records that were."""

    @abstractmethod
    async def apurge(self) -> int:
        """As ``purge``."""


class SyncBackend(Backend):
    """A backend whose plain calls are written; coroutines go through two threads, one for reads and one for writes.

    A subclass writes ``get_many``, ``put_many``, ``delete_many``, ``scan``, ``open`` and ``close``, which ends with
    ``super().close()``, and those of the other verbs that it has.
    """

    @cached_property
    def bridge(self) -> Bridge:
        """The way in for coroutines. Its threads start with the first of them."""
        return QueueBridge(type(self).__name__)

    async def aget_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return await self.bridge.read(self.get_many, keys)

    async def aput_many(self, records: Sequence[Record]) -> None:
        await self.bridge.write(self.put_many, records)

    async def adelete_many(self, keys: Sequence[str]) -> None:
        await self.bridge.write(self.delete_many, keys)

    async def ascan(self, prefix: str, *, values: bool) -> AsyncGenerator[Page]:
        pages = self.scan(prefix, values=values)
        try:
            while (page := await self.bridge.read(next, pages, None)) is not None:
                yield page
        finally:
            await self.bridge.read(pages.close)  # after the step that may be under way, in the same thread

    async def aopen(self, *, clear: bool = False) -> None:
        await self.bridge.write(self.open, clear=clear)

    def close(self) -> None:
        if "bridge" in self.__dict__:
            self.bridge.close()

    async def aclose(self) -> None:
        # It ends the bridge's threads, and may wait for calls in flight: a thread aside.
        await run_aside(self.close, "langchain-kv close")

    def add_many(self, records: Sequence[Record]) -> list[bool]:
        raise unsupported(self, "add")

    async def aadd_many(self, records: Sequence[Record]) -> list[bool]:
        return await self.bridge.write(self.add_many, records)

    def update(self, key: str, change: Change) -> None:
        raise unsupported(self, "update")

    async def aupdate(self, key: str, change: Change) -> None:
        await self.bridge.write(self.update, key, change)

    def merge_many(self, records: Sequence[Record], merge: Merge) -> None:
        if not self.can_update:
            raise unsupported(self, "update")
        merging = Merging(records, merge)
        try:
            merging.note_added(self.add_many(records))
        except PartialWriteError as error:
            merging.note_failed_adding(error)
        for key, change in merging.left:
            try:
                self.update(key, change)
            except StoreError as error:
                merging.note_failed(key, error)
        merging.finish()

    async def amerge_many(self, records: Sequence[Record], merge: Merge) -> None:
        await self.bridge.write(self.merge_many, records, merge)

    def touch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        raise unsupported(self, "refresh")

    async def atouch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        await self.bridge.write(self.touch_many, keys, expires_at_ms)

    def count(self, prefix: str) -> int:
        with closing(self.scan(prefix, values=False)) as pages:
            return sum(map(len, pages))

    async def acount(self, prefix: str) -> int:
        async with aclosing(self.ascan(prefix, values=False)) as pages:
            return sum([len(page) async for page in pages])

    def clear(self, prefix: str) -> None:
        with closing(self.scan(prefix, values=False)) as pages, Halfway() as halfway:
            for page in pages:
                self.delete_many([key for key, _ in page])
                halfway.has_changed = True

    async def aclear(self, prefix: str) -> None:
        await self.bridge.write(self.clear, prefix)

    def purge(self) -> int:
        return 0

    async def apurge(self) -> int:
        return await self.bridge.write(self.purge)


_MEANING = {
    "add": "store what is absent",
    "update": "change a value",
    "refresh": "change when a value expires",
}


def unsupported(backend: Backend, verb: str) -> UnsupportedError:
    """Return the error of a backend that does not have a verb."""
    other = "" if verb == "add" else ", or add(), which stores what is absent, if that is enough"
    return UnsupportedError(
        f"{backend!r} cannot {_MEANING[verb]} in one step with looking at it: use a target that can (a file, memory,"
        f" Cassandra; a Data API's collection that is made with atomic=True){other}."
    )
