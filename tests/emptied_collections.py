"""Collections of a node that tests use in turn: making and dropping one takes seconds, emptying it does not."""

from __future__ import annotations

import itertools
import os
from collections import deque
from typing import Any

from langchain_kv.backends.collections import PLAIN, CollectionForm
from langchain_kv.engines.base import CollectionName, Settings
from langchain_kv.errors import UnknownCollectionError

ID_ONLY = {"indexing": {"allow": ["_id"]}}
INDEXES = 8
TRUNCATED_FROM = 500
"""Rows from which TRUNCATE, which takes a large part of a second, is faster than deleting them."""

_numbers = itertools.count()


class EmptiedCollections:
    """Lends collections, each empty when it is lent.

    They are emptied when they are lent again, not when they come back: by then nothing that a test left under way
    writes to them, and the one that came back first is lent first.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._idle: dict[str, deque[CollectionName]] = {}

    def lend(self, form: CollectionForm = PLAIN) -> CollectionName:
        """Return an empty collection of this form."""
        settings = {"indexing": form.indexing}
        idle = self._idle.setdefault(form.arguments, deque())
        while idle:
            collection = idle.popleft()
            if self._is_as_made(collection, settings):
                self._empty(collection)
                return collection
            self._engine.drop_collection(collection)
        collection = CollectionName("default_keyspace", f"lent_{os.getpid()}_{next(_numbers)}")
        self._engine.create_collection(collection, settings)
        return collection

    def take_back(self, collection: CollectionName, form: CollectionForm = PLAIN) -> None:
        """Note that nobody uses a lent collection any more, whatever was done to it."""
        self._idle[form.arguments].append(collection)

    def _is_as_made(self, collection: CollectionName, made: Settings) -> bool:
        try:
            settings = self._engine.settings(collection)
        except UnknownCollectionError:
            return False
        indexes = "SELECT index_name FROM system_schema.indexes WHERE keyspace_name = %s AND table_name = %s"
        return bool(settings == made and len(self._session.execute(indexes, collection).all()) == INDEXES)

    def _empty(self, collection: CollectionName) -> None:
        table = f'"{collection.keyspace}"."{collection.name}"'
        # With the key alone, the node would read the texts, too: more than its heap holds, where they are large.
        rows = self._session.execute(f"SELECT key, tx_id FROM {table} LIMIT {TRUNCATED_FROM}").all()
        if len(rows) == TRUNCATED_FROM:
            self._session.execute(f"TRUNCATE {table}", timeout=60)
            return
        # By LWT, as the rows were written: a plain deletion goes by another clock.
        delete = self._session.prepare(f"DELETE FROM {table} WHERE key = ? IF EXISTS")
        for deleting in [self._session.execute_async(delete, (key,)) for key, _ in rows]:
            deleting.result()

    @property
    def _session(self) -> Any:
        return self._engine._connected()._session
