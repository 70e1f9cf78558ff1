"""The four verbs, and opening and dropping a collection, as coroutines: chunks, concurrency, each key's outcome."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from langchain_kv import limits
from langchain_kv.backends.base import Page, Stored, alive_of, is_alive
from langchain_kv.backends.collections import PLAIN, CollectionForm
from langchain_kv.backends.dataapi import commands, replies
from langchain_kv.backends.dataapi.client import Pool
from langchain_kv.backends.dataapi.commands import Command
from langchain_kv.backends.dataapi.flow import CHUNKS_AT_ONCE, each
from langchain_kv.backends.dataapi.outcome import BatchOutcome
from langchain_kv.backends.dataapi.retry import Call
from langchain_kv.backends.dataapi.sending import Sender, hide_token, next_state
from langchain_kv.backends.documents import Encoded
from langchain_kv.errors import (
    AuthError,
    DataAPIError,
    StoreError,
)
from langchain_kv.runtime.clock import now_ms
from langchain_kv.runtime.halfway import Halfway
from langchain_kv.runtime.slices import SLICE_KEYS, Steps, gathered, in_slices, next_turn, parts
from langchain_kv.values.namespaces import indexed_part

__all__ = ["Verbs"]

FIND_WIDTH: Final = 12
INSERT_WIDTH: Final = 10
UPSERT_WIDTH: Final = 48
DELETE_WIDTH: Final = 50
"""Requests of one operation that are under way at once."""

MOSTLY: Final = 0.75
"""From this share of existing keys on, upserts alone are faster than inserts and then upserts (measured: over 0.5)."""

PROBES: Final = 16
"""Records that are inserted first after a batch that existed: they tell whether the others should be upserts, too."""

ADMIN_TIMEOUT_S: Final = 120.0
"""Seconds for creating or dropping a collection: on Apache Cassandra creation takes 10 s and more (measured)."""

CREATE_PAUSES_S: Final = (0.5, 2.0, 4.0)
"""Seconds, at most, before a creation that failed is tried again; the wait is random."""

RACED: Final = frozenset(
    {
        "CORRUPTED_COLLECTION_SCHEMA",
        "EXISTING_INDEX_FOR_COLLECTION",
        "INVALID_DATABASE_QUERY",
        "TOO_MANY_INDEXES_FOR_COLLECTION",
        "UNEXPECTED_DRIVER_ERROR",
        "UNKNOWN_COLLECTION_OR_TABLE",
    }
)
"""Answers to a creation that another one, under way at the same time, may have caused."""

NO_VECTORS: Final = frozenset({"VECTOR_SEARCH_FIELD_TOO_BIG", "VECTOR_SEARCH_NOT_AVAILABLE"})
"""What a service answers that makes no collection with such vectors (source: Data API)."""

REPLY_TARGET_BYTES: Final = 4 * 1024 * 1024
"""Bytes of documents that one find of keys is meant to be answered with."""

NOTHING_INSERTED: Final = replies.Inserted([], [], {})

_log = logging.getLogger("langchain_kv")


class Verbs:
    """The operations on one collection. Holds no token; each operation's Call has it."""

    def __init__(
        self,
        pool: Callable[[], Pool],
        base_url: str,
        keyspace: str,
        collection: str,
        headers: Mapping[str, str],
        *,
        form: CollectionForm = PLAIN,
    ) -> None:
        self._wanted = self.form = form
        """The latter is that of the collection, once ``open`` or ``learn`` has seen it."""
        self._sender = Sender(pool, base_url, keyspace, collection, headers)
        self.send = self._sender.send
        self._keyspace = keyspace
        self._collection = collection
        self.by_version_alone = False
        """Whether the service refuses a filter by an ``_id`` and a version; see ``updating``."""
        self._find_keys = limits.IN_MAX
        """Of one request, going by the size of the documents of the last large reply."""
        self._existing_share = 0.0
        """Of the last batch of more than FEW_KEYS keys."""

    # -- reading ------------------------------------------------------------------------------------------------

    async def get(self, call: Call, keys: Sequence[str], *, values: bool = True) -> list[Stored | None]:
        """Return the document of each key, in order."""
        found: dict[Any, Stored] = {}
        taken = 0

        async def fetch(chunk: Sequence[str]) -> None:
            state: str | None = None
            while True:
                page = await self.send(call, commands.find_keys(chunk, state, values=values), replies.parse_page)
                if values:
                    self._learn_find_keys(page)
                await in_slices(_collect(page, found))
                state = next_state(page, state)
                if state is None:
                    return

        async def fetch_chunks(_: int) -> None:
            nonlocal taken
            while taken < len(keys):
                chunk = keys[taken : taken + self._find_keys]
                taken += len(chunk)
                await fetch(chunk)

        await each(fetch_chunks, range(min(FIND_WIDTH, -(-len(keys) // self._find_keys))), FIND_WIDTH)
        return await in_slices(_in_order(found, keys))

    def _learn_find_keys(self, page: replies.Page) -> None:
        """Ask for fewer keys at once where documents are large: a reply is split in one piece."""
        size_bytes = sum(len(memoryview(raw)) for raw in page.unparsed)
        fitting = REPLY_TARGET_BYTES * len(page.unparsed) // size_bytes if size_bytes else 2 * self._find_keys
        self._find_keys = max(1, min(limits.IN_MAX, fitting))

    async def pages(
        self, call: Call, prefix: str, *, values: bool, namespace: str | None = None
    ) -> AsyncGenerator[Page]:
        """Yield pages that are not empty; the next page comes while the consumer works.

        Args:
            call: the operation.
            prefix: what the keys begin with.
            values: whether values are wanted.
            namespace: the text of ``ancestry`` that all of them have, where the prefix does not tell it whole.
        """
        state: str | None = None
        has_others = False
        namespace = (indexed_part(prefix) if namespace is None else namespace) if self.form.namespaced else ""
        ahead = asyncio.create_task(self._page(call, state, values, namespace))
        try:
            while True:
                try:
                    page = await ahead
                except AuthError as error:
                    if not await call.renew(error):
                        raise
                    ahead = asyncio.create_task(self._page(call, state, values, namespace))
                    page = await ahead
                state = next_state(page, state)
                is_large = bool(page.unparsed)
                if state is not None and not is_large:
                    ahead = asyncio.create_task(self._page(call, state, values, namespace))
                for items in replies.documents(page):
                    texts = [item for item in items if isinstance(item[0], str)]
                    if len(texts) < len(items) and not has_others:
                        has_others = True
                        self._log_other_ids()
                    chosen = [item for item in texts if item[0].startswith(prefix)] if prefix else texts
                    now = now_ms()
                    alive = [(key, stored if values else None) for key, stored in chosen if is_alive(stored, now)]
                    if alive:
                        yield alive
                    if is_large:
                        await next_turn()
                if state is None:
                    return
                if is_large:  # two of them would be more than memory may have room for
                    del page
                    ahead = asyncio.create_task(self._page(call, state, values, namespace))
        finally:
            await _abandon(ahead)

    async def _page(self, call: Call, state: str | None, values: bool, namespace: str = "") -> replies.Page:
        call.restart()
        return await self.send(call, commands.find_page(state, values=values, namespace=namespace), replies.parse_page)

    def _log_other_ids(self) -> None:
        _log.warning(
            "Collection %s.%s holds documents whose _id is not text: the scan leaves them out.",
            self._keyspace,
            self._collection,
        )

    async def expired(self, call: Call, keys: Sequence[str]) -> list[str]:
        """Return those of the keys that are not there, or have expired; no value is sent."""
        found = await self.get(call, keys, values=False) if keys else []
        return [key for key, stored in zip(keys, found, strict=True) if stored is None]

    # -- writing ------------------------------------------------------------------------------------------------

    async def put(self, call: Call, records: Sequence[Encoded]) -> None:
        """Store every record."""
        outcome, left = BatchOutcome.of(call, [key for key, _ in records])
        if left is not None:
            records = [record for record in records if record[0] in left]
        if len(records) <= limits.FEW_KEYS:
            await self._upsert(call, records, outcome)
        else:
            existing = await self._put_many(call, records, outcome)
            if outcome.stop is None:
                self._existing_share = existing / len(records)
        await in_slices(outcome.settle("stored"))

    async def _put_many(self, call: Call, records: Sequence[Encoded], outcome: BatchOutcome) -> int:
        """Store the records by whichever way is the faster one; return how many keys existed.

        An insert in vain costs a hundredth of the requests that must follow; upserting what is new costs a hundred
        times as many as inserting it. So inserts need no trial, and the upserts of more records than go at once have
        one: an insert of a few.
        """
        if self._existing_share <= MOSTLY:
            return await self._insert(call, records, outcome)
        if len(records) <= UPSERT_WIDTH:
            return await self._upsert(call, records, outcome)
        some = next(commands.split_by_size(records[:PROBES]))
        rest = records[len(some) :]
        inserted = await self.insert_chunk(call, some, outcome) or NOTHING_INSERTED
        left = {*inserted.existing, *inserted.again}
        again = [record for record in some if record[0] in left]
        if len(inserted.existing) > MOSTLY * len(some):  # then so will most of the others
            return await self._upsert(call, [*again, *rest], outcome)
        existing = await self._upsert(call, again, outcome) if again else 0
        return existing + (await self._insert(call, rest, outcome) if rest else 0)

    async def _insert(self, call: Call, records: Sequence[Encoded], outcome: BatchOutcome) -> int:
        """Insert, and replace at once what was there already; return how many that were."""
        tried = existing = 0
        runs = await in_slices(gathered(commands.split_by_size(records), CHUNKS_AT_ONCE))
        width = -(-UPSERT_WIDTH // max(1, min(INSERT_WIDTH, len(runs))))

        async def insert(chunk: Sequence[Encoded]) -> None:
            nonlocal tried, existing
            if existing > MOSTLY * tried:  # then so will most of these
                existed = await self._upsert(call, chunk, outcome, width)
                tried, existing = tried + len(chunk), existing + existed
                return
            inserted = await self.insert_chunk(call, chunk, outcome) or NOTHING_INSERTED
            tried += len(chunk)
            existing += len(inserted.existing)
            if inserted.existing or inserted.again:
                left = {*inserted.existing, *inserted.again}
                await self._upsert(call, [record for record in chunk if record[0] in left], outcome, width)

        await each(insert, runs, INSERT_WIDTH)
        return existing

    async def insert_chunk(
        self, call: Call, chunk: Sequence[Encoded], outcome: BatchOutcome, *, must_go_on: bool = False
    ) -> replies.Inserted | None:
        """Send one insert, where nothing stopped the operation; note what failed for good. None: all of it did."""
        keys = [key for key, _ in chunk]
        if outcome.is_stopped(keys):
            return None
        try:
            inserted = await self.send(
                call,
                commands.insert_many(chunk),
                partial(replies.parse_inserted, keys=keys, must_go_on=must_go_on),
                on_doubt=partial(outcome.doubt, keys),
            )
        except StoreError as error:
            outcome.fail(keys, error)
            return None
        outcome.doubt(inserted.again)
        for key, refusal in inserted.failed.items():
            hide_token(refusal, call.token)
            outcome.fail([key], refusal)
        return inserted

    async def _upsert(
        self, call: Call, records: Sequence[Encoded], outcome: BatchOutcome, width: int = UPSERT_WIDTH
    ) -> int:
        """Store each record on its own; return how many keys existed."""
        existing = 0

        async def upsert(record: Encoded) -> None:
            nonlocal existing
            if await self._replace(call, record, outcome):
                existing += 1  # not in one statement with the await, which would count from before it

        await each(upsert, records, width)
        return existing

    async def _replace(self, call: Call, record: Encoded, outcome: BatchOutcome) -> bool | None:
        """Store one record; return whether its key existed, None where it was not stored."""
        if outcome.is_stopped([record[0]]):
            return None
        try:
            return await self.send(call, commands.upsert(record), replies.parse_replaced)
        except StoreError as error:
            outcome.fail([record[0]], error)
            return None

    async def purge(self, call: Call) -> int:
        """Remove what has expired; return how many keys those were, also before the call was run again."""
        removed: int = call.outcome or 0
        state: str | None = None
        with Halfway() as halfway:
            while True:
                halfway.has_changed = removed > 0
                page = await self._page(call, state, values=False)
                items = [item for some in replies.documents(page) for item in some]
                keys = [key for key, stored in items if isinstance(key, str) and not is_alive(stored, now_ms())]
                await self.remove(call, keys, BatchOutcome(keys))
                call.outcome = removed = removed + len(keys)
                state = next_state(page, state)
                if state is None:
                    return removed

    async def delete(self, call: Call, keys: Sequence[str]) -> None:
        """Delete the keys' documents."""
        outcome, left = BatchOutcome.of(call, keys)
        await self.remove(call, keys if left is None else [key for key in keys if key in left], outcome)

    async def remove(self, call: Call, keys: Sequence[str], outcome: BatchOutcome) -> None:
        """Delete the keys' documents, and settle the outcome of an operation of which that may be a part."""

        async def remove(chunk: Sequence[str]) -> None:
            if outcome.is_stopped(chunk):
                return
            begun = False
            try:
                while await self.send(call, commands.delete_many(chunk), replies.parse_deleted):
                    begun = True
            except StoreError as error:
                if begun:
                    error.applied = None
                outcome.fail(chunk, error)

        await each(remove, list(parts(keys, limits.DELETE_MANY_MAX)), DELETE_WIDTH)
        await in_slices(outcome.settle("deleted"))

    # -- the collection -----------------------------------------------------------------------------------------

    async def open(self, call: Call, *, pre_delete: bool) -> dict[str, Any] | None:
        """Create the collection where it is missing; return the settings of one that exists."""
        if not pre_delete:
            return await self._create(call)
        await self._admin(call, commands.delete_collection(self._collection))
        try:
            return await self._create(call)
        except StoreError as error:
            error.applied = None  # the old one is gone, and the new one is not there
            raise

    async def _create(self, call: Call) -> dict[str, Any] | None:
        settings = await self._created(call)
        self.form = self._wanted if settings is None else self._wanted.of_settings(settings)
        return settings

    async def _created(self, call: Call) -> dict[str, Any] | None:
        """Create the collection, or find that it is there; another process may be making it at the same time.

        Where two creations meet the service fails one of them, for reasons of its own, and may drop the collection.
        """
        found = await self._settings(call)
        for pause_s in (*CREATE_PAUSES_S, None):
            if found is not None:
                return found
            try:
                await self._admin(call, commands.create_collection(self._collection, self._wanted))
                return None
            except DataAPIError as error:
                if self._wanted.dimension and error.code in NO_VECTORS:
                    self._wanted = self._wanted._replace(dimension=0)
                    continue
                if error.scope not in ("SCHEMA", "DATABASE"):
                    raise
                found = await self._found_after(call, error)
                if found is None:
                    if error.code not in RACED or pause_s is None:
                        raise
                    await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311 - spreads clients, protects nothing
                    found = await self._found_after(call, error)
        return found

    async def _found_after(self, call: Call, failure: DataAPIError) -> dict[str, Any] | None:
        """Return the settings of the collection if it is there after all, or None."""
        try:
            return await self._settings(call)
        except StoreError as error:
            raise failure from error

    async def learn(self, call: Call) -> bool:
        """Look up what form the collection has; return whether it is there."""
        settings = await self._settings(call)
        if settings is not None:
            self.form = self._wanted.of_settings(settings)
        return settings is not None

    async def _settings(self, call: Call) -> dict[str, Any] | None:
        return (await self._all_settings(call)).get(self._collection)

    async def _all_settings(self, call: Call) -> dict[str, dict[str, Any]]:
        return await self.send(
            call, commands.find_collections(), replies.parse_collections, url=self._sender.keyspace_url
        )

    async def collections(self, call: Call) -> list[str]:
        """Return the names of the keyspace's collections, sorted."""
        return sorted(await self._all_settings(call))

    async def drop(self, call: Call) -> None:
        """Remove the collection."""
        await self._admin(call, commands.delete_collection(self._collection))

    async def _admin(self, call: Call, command: Command) -> None:
        await self.send(call, command, replies.parse_status, url=self._sender.keyspace_url, timeout_s=ADMIN_TIMEOUT_S)


async def _abandon(task: asyncio.Task[Any]) -> None:
    # At the end of an event loop tasks are cancelled first, and then all async generators are closed at once: one that
    # waits then for nothing would be found running by the one that closes it, too.
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # seen


def _collect(page: replies.Page, found: dict[Any, Stored]) -> Steps[None]:
    """Add the documents of a page to what was found."""
    for number, items in enumerate(replies.documents(page)):
        if number:
            yield
        found.update([item for item in items if isinstance(item[0], str)])


def _in_order(found: Mapping[Any, Stored], keys: Sequence[str]) -> Steps[list[Stored | None]]:
    """Return what was found of each key and has not expired."""
    ordered: list[Stored | None] = []
    now = now_ms()
    for some in parts(keys, SLICE_KEYS):
        if ordered:
            yield
        ordered += alive_of(found, some, now)
    return ordered
