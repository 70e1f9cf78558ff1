"""Backends over MongoDB: on a ``MongoClient``, whose own calls are plain, and on an ``AsyncMongoClient``.

What they send is in ``mongodb_verbs.py``, once for both, and what keeps a record in ``mongodb_documents.py``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from functools import cached_property, partial
from typing import Any, TypeVar

from langchain_kv.backends.at_home import AtHomeBackend
from langchain_kv.backends.base import Backend, Change, Page, Record, Stored, SyncBackend
from langchain_kv.backends.mongodb_verbs import KEY_MAX_BYTES, Verbs
from langchain_kv.errors import StoreClosedError
from langchain_kv.runtime.plans import Plan, arun, run
from langchain_kv.runtime.work_queue import AsideBridge, Bridge

__all__ = ["AsyncMongoDBBackend", "MongoDBBackend"]

T = TypeVar("T")


class _MongoDB(Backend):
    """What both share.

    Args:
        client: of pymongo.
        database: the database's name.
        collection: the collection's; MongoDB makes it with the first document.
        owned: whether to close the client with the backend.
    """

    can_update = True
    allows_empty_key = True

    def __init__(self, client: Any, database: str, collection: str, *, owned: bool = False) -> None:
        self.client = client
        self._verbs = Verbs(client[database][collection])
        self._owned = owned
        self._closed = False

    def __repr__(self) -> str:
        return f"The collection '{self._verbs.name}'"

    @property
    def key_max_bytes(self) -> int:
        return KEY_MAX_BYTES

    @property
    def _does(self) -> Verbs:
        if self._closed:
            raise StoreClosedError(f"The store on collection '{self._verbs.name}' was closed: open a new one.")
        return self._verbs


class MongoDBBackend(_MongoDB, SyncBackend):
    """On a ``MongoClient``: plain calls are its own, each call of a coroutine has a thread for itself."""

    in_key_order = True

    @cached_property
    def bridge(self) -> Bridge:
        """Threads, as many as calls under way, up to a bound: the client's pool serves them side by side."""
        return AsideBridge()

    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return run(self._does.get_many(keys))

    def put_many(self, records: Sequence[Record]) -> None:
        run(self._does.put_many(records))

    def delete_many(self, keys: Sequence[str]) -> None:
        run(self._does.delete_many(keys))

    def scan(self, prefix: str, *, values: bool) -> Generator[Page]:
        return self._pages(prefix, None, values)

    def scan_after(self, prefix: str, after: str) -> Generator[Page]:
        return self._pages(prefix, after, True)

    def _pages(self, prefix: str, after: str | None, values: bool) -> Generator[Page]:
        while True:
            page, after = run(self._does.page(prefix, after, values=values))
            if page:
                yield page
            if after is None:
                return

    def add_many(self, records: Sequence[Record]) -> list[bool]:
        return run(self._does.add_many(records))

    def update(self, key: str, change: Change) -> None:
        run(self._does.update(key, change))

    def touch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        run(self._does.touch_many(keys, expires_at_ms))

    def count(self, prefix: str) -> int:
        return run(self._does.count(prefix))

    def clear(self, prefix: str) -> None:
        run(self._does.clear(prefix))

    def purge(self) -> int:
        return run(self._does.purge())

    def collections(self) -> list[str]:
        """Return the names of the database's collections, sorted."""
        return run(self._does.collections())

    def drop(self) -> None:
        """Remove the collection. A missing one is no error."""
        run(self._does.drop())

    def version(self) -> str:
        """Return the server's version."""
        return run(self._does.version())

    def open(self, *, clear: bool = False) -> None:
        run(self._does.open(clear=clear))

    def close(self) -> None:
        self._closed = True
        if self._owned:
            self.client.close()
        super().close()


class AsyncMongoDBBackend(_MongoDB, AtHomeBackend):
    """On an ``AsyncMongoClient``, which belongs to the event loop that uses it first: calls from elsewhere go there."""

    def __init__(self, client: Any, database: str, collection: str, *, owned: bool = False) -> None:
        _MongoDB.__init__(self, client, database, collection)
        AtHomeBackend.__init__(self, client, owned=owned)

    async def _do(self, plan: Plan[T]) -> T:
        return await self._at_home(partial(arun, plan))

    async def aget_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return await self._do(self._does.get_many(keys))

    async def aput_many(self, records: Sequence[Record]) -> None:
        await self._do(self._does.put_many(records))

    async def adelete_many(self, keys: Sequence[str]) -> None:
        await self._do(self._does.delete_many(keys))

    async def ascan(self, prefix: str, *, values: bool) -> AsyncGenerator[Page]:
        after: str | None = None
        while True:
            page, after = await self._do(self._does.page(prefix, after, values=values))
            if page:
                yield page
            if after is None:
                return

    async def aadd_many(self, records: Sequence[Record]) -> list[bool]:
        return await self._do(self._does.add_many(records))

    async def aupdate(self, key: str, change: Change) -> None:
        await self._do(self._does.update(key, change))

    async def atouch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        await self._do(self._does.touch_many(keys, expires_at_ms))

    async def acount(self, prefix: str) -> int:
        return await self._do(self._does.count(prefix))

    async def aclear(self, prefix: str) -> None:
        await self._do(self._does.clear(prefix))

    async def apurge(self) -> int:
        return await self._do(self._does.purge())

    async def aopen(self, *, clear: bool = False) -> None:
        await self._do(self._does.open(clear=clear))

    async def aclose(self) -> None:
        self._closed = True
        if self._owned:
            await self._at_home(self.client.close)
