"""What is kept by a store of its own: its upkeep and its end, alike for the caches of models' and of nodes' answers."""

from __future__ import annotations

from typing import Any, Self

from langchain_kv.backends.wrappers import Statistics
from langchain_kv.stores.base import KVBaseStore

__all__ = ["KeptByStore"]


class KeptByStore:
    """The base of a cache that keeps its entries in a store, which it makes in its constructor as ``_store``."""

    _store: KVBaseStore[Any]

    def purge(self) -> int:
        """Remove for good what has expired; return how many entries that were."""
        return self._store.purge()

    async def apurge(self) -> int:
        """As ``purge``."""
        return await self._store.apurge()

    def statistics(self) -> Statistics:
        """Return what this cache has done since it was made: its hits, for one.

        Raises:
            UsageError: it was not made with ``statistics=True``.
        """
        return self._store.statistics()

    def close(self) -> None:
        """Release what only this cache uses. Idempotent; a later use raises StoreClosedError."""
        self._store.close()

    async def aclose(self) -> None:
        """As ``close``."""
        await self._store.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
