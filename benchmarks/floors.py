"""The floors: what must be done at the least, by hand. They know what no store can know, such as which keys exist."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any

import aiohttp
import orjson

from benchmarks.services import TOKEN

__all__ = ["BareRequests", "BareSQL"]

INSERTS, FINDS, REPLACES, DELETES = 10, 10, 48, 50
"""Requests at once: the best of a few tried against the local server and against the real one."""


class BareRequests:
    """The commands that are needed, by aiohttp and orjson, in the running loop, or in one of the caller's own."""

    def __init__(self, url: str, collection: str, *, raw: bool = False) -> None:
        self._write: Callable[[Any], Any] = (lambda value: base64.b64encode(value).decode()) if raw else _as_it_is
        self._read: Callable[[Any], Any] = base64.b64decode if raw else _as_it_is
        self._keyspace = f"{url}/v1/default_keyspace"
        self._url = f"{self._keyspace}/{collection}"
        self._collection = collection
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
        self._loop = asyncio.new_event_loop()
        self.exists: Callable[[str], bool] = lambda key: False

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)

    async def _post(self, command: dict[str, Any], url: str = "") -> Any:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            session = self._sessions[loop] = aiohttp.ClientSession(
                headers={"Token": TOKEN, "Content-Type": "application/json"}
            )
        async with session.post(url or self._url, data=orjson.dumps(command)) as response:
            reply = orjson.loads(await response.read())
            if "errors" in reply:
                raise RuntimeError(reply["errors"][0]["errorCode"])
            return reply

    def setup(self) -> None:
        options = {"indexing": {"allow": ["_id"]}}
        self._run(self._post({"createCollection": {"name": self._collection, "options": options}}, self._keyspace))

    async def amset(self, pairs: Sequence[tuple[str, Any]]) -> None:
        if len(pairs) == 1:
            await self._replace(pairs[0])
            return
        there = [pair for pair in pairs if self.exists(pair[0])]
        new = [pair for pair in pairs if not self.exists(pair[0])]
        await asyncio.gather(
            _at_once(INSERTS, self._insert, list(_chunks(new, 100))), _at_once(REPLACES, self._replace, there)
        )

    async def _replace(self, pair: tuple[str, Any]) -> None:
        key, value = pair
        body = {
            "filter": {"_id": key},
            "replacement": {"_id": key, "value": self._write(value)},
            "options": {"upsert": True},
        }
        await self._post({"findOneAndReplace": {**body, "projection": {"value": False}}})

    async def _insert(self, pairs: Sequence[tuple[str, Any]]) -> None:
        documents = [{"_id": key, "value": self._write(value)} for key, value in pairs]
        await self._post({"insertMany": {"documents": documents, "options": {"ordered": False}}})

    async def amget(self, keys: Sequence[str]) -> list[Any]:
        found: dict[str, Any] = {}

        async def find(some: Sequence[str]) -> None:
            reply = await self._post({"find": {"filter": {"_id": {"$in": some}}}})
            found.update((each["_id"], self._read(each["value"])) for each in reply["data"]["documents"])

        await _at_once(FINDS, find, list(_chunks(keys, 100)))
        return [found.get(key) for key in keys]

    async def amdelete(self, keys: Sequence[str]) -> None:
        async def delete(some: Sequence[str]) -> None:
            await self._post({"deleteMany": {"filter": {"_id": {"$in": some}}}})

        await _at_once(DELETES, delete, list(_chunks(keys, 20)))

    async def akeys(self, prefix: str = "") -> list[str]:
        keys: list[str] = []
        options: dict[str, Any] = {}
        while True:
            reply = await self._post({"find": {"filter": {}, "projection": {"value": False}, "options": options}})
            keys += [each["_id"] for each in reply["data"]["documents"] if each["_id"].startswith(prefix)]
            state = reply["data"].get("nextPageState")
            if state is None:
                return keys
            options = {"pageState": state}

    def mset(self, pairs: Sequence[tuple[str, Any]]) -> None:
        self._run(self.amset(pairs))

    def mget(self, keys: Sequence[str]) -> list[Any]:
        return list(self._run(self.amget(keys)))

    def mdelete(self, keys: Sequence[str]) -> None:
        self._run(self.amdelete(keys))

    def keys(self, prefix: str = "") -> list[str]:
        return list(self._run(self.akeys(prefix)))

    async def aclose(self) -> None:
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()

    def close(self) -> None:
        self._run(self.aclose())
        self._loop.close()


class BareSQL:
    """sqlite3 with orjson, one connection, with the same settings that our files have; values are bytes or JSON."""

    def __init__(self, path: str, *, synchronous: str = "FULL", raw: bool = False) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        # A copy of just its size: what orjson returns has room to grow, and a batch of that makes the heap grow, which
        # took as long as all the rest.
        self._dumps: Callable[[Any], bytes] = bytes if raw else (lambda value: b"%b" % orjson.dumps(value))
        self._loads: Callable[[bytes], Any] = bytes if raw else orjson.loads
        self._db.execute("PRAGMA page_size=8192")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={synchronous}")
        self._db.execute("CREATE TABLE IF NOT EXISTS kv(key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL)")

    def setup(self) -> None:
        pass

    def mset(self, pairs: Sequence[tuple[str, Any]]) -> None:
        rows = [(key, self._dumps(value)) for key, value in pairs]
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT INTO kv VALUES(?,?) ON CONFLICT(key) DO UPDATE SET value=excluded.value", rows)
        self._db.execute("COMMIT")

    def mget(self, keys: Sequence[str]) -> list[Any]:
        found: dict[str, Any] = {}
        for some in _chunks(keys, 500):
            marks = ",".join("?" * len(some))
            for key, value in self._db.execute(f"SELECT key,value FROM kv WHERE key IN ({marks})", some):
                found[key] = self._loads(value)
        return [found.get(key) for key in keys]

    def mdelete(self, keys: Sequence[str]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        for some in _chunks(keys, 500):
            self._db.execute(f"DELETE FROM kv WHERE key IN ({','.join('?' * len(some))})", some)
        self._db.execute("COMMIT")

    def keys(self, prefix: str = "") -> list[str]:
        if not prefix:
            return [key for (key,) in self._db.execute("SELECT key FROM kv")]
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        return [key for (key,) in self._db.execute("SELECT key FROM kv WHERE key>=? AND key<?", (prefix, end))]

    # The bare SQL has no colour: in an async row it holds up the loop, as a caller's own would.
    async def amset(self, pairs: Sequence[tuple[str, Any]]) -> None:
        self.mset(pairs)

    async def amget(self, keys: Sequence[str]) -> list[Any]:
        return self.mget(keys)

    async def amdelete(self, keys: Sequence[str]) -> None:
        self.mdelete(keys)

    async def akeys(self, prefix: str = "") -> list[str]:
        return self.keys(prefix)

    async def aclose(self) -> None:
        pass

    def close(self) -> None:
        self._db.close()


def _as_it_is(value: Any) -> Any:
    return value


async def _at_once(width: int, job: Callable[[Any], Awaitable[None]], items: Sequence[Any]) -> None:
    if len(items) < 2:
        for item in items:
            await job(item)
        return
    left = iter(items)

    async def work() -> None:
        for item in left:
            await job(item)

    await asyncio.gather(*(work() for _ in range(min(width, len(items)))))


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
