"""The records of a LangGraphStore, in a collection of their own: what it asks of them, as steps of a plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_kv.backends.base import Nearest, Record, Skimmed, Stored
from langchain_kv.engines.base import Held
from langchain_kv.langgraph.gathering import Gathering
from langchain_kv.langgraph.items import UPDATED, created_earlier
from langchain_kv.runtime.plans import Step
from langchain_kv.stores.base import KVBaseStore
from langchain_kv.stores.expiry import refreshing
from langchain_kv.values.keys import check_keys

if TYPE_CHECKING:
    from langchain_kv.places.base import BackendOptions, Place

__all__ = ["Access", "Records", "Writes"]


class Writes(NamedTuple):
    """What one call writes, each key in one of the two.

    Attributes:
        records: what it stores.
        removed: the keys of what it removes.
    """

    records: list[Record]
    removed: list[str]


class Records(KVBaseStore[Any]):
    """How they are opened, closed and copied.

    Args:
        collection: the collection's name.
        url: see ``LangGraphStore``, as for the others.
        dimension: of the vectors that a Data API's collection is made with; 0: it is made without.
    """

    _component = "langgraph_store"

    def __init__(self, collection: str, url: str | Place | None, *, dimension: int, **more: Any) -> None:
        self._dimension = dimension
        super().__init__(collection, url, **more)

    def _start(self, place: Place, backend_options: BackendOptions, *more: Any, **named: Any) -> None:
        super()._start(place, replace(backend_options, dimension=self._dimension), *more, **named)

    def encode_value(self, value: Any) -> Any:
        return value

    def decode_value(self, value: Any) -> Any:
        return value

    def skim_many(self, keys: Sequence[str]) -> list[Stored | bytes | None]:
        return self._backend.skim_many(keys)

    async def askim_many(self, keys: Sequence[str]) -> list[Stored | bytes | None]:
        return await self._backend.askim_many(keys)

    def write(self, writes: Writes) -> None:
        if writes.records and self._backend.can_update:
            self._backend.merge_many(writes.records, created_earlier)
        elif writes.records:
            self._backend.put_many(_merged(writes.records, self._backend.get_many(_keys_of(writes.records))))
        if writes.removed:
            self._backend.delete_many(writes.removed)

    async def awrite(self, writes: Writes) -> None:
        if writes.records and self._backend.can_update:
            await self._backend.amerge_many(writes.records, created_earlier)
        elif writes.records:
            stored = await self._backend.aget_many(_keys_of(writes.records))
            await self._backend.aput_many(_merged(writes.records, stored))
        if writes.removed:
            await self._backend.adelete_many(writes.removed)

    def scan_tree(self, tree: str, take: Callable[[Skimmed], None], holding: Held | None) -> None:
        with closing(self._backend.scan_tree(tree, values=True, holding=holding)) as pages:
            for page in pages:
                take(page)

    async def ascan_tree(self, tree: str, take: Callable[[Skimmed], None], holding: Held | None) -> None:
        async with aclosing(self._backend.ascan_tree(tree, values=True, holding=holding)) as pages:
            async for page in pages:
                take(page)
                await asyncio.sleep(0)

    def ranked(self, tree: str, limit: int | None) -> list[str] | None:
        return self._backend.keys_by_ending(tree, UPDATED, limit)

    async def aranked(self, tree: str, limit: int | None) -> list[str] | None:
        return await self._backend.akeys_by_ending(tree, UPDATED, limit)

    def nearest(self, tree: str, vector: bytes, limit: int) -> Nearest | None:
        return self._backend.nearest(tree, vector, limit)

    async def anearest(self, tree: str, vector: bytes, limit: int) -> Nearest | None:
        return await self._backend.anearest(tree, vector, limit)

    def list_namespaces(self, tree: str) -> set[str]:
        return self._backend.namespaces(tree)

    async def alist_namespaces(self, tree: str) -> set[str]:
        return await self._backend.anamespaces(tree)

    def touch(self, due: Mapping[int, Sequence[str]]) -> None:
        if self._backend.can_update:
            with refreshing():
                for moment, keys in due.items():
                    self._backend.touch_many(keys, moment)

    async def atouch(self, due: Mapping[int, Sequence[str]]) -> None:
        if self._backend.can_update:
            with refreshing():
                for moment, keys in due.items():
                    await self._backend.atouch_many(keys, moment)

    def check_keys(self, keys: Sequence[str]) -> None:
        """Refuse keys that the target does not take.

        Raises:
            InvalidKeyError: one of them.
        """
        if keys:
            check_keys(keys, self._key_rule)

    def begin(self) -> None:
        """Wait until the collection is there. Raises StoreClosedError after ``close``."""
        self._begin()

    async def abegin(self) -> None:
        """As ``begin``."""
        await self._abegin()


def _keys_of(records: Sequence[Record]) -> list[str]:
    return [record.key for record in records]


def _merged(records: Sequence[Record], stored: Sequence[Stored | None]) -> list[Record]:
    """Return the records as they are kept where the target, a place of others, cannot update."""
    pairs = zip(records, stored, strict=True)
    return [record if there is None else created_earlier(record, there) for record, there in pairs]


class Access:
    """Steps on the records. What coroutines ask in one turn of their loop is asked, and written, together.

    Args:
        records: the records.

    Attributes:
        begin: comes first.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self.begin = Step(records.begin, records.abegin)
        self._gets: Gathering[Sequence[str], Sequence[Stored | bytes | None]] = Gathering(self._aget_all)
        self._writes: Gathering[Writes, None] = Gathering(self._awrite_all)

    def get(self, keys: Sequence[str]) -> Step:
        """Read the keys, each once; some may come unparsed."""
        return Step(partial(self._records.skim_many, keys), partial(self._gets.call, keys))

    def write(self, writes: Writes) -> Step:
        return Step(partial(self._records.write, writes), partial(self._writes.call, writes))

    def scan_tree(self, tree: str, take: Callable[[Skimmed], None], holding: Held | None) -> Step:
        """Have ``take`` given what is in a namespace and in those below it, where it may hold this."""
        return Step.of(self._records.scan_tree, self._records.ascan_tree, tree, take, holding)

    def ranked(self, tree: str, limit: int | None) -> Step:
        """Read the keys of items in order, those that were updated last first; None where a scan is needed for that."""
        return Step.of(self._records.ranked, self._records.aranked, tree, limit)

    def nearest(self, tree: str, vector: bytes, limit: int) -> Step:
        """Read what is nearest to a vector; None where that takes a scan."""
        return Step.of(self._records.nearest, self._records.anearest, tree, vector, limit)

    def namespaces(self, tree: str) -> Step:
        """Read which namespaces there are, as ``values.namespaces.namespace_of`` answers them."""
        return Step.of(self._records.list_namespaces, self._records.alist_namespaces, tree)

    def touch(self, due: Mapping[int, Sequence[str]]) -> Step:
        """Have the keys expire at their moments, where they expire sooner."""
        return Step.of(self._records.touch, self._records.atouch, due)

    async def _aget_all(self, calls: Sequence[Sequence[str]]) -> Sequence[Sequence[Stored | bytes | None]]:
        if len(calls) == 1:
            return [await self._records.askim_many(calls[0])]
        keys = list(dict.fromkeys(key for call in calls for key in call))
        found = dict(zip(keys, await self._records.askim_many(keys), strict=True))
        return [[found[key] for key in call] for call in calls]

    async def _awrite_all(self, calls: Sequence[Writes]) -> Sequence[None]:
        if len(calls) == 1:
            await self._records.awrite(calls[0])
            return [None]
        last: dict[str, Record | None] = {}
        for call in calls:
            last.update({record.key: record for record in call.records})
            last.update(dict.fromkeys(call.removed))
        records = [record for record in last.values() if record is not None]
        await self._records.awrite(Writes(records, [key for key, record in last.items() if record is None]))
        return [None] * len(calls)
