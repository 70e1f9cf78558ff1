"""The stores that are compared, each in one shape: four verbs in two colours."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from langchain_core.stores import BaseStore, InMemoryStore

from benchmarks.floors import BareRequests, BareSQL
from benchmarks.services import TOKEN
from langchain_kv import KVByteStore, KVStore

__all__ = ["Contender", "Stored", "embedded", "over_http"]

PEER_CHUNK = 100
"""Its mget and mdelete of more keys fail: the caller must split."""


class Contender(Protocol):
    """What a row asks of one."""

    def mset(self, pairs: Sequence[tuple[str, Any]]) -> None: ...
    def mget(self, keys: Sequence[str]) -> list[Any]: ...
    def mdelete(self, keys: Sequence[str]) -> None: ...
    def keys(self, prefix: str = "") -> list[str]: ...
    async def amset(self, pairs: Sequence[tuple[str, Any]]) -> None: ...
    async def amget(self, keys: Sequence[str]) -> list[Any]: ...
    async def amdelete(self, keys: Sequence[str]) -> None: ...
    async def akeys(self, prefix: str = "") -> list[str]: ...
    async def aclose(self) -> None: ...
    def close(self) -> None: ...


class Stored:
    """Any LangChain store; ``chunk`` splits what it cannot take at once, several at a time in async."""

    def __init__(self, store: BaseStore[str, Any], chunk: int = 1_000_000) -> None:
        self.store = store
        self._chunk = chunk

    def _chunks(self, items: Sequence[Any]) -> list[Sequence[Any]]:
        return [items[start : start + self._chunk] for start in range(0, len(items), self._chunk)]

    def mset(self, pairs: Sequence[tuple[str, Any]]) -> None:
        self.store.mset(pairs)

    def mget(self, keys: Sequence[str]) -> list[Any]:
        return [value for some in self._chunks(keys) for value in self.store.mget(some)]

    def mdelete(self, keys: Sequence[str]) -> None:
        for some in self._chunks(keys):
            self.store.mdelete(some)

    def keys(self, prefix: str = "") -> list[str]:
        return list(self.store.yield_keys(prefix=prefix or None))

    async def amset(self, pairs: Sequence[tuple[str, Any]]) -> None:
        await self.store.amset(pairs)

    async def amget(self, keys: Sequence[str]) -> list[Any]:
        if len(keys) <= self._chunk:
            return await self.store.amget(keys)
        return [value for part in await asyncio.gather(*map(self.store.amget, self._chunks(keys))) for value in part]

    async def amdelete(self, keys: Sequence[str]) -> None:
        await asyncio.gather(*map(self.store.amdelete, self._chunks(keys)))

    async def akeys(self, prefix: str = "") -> list[str]:
        return [key async for key in self.store.ayield_keys(prefix=prefix or None)]

    async def aclose(self) -> None:
        pass

    def close(self) -> None:
        close = getattr(self.store, "close", None)
        if close is not None:
            close()


class _DiskCache(BaseStore[str, Any]):
    """diskcache as one would use it for a batch: one transaction."""

    def __init__(self, folder: Path) -> None:
        import diskcache

        self._cache = diskcache.Cache(str(folder), eviction_policy="none", size_limit=2**40)

    def mset(self, key_value_pairs: Sequence[tuple[str, Any]]) -> None:
        with self._cache.transact():
            for key, value in key_value_pairs:
                self._cache[key] = value

    def mget(self, keys: Sequence[str]) -> list[Any]:
        with self._cache.transact():
            return [self._cache.get(key) for key in keys]

    def mdelete(self, keys: Sequence[str]) -> None:
        with self._cache.transact():
            for key in keys:
                self._cache.delete(key)

    def yield_keys(self, *, prefix: str | None = None) -> Any:
        return (key for key in self._cache.iterkeys() if not prefix or key.startswith(prefix))

    def close(self) -> None:
        self._cache.close()


def over_http(url: str, collection: str, *, raw: bool = False, peers: bool = True) -> dict[str, Contender]:
    """Make the floor, our store and the peer on collections of a Data API of their own."""
    floor = BareRequests(url, f"floor_{collection}", raw=raw)
    floor.setup()
    ours = (KVByteStore if raw else KVStore)(f"ours_{collection}", url, token=TOKEN)
    found: dict[str, Contender] = {"bare requests": floor, "langchain-kv": Stored(ours)}
    if peers:
        from langchain_astradb import AstraDBByteStore, AstraDBStore

        peer = (AstraDBByteStore if raw else AstraDBStore)(
            collection_name=f"peer_{collection}",
            token=TOKEN,
            api_endpoint=url,
            environment="other",
            namespace="default_keyspace",
        )
        found["langchain-astradb"] = Stored(peer, PEER_CHUNK)
    return found


def embedded(folder: Path, redis_url: str | None, *, raw: bool = False, peers: bool = True) -> dict[str, Contender]:
    """Make the floor, ours and the peers of values on this machine, on new files; the peers keep bytes only."""
    folder.mkdir(parents=True, exist_ok=True)
    ours = KVByteStore if raw else KVStore
    found: dict[str, Contender] = {
        "bare sqlite3": BareSQL(str(folder / "floor.db"), raw=raw),
        "langchain-kv": Stored(ours("kv", f"sqlite:{folder / 'ours.db'}")),
        "langchain-kv normal": Stored(ours("kv", f"sqlite:{folder / 'normal.db'}?synchronous=normal")),
        "langchain-kv memory": Stored(ours("kv", f"memory:{folder}")),
    }
    if not peers:
        return found
    found["diskcache"] = Stored(_DiskCache(folder / "diskcache"))
    found["InMemoryStore"] = Stored(InMemoryStore())
    if raw:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from langchain_classic.storage import LocalFileStore
            from langchain_community.storage import RedisStore, SQLStore

            found["LocalFileStore"] = Stored(LocalFileStore(folder / "files"))
            sql = SQLStore(namespace="kv", db_url=f"sqlite:///{folder / 'sqlstore.db'}")
            sql.create_schema()
            found["SQLStore"] = Stored(sql)
            if redis_url:
                found["RedisStore"] = Stored(RedisStore(redis_url=redis_url, namespace=str(folder)))
    return found
