"""Backends over a backend: records change on their way in and out. A wrapper is a few lines, and is sync and async."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from typing import NamedTuple

from msgspec.structs import replace

from langchain_kv.backends.base import Backend, Change, Found, Merge, Page, Record, Stored
from langchain_kv.errors import PartialWriteError, StoreError
from langchain_kv.runtime import threads
from langchain_kv.runtime.forks import renew_in_child
from langchain_kv.values.keys import shown

__all__ = ["Counted", "Prefixed", "Statistics", "Wrapper"]


class Wrapper(Backend):
    """Passes every call on to a backend, and changes keys and records on the way.

    A subclass overrides some of ``key`` and ``unkey``, ``inwards`` and ``outwards``, and ``ended``, which serve plain
    calls and coroutines alike.

    Args:
        inner: the backend below, which this one closes.
    """

    def __init__(self, inner: Backend) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    @property
    def can_update(self) -> bool:  # type: ignore[override]
        return self._inner.can_update

    @property
    def keeps_bytes(self) -> bool:  # type: ignore[override]
        return self._inner.keeps_bytes

    @property
    def in_key_order(self) -> bool:  # type: ignore[override]
        return self._inner.in_key_order

    @property
    def key_max_bytes(self) -> int:
        return self._inner.key_max_bytes - len(self.key("").encode())

    @property
    def allows_empty_key(self) -> bool:
        return self._inner.allows_empty_key

    # -- what a subclass overrides ----------------------------------------------------------------------------------

    def key(self, key: str) -> str:
        """Return the key below of a key above. A prefix of the one becomes a prefix of the other."""
        return key

    def unkey(self, key: str) -> str:
        """Return the key above of a key below."""
        return key

    def inwards(self, record: Record) -> Record:
        """Return the record to be stored below, still under its key above."""
        return record

    def outwards(self, key: str, found: Found) -> Stored | None:
        """Return what was found as it is above: changed; Damaged where it cannot be; None where it is not there."""
        return found

    def ended(self, verb: str, asked: int, answered: int, error: BaseException | None) -> None:
        """Hear how a call ended.

        Args:
            verb: ``get``, ``put``, ``delete``, ``add``, ``update`` or ``scan``.
            asked: how many keys or records it was given; 0 for a scan.
            answered: how many of them were there (``get``, ``scan``) or were stored (``add``); else 0.
            error: what it raised, or None.
        """

    # -- the verbs --------------------------------------------------------------------------------------------------

    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        with self._call("get", keys) as answered:
            return self._found(keys, self._inner.get_many(self._keys(keys)), answered)

    async def aget_many(self, keys: Sequence[str]) -> list[Stored | None]:
        with self._call("get", keys) as answered:
            return self._found(keys, await self._inner.aget_many(self._keys(keys)), answered)

    def put_many(self, records: Sequence[Record]) -> None:
        with self._call("put", _keys_of(records)):
            self._inner.put_many(self._records(records))

    async def aput_many(self, records: Sequence[Record]) -> None:
        with self._call("put", _keys_of(records)):
            await self._inner.aput_many(self._records(records))

    def check_many(self, records: Sequence[Record]) -> None:
        try:
            self._inner.check_many(self._records(records))
        except StoreError as error:
            self._name_above(error, _keys_of(records))
            raise

    def check_writable(self) -> None:
        self._inner.check_writable()

    def delete_many(self, keys: Sequence[str]) -> None:
        with self._call("delete", keys):
            self._inner.delete_many(self._keys(keys))

    async def adelete_many(self, keys: Sequence[str]) -> None:
        with self._call("delete", keys):
            await self._inner.adelete_many(self._keys(keys))

    def scan(self, prefix: str, *, values: bool) -> Generator[Page]:
        with self._call("scan") as answered, closing(self._inner.scan(self.key(prefix), values=values)) as pages:
            for page in pages:
                yield self._page(page, answered)

    def scan_after(self, prefix: str, after: str) -> Generator[Page]:
        with self._call("scan") as answered, closing(self._inner.scan_after(*map(self.key, (prefix, after)))) as pages:
            for page in pages:
                yield self._page(page, answered)

    async def ascan(self, prefix: str, *, values: bool) -> AsyncGenerator[Page]:
        with self._call("scan") as answered:
            async with aclosing(self._inner.ascan(self.key(prefix), values=values)) as pages:
                async for page in pages:
                    yield self._page(page, answered)

    def add_many(self, records: Sequence[Record]) -> list[bool]:
        with self._call("add", _keys_of(records)) as answered:
            added = self._inner.add_many(self._records(records))
            answered.append(sum(added))
            return added

    async def aadd_many(self, records: Sequence[Record]) -> list[bool]:
        with self._call("add", _keys_of(records)) as answered:
            added = await self._inner.aadd_many(self._records(records))
            answered.append(sum(added))
            return added

    def update(self, key: str, change: Change) -> None:
        with self._call("update", [key]):
            self._inner.update(self.key(key), self._change(key, change))

    async def aupdate(self, key: str, change: Change) -> None:
        with self._call("update", [key]):
            await self._inner.aupdate(self.key(key), self._change(key, change))

    def merge_many(self, records: Sequence[Record], merge: Merge) -> None:
        with self._call("put", _keys_of(records)):
            self._inner.merge_many(self._records(records), self._merge(records, merge))

    async def amerge_many(self, records: Sequence[Record], merge: Merge) -> None:
        with self._call("put", _keys_of(records)):
            await self._inner.amerge_many(self._records(records), self._merge(records, merge))

    def touch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        self._inner.touch_many(self._keys(keys), expires_at_ms)

    async def atouch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        await self._inner.atouch_many(self._keys(keys), expires_at_ms)

    # -- all the keys, and life -------------------------------------------------------------------------------------

    def count(self, prefix: str) -> int:
        return self._inner.count(self.key(prefix))

    async def acount(self, prefix: str) -> int:
        return await self._inner.acount(self.key(prefix))

    def clear(self, prefix: str) -> None:
        self._inner.clear(self.key(prefix))

    async def aclear(self, prefix: str) -> None:
        await self._inner.aclear(self.key(prefix))

    def purge(self) -> int:
        return self._inner.purge()

    async def apurge(self) -> int:
        return await self._inner.apurge()

    def open(self, *, clear: bool = False) -> None:
        self._inner.open(clear=clear)

    async def aopen(self, *, clear: bool = False) -> None:
        await self._inner.aopen(clear=clear)

    def close(self) -> None:
        self._inner.close()

    async def aclose(self) -> None:
        await self._inner.aclose()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _keys(self, keys: Sequence[str]) -> list[str]:
        return list(map(self.key, keys))

    def _records(self, records: Sequence[Record]) -> list[Record]:
        return [replace(self.inwards(record), key=self.key(record.key)) for record in records]

    def _outward(self, key: str, stored: Stored | None) -> Stored | None:
        return self.outwards(key, stored) if isinstance(stored, Found) else stored

    def _found(self, keys: Sequence[str], stored: Sequence[Stored | None], answered: list[int]) -> list[Stored | None]:
        found = list(map(self._outward, keys, stored))
        answered.append(len(found) - found.count(None))
        return found

    def _page(self, page: Page, answered: list[int]) -> Page:
        above: Page = []
        for key, stored in page:
            name = self.unkey(key)
            found = self._outward(name, stored)
            if found is not None or stored is None:  # without values there is nothing to look at
                above.append((name, found))
        answered.append(len(above))
        return above

    def _change(self, key: str, change: Change) -> Change:
        def below(stored: Stored | None) -> Record | None:
            record = change(self._outward(key, stored))
            return None if record is None else self._records([record])[0]

        return below

    def _merge(self, records: Sequence[Record], merge: Merge) -> Merge:
        above = {self.key(record.key): record for record in records}

        def below(record: Record, stored: Stored) -> Record:
            given = above[record.key]
            seen = self._outward(given.key, stored)
            return record if seen is None else self._records([merge(given, seen)])[0]

        return Merge(below)

    @contextmanager
    def _call(self, verb: str, keys: Sequence[str] = ()) -> Iterator[list[int]]:
        """Watch a call: its errors speak of the keys above, ``ended`` hears of it. Yields a list for its numbers."""
        answered: list[int] = []
        try:
            yield answered
        except GeneratorExit:
            self.ended(verb, len(keys), sum(answered), None)
            raise
        except BaseException as error:
            self.ended(verb, len(keys), sum(answered), error)
            if isinstance(error, StoreError):
                self._name_above(error, keys)
            raise
        self.ended(verb, len(keys), sum(answered), None)

    def _name_above(self, error: StoreError, keys: Sequence[str]) -> None:
        """Have an error from below speak of the keys above."""
        above = {self.key(key): key for key in keys}
        if above.keys() == set(keys):
            return
        text = str(error)
        for below, key in above.items():
            text = text.replace(shown(below), shown(key))
        error.args = (text,)
        if isinstance(error, PartialWriteError):
            error.written, error.unwritten, error.unknown = (
                tuple(above.get(key, key) for key in group) for group in (error.written, error.unwritten, error.unknown)
            )
            error.errors = {above.get(key, key): reason for key, reason in error.errors.items()}


def _keys_of(records: Sequence[Record]) -> list[str]:
    return [record.key for record in records]


class Prefixed(Wrapper):
    """Keeps a part of the keys of a backend: those that begin with a prefix, which is taken off above.

    Args:
        inner: the backend below.
        prefix: the text before every key; it counts in the key's length.
    """

    def __init__(self, inner: Backend, prefix: str) -> None:
        super().__init__(inner)
        self._prefix = prefix

    def key(self, key: str) -> str:
        return self._prefix + key

    def unkey(self, key: str) -> str:
        return key[len(self._prefix) :]

    def open(self, *, clear: bool = False) -> None:
        self._inner.open()
        if clear:
            self._inner.clear(self._prefix)  # not the neighbours' keys

    async def aopen(self, *, clear: bool = False) -> None:
        await self._inner.aopen()
        if clear:
            await self._inner.aclear(self._prefix)


class Statistics(NamedTuple):
    """What a store has done since it was made, in keys. Scans count in ``listed`` only.

    Attributes:
        gets: keys that were asked for.
        hits: those of them that were there.
        puts: values that were given to be stored, by ``mset``, ``add`` and ``update``.
        deletes: keys that were given to be removed.
        listed: keys that were listed, with or without their values.
        errors: calls that raised.
    """

    gets: int = 0
    hits: int = 0
    puts: int = 0
    deletes: int = 0
    listed: int = 0
    errors: int = 0


class Counted(Wrapper):
    """Counts what passes.

    Attributes:
        statistics: the numbers so far, of all threads.
    """

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.statistics = Statistics()
        self._after_fork_in_child()
        renew_in_child(self)

    def _after_fork_in_child(self) -> None:
        self._lock = threads.Mutex()  # another thread may have held the one that was inherited

    def ended(self, verb: str, asked: int, answered: int, error: BaseException | None) -> None:
        change = {
            "get": Statistics(gets=asked, hits=answered),
            "put": Statistics(puts=asked),
            "add": Statistics(puts=asked),
            "update": Statistics(puts=asked),
            "delete": Statistics(deletes=asked),
            "scan": Statistics(listed=answered),
        }[verb]
        if error is not None:
            change = change._replace(errors=1)
        with self._lock:
            self.statistics = Statistics(*map(sum, zip(self.statistics, change, strict=True)))
