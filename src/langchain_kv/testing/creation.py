"""The layer around a test's server that makes collections as slowly as the real Data API on Apache Cassandra does."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from langchain_kv.engines.base import CollectionName, Engine
from langchain_kv.server.http.connections import Answer, Application, HttpRequest
from langchain_kv.testing.faults import code_answer

__all__ = ["SlowCreation"]

_MET: Final = "TOO_MANY_INDEXES_FOR_COLLECTION"
"""What the real server answers where it finds the indexes of another creation, and then drops the collection."""


class SlowCreation:
    """An application around another one. What the real server does is its CreateCollectionOperation, as shipped.

    A collection is listed from the beginning of its creation, and cannot be used before its end. A creation that meets
    another one of the same name, under way, drops the collection: then both have failed.

    Attributes:
        delay_s: seconds that the creation of a collection takes; 0 lets everything through.
    """

    def __init__(self, application: Application, engine: Engine) -> None:
        self.delay_s = 0.0
        self._application = application
        self._engine = engine
        self._under_way: dict[CollectionName, asyncio.Event] = {}  # set where another creation dropped it

    def refuse(self, request: HttpRequest) -> Answer | None:
        """Refuse what the application refuses."""
        return self._application.refuse(request)

    async def answer(self, request: HttpRequest) -> Answer:
        """Let the creation of a collection take its time, and have all else answered."""
        if not (self.delay_s or self._under_way):
            return await self._application.answer(request)
        keyspace, _, collection = request.path.removeprefix("/v1/").partition("/")
        if CollectionName(keyspace, collection) in self._under_way:
            return code_answer("UNKNOWN_COLLECTION_OR_TABLE")
        created = _created(request.body)
        if created is None or collection:
            return await self._application.answer(request)
        return await self._create(CollectionName(keyspace, created), request)

    async def _create(self, name: CollectionName, request: HttpRequest) -> Answer:
        met = self._under_way.pop(name, None)
        if met is not None:
            self._engine.drop_collection(name)
            met.set()
            return code_answer(_MET)
        if name.name in self._engine.collections(name.keyspace):
            return await self._application.answer(request)
        dropped = self._under_way[name] = asyncio.Event()
        created = await self._application.answer(request)
        try:
            async with asyncio.timeout(self.delay_s):
                await dropped.wait()
            return code_answer(_MET)
        except TimeoutError:
            del self._under_way[name]
            return created


def _created(body: bytes) -> str | None:
    """Return the name of the collection that a request is to create, or None."""
    try:
        return str(json.loads(body)["createCollection"]["name"])
    except (ValueError, KeyError, TypeError):
        return None
