"""The layer around a test's server that makes collections as slowly as the real Data API on Apache Cassandra does."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from langchain_kv.engines.base import CollectionName, Engine
from langchain_kv.testing.faults import (
    App,
    Message,
    Receive,
    Send,
    code_answer,
    kept_in,
    read_request,
    replayed,
    send_answer,
)

__all__ = ["SlowCreation"]

_MET: Final = "TOO_MANY_INDEXES_FOR_COLLECTION"
"""What the real server answers where it finds the indexes of another creation, and then drops the collection."""


class SlowCreation:
    """An ASGI application around another one. What the real server does is its CreateCollectionOperation, as shipped.

    A collection is listed from the beginning of its creation, and cannot be used before its end. A creation that meets
    another one of the same name, under way, drops the collection: then both have failed.

    Attributes:
        delay_s: seconds that the creation of a collection takes; 0 lets everything through.
    """

    def __init__(self, app: App, engine: Engine) -> None:
        self.delay_s = 0.0
        self._app = app
        self._engine = engine
        self._under_way: dict[CollectionName, asyncio.Event] = {}  # set where another creation dropped it

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if not (self.delay_s or self._under_way):
            await self._app(scope, receive, send)
            return
        messages, _ = await read_request(scope, receive)
        receive = replayed(messages, receive)
        keyspace, _, collection = scope["path"].removeprefix("/v1/").partition("/")
        if CollectionName(keyspace, collection) in self._under_way:
            await send_answer(code_answer("UNKNOWN_COLLECTION_OR_TABLE"), send)
            return
        created = _created(b"".join(message.get("body", b"") for message in messages))
        if created is None or collection:
            await self._app(scope, receive, send)
            return
        await self._create(CollectionName(keyspace, created), scope, receive, send)

    async def _create(self, name: CollectionName, scope: Any, receive: Receive, send: Send) -> None:
        met = self._under_way.pop(name, None)
        if met is not None:
            self._engine.drop_collection(name)
            met.set()
            await send_answer(code_answer(_MET), send)
            return
        if name.name in self._engine.collections(name.keyspace):
            await self._app(scope, receive, send)
            return
        dropped = self._under_way[name] = asyncio.Event()
        reply: list[Message] = []
        await self._app(scope, receive, kept_in(reply))
        try:
            async with asyncio.timeout(self.delay_s):
                await dropped.wait()
            await send_answer(code_answer(_MET), send)
        except TimeoutError:
            del self._under_way[name]
            for message in reply:
                await send(message)


def _created(body: bytes) -> str | None:
    """Return the name of the collection that a request is to create, or None."""
    try:
        return str(json.loads(body)["createCollection"]["name"])
    except (ValueError, KeyError, TypeError):
        return None
