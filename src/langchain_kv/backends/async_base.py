"""The base of backends whose coroutines are written; apart from ``base.py``, because it needs the loop thread."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeVar

from langchain_kv.backends.base import Backend, Change, Merge, Page, Record, Stored, unsupported
from langchain_kv.backends.merging import Merging
from langchain_kv.errors import PartialWriteError, StoreError
from langchain_kv.runtime import loop_thread
from langchain_kv.runtime.halfway import Halfway

__all__ = ["AsyncBackend"]

T = TypeVar("T")

UPDATES_AT_ONCE: Final = 20
"""Keys that are merged at a time with what is there of them, where each takes a request or more."""


class AsyncBackend(Backend):
    """A backend whose coroutines are written; plain calls run them on the loop thread.

    A subclass writes ``aget_many``, ``aput_many``, ``adelete_many``, ``ascan``, ``aopen`` and ``aclose``, and those of
    the other verbs that it has. Its coroutines may run on any event loop, and on several at a time.
    """

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run one of its coroutines for a plain call."""
        return loop_thread.run(coroutine)

    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return self._run(self.aget_many(keys))

    def put_many(self, records: Sequence[Record]) -> None:
        self._run(self.aput_many(records))

    def delete_many(self, keys: Sequence[str]) -> None:
        self._run(self.adelete_many(keys))

    def scan(self, prefix: str, *, values: bool) -> Generator[Page]:
        return loop_thread.iterate(self.ascan(prefix, values=values))

    def open(self, *, clear: bool = False) -> None:
        self._run(self.aopen(clear=clear))

    def close(self) -> None:
        self._run(self.aclose())

    def add_many(self, records: Sequence[Record]) -> list[bool]:
        return self._run(self.aadd_many(records))

    async def aadd_many(self, records: Sequence[Record]) -> list[bool]:
        raise unsupported(self, "add")

    def update(self, key: str, change: Change) -> None:
        self._run(self.aupdate(key, change))

    async def aupdate(self, key: str, change: Change) -> None:
        raise unsupported(self, "update")

    def merge_many(self, records: Sequence[Record], merge: Merge) -> None:
        self._run(self.amerge_many(records, merge))

    async def amerge_many(self, records: Sequence[Record], merge: Merge) -> None:
        if not self.can_update:
            raise unsupported(self, "update")
        merging = Merging(records, merge)

        async def update(key: str, change: Change) -> None:
            try:
                await self.aupdate(key, change)
            except StoreError as error:
                merging.note_failed(key, error)

        try:
            merging.note_added(await self.aadd_many(records))
        except PartialWriteError as error:
            merging.note_failed_adding(error)
        for start in range(0, len(merging.left), UPDATES_AT_ONCE):
            some = [update(key, change) for key, change in merging.left[start : start + UPDATES_AT_ONCE]]
            for failure in await asyncio.gather(*some, return_exceptions=True):
                if failure is not None:  # of ``merge``: all have ended by now
                    raise failure
        merging.finish()

    def touch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        self._run(self.atouch_many(keys, expires_at_ms))

    async def atouch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        raise unsupported(self, "refresh")

    def count(self, prefix: str) -> int:
        return self._run(self.acount(prefix))

    async def acount(self, prefix: str) -> int:
        async with aclosing(self.ascan(prefix, values=False)) as pages:
            return sum([len(page) async for page in pages])

    def clear(self, prefix: str) -> None:
        self._run(self.aclear(prefix))

    async def aclear(self, prefix: str) -> None:
        async with aclosing(self.ascan(prefix, values=False)) as pages:
            with Halfway() as halfway:
                async for page in pages:
                    await self.adelete_many([key for key, _ in page])
                    halfway.has_changed = True

    def purge(self) -> int:
        return self._run(self.apurge())

    async def apurge(self) -> int:
        return 0
