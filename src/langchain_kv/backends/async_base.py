"""The base of backends whose coroutines are written; apart from ``base.py``, because it needs the loop thread."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import aclosing

from langchain_kv.backends.base import Backend, Change, Page, Record, Stored, unsupported
from langchain_kv.runtime import loop_thread

__all__ = ["AsyncBackend"]


class AsyncBackend(Backend):
    """A backend whose coroutines are written; plain calls run them on the loop thread.

    A subclass writes ``aget_many``, ``aput_many``, ``adelete_many``, ``ascan``, ``aopen`` and ``aclose``, and those of
    the other verbs that it has. Its coroutines may run on any event loop, and on several at a time.
    """

    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return loop_thread.run(self.aget_many(keys))

    def put_many(self, records: Sequence[Record]) -> None:
        loop_thread.run(self.aput_many(records))

    def delete_many(self, keys: Sequence[str]) -> None:
        loop_thread.run(self.adelete_many(keys))

    def scan(self, prefix: str, *, values: bool) -> Generator[Page]:
        return loop_thread.iterate(self.ascan(prefix, values=values))

    def open(self, *, clear: bool = False) -> None:
        loop_thread.run(self.aopen(clear=clear))

    def close(self) -> None:
        loop_thread.run(self.aclose())

    def add_many(self, records: Sequence[Record]) -> list[bool]:
        return loop_thread.run(self.aadd_many(records))

    async def aadd_many(self, records: Sequence[Record]) -> list[bool]:
        raise unsupported(self, "add")

    def update(self, key: str, change: Change) -> None:
        loop_thread.run(self.aupdate(key, change))

    async def aupdate(self, key: str, change: Change) -> None:
        raise unsupported(self, "update")

    def touch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        loop_thread.run(self.atouch_many(keys, expires_at_ms))

    async def atouch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        raise unsupported(self, "refresh")

    def count(self, prefix: str) -> int:
        return loop_thread.run(self.acount(prefix))

    async def acount(self, prefix: str) -> int:
        async with aclosing(self.ascan(prefix, values=False)) as pages:
            return sum([len(page) async for page in pages])

    def clear(self, prefix: str) -> None:
        loop_thread.run(self.aclear(prefix))

    async def aclear(self, prefix: str) -> None:
        async with aclosing(self.ascan(prefix, values=False)) as pages:
            async for page in pages:
                await self.adelete_many([key for key, _ in page])

    def purge(self) -> int:
        return loop_thread.run(self.apurge())

    async def apurge(self) -> int:
        return 0
