"""The four verbs, and opening and dropping a collection, as coroutines: chunks, concurrency, each key's outcome."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from yarl import URL

from langchain_kv import limits
from langchain_kv.backends.base import Record, Stored
from langchain_kv.backends.dataapi import commands
from langchain_kv.backends.dataapi.client import Pool, Reply, prepared
from langchain_kv.backends.dataapi.commands import Command
from langchain_kv.backends.dataapi.flow import CHUNKS_AT_ONCE, each
from langchain_kv.backends.dataapi.outcome import Outcome
from langchain_kv.backends.dataapi.retry import Attempt, Call
from langchain_kv.errors import (
    AuthError,
    BadReplyError,
    DataAPIError,
    StoreError,
)
from langchain_kv.slices import SLICE_KEYS, Steps, gathered, in_slices, parts

__all__ = ["Verbs"]

T = TypeVar("T")

FIND_WIDTH: Final = 12
INSERT_WIDTH: Final = 10
UPSERT_WIDTH: Final = 48
DELETE_WIDTH: Final = 50
"""Requests of one operation that are under way at once."""

MOSTLY: Final = 0.75
"""From this share of existing keys on, upserts alone are faster than inserts and then upserts (measured: over 0.5)."""

PROBES: Final = 16
"""Answers to upserts from which on they tell whether the others of a batch should be upserts, too."""

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

REPLY_TARGET_BYTES: Final = 4 * 1024 * 1024
"""Bytes of documents that one find of keys is meant to be answered with."""

TOKEN_MIN_LENGTH: Final = 6
"""A shorter token is no secret, and taking it out of messages would only garble them."""

_log = logging.getLogger("langchain_kv")


class Verbs:
    """The operations on one collection. Holds no token; each operation's Call has it."""

    def __init__(
        self, pool: Callable[[], Pool], base_url: str, keyspace: str, collection: str, headers: Mapping[str, str]
    ) -> None:
        self._pool = pool
        self._keyspace_url = URL(f"{base_url}/v1/{keyspace}", encoded=True)
        self._url = URL(f"{base_url}/v1/{keyspace}/{collection}", encoded=True)
        self._keyspace = keyspace
        self._collection = collection
        self._headers = headers
        self._find_keys = limits.IN_MAX
        """Of one request, going by the size of the documents of the last large reply."""
        self._existing_share = 0.0
        """Of the last batch of more than FEW_KEYS keys."""

    # -- reading ------------------------------------------------------------------------------------------------

    async def get(self, call: Call, keys: Sequence[str]) -> list[Stored | None]:
        """Return the document of each key, in order."""
        found: dict[Any, Stored] = {}
        taken = 0

        async def fetch(chunk: Sequence[str]) -> None:
            state: str | None = None
            while True:
                page = await self._send(call, commands.find_keys(chunk, state), commands.read_page)
                self._learn_find_keys(page)
                await in_slices(_collect(page, found))
                state = _next_state(page, state)
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

    def _learn_find_keys(self, page: commands.Page) -> None:
        """Ask for fewer keys at once where documents are large: a reply is split in one piece."""
        size_bytes = sum(len(memoryview(raw)) for raw in page.unparsed)
        fitting = REPLY_TARGET_BYTES * len(page.unparsed) // size_bytes if size_bytes else 2 * self._find_keys
        self._find_keys = max(1, min(limits.IN_MAX, fitting))

    async def pages(self, call: Call, prefix: str, *, values: bool) -> AsyncGenerator[list[Any] | None, None]:
        """Yield pages of keys, or of (key, document), that are not empty; the next page comes while the consumer works.

        None is yielded where the token was refused: the consumer, in whose thread the token's source is to be
        called, renews the call's token and goes on, or does not and raises.
        """
        state: str | None = None
        has_others = False
        ahead = asyncio.create_task(self._page(call, state, values))
        try:
            while True:
                try:
                    page = await ahead
                except AuthError as error:
                    call.refusal = error
                    yield None
                    ahead = asyncio.create_task(self._page(call, state, values))
                    page = await ahead
                state = _next_state(page, state)
                is_large = bool(page.unparsed)
                if state is not None and not is_large:
                    ahead = asyncio.create_task(self._page(call, state, values))
                for items in commands.documents(page):
                    texts = [item for item in items if isinstance(item[0], str)]
                    if len(texts) < len(items) and not has_others:
                        has_others = True
                        self._log_other_ids()
                    chosen = [item for item in texts if item[0].startswith(prefix)] if prefix else texts
                    if chosen:
                        yield chosen if values else [key for key, _ in chosen]
                    if is_large:
                        await asyncio.sleep(0)
                if state is None:
                    return
                if is_large:  # two of them would be more than memory may have room for
                    del page
                    ahead = asyncio.create_task(self._page(call, state, values))
        finally:
            await _abandon(ahead)

    async def _page(self, call: Call, state: str | None, values: bool) -> commands.Page:
        call.restart()
        return await self._send(call, commands.find_page(state, values=values), commands.read_page)

    def _log_other_ids(self) -> None:
        _log.warning(
            "Collection %s.%s holds documents whose _id is not text: the scan leaves them out.",
            self._keyspace,
            self._collection,
        )

    # -- writing ------------------------------------------------------------------------------------------------

    async def put(self, call: Call, records: Sequence[Record]) -> None:
        """Store every record."""
        outcome, left = Outcome.of(call, [key for key, _ in records])
        if left is not None:
            records = [record for record in records if record[0] in left]
        if len(records) <= limits.FEW_KEYS:
            await self._upsert(call, records, outcome)
        else:
            existing = await self._put_many(call, records, outcome)
            if outcome.stop is None:
                self._existing_share = existing / len(records)
        await in_slices(outcome.settle("stored"))

    async def _put_many(self, call: Call, records: Sequence[Record], outcome: Outcome) -> int:
        """Store the records by whichever way is the faster one; return how many keys existed.

        An insert in vain costs a hundredth of the requests that must follow; upserting what is new costs a hundred
        times as many as inserting it. So inserts need no trial, and upserts have one.
        """
        if self._existing_share <= MOSTLY:
            return await self._insert(call, records, outcome)
        tried = existing = 0
        is_left_to_inserts = False

        async def store(position: int) -> None:
            nonlocal tried, existing, is_left_to_inserts
            if is_left_to_inserts:
                return
            if tried >= PROBES and existing <= MOSTLY * tried:
                is_left_to_inserts = True  # at once, beside the upserts that are under way
                found = await self._insert(call, records[position:], outcome)
                existing += found
                return
            existed = await self._replace(call, records[position], outcome)
            if existed is not None:
                tried += 1
                existing += existed

        await each(store, range(len(records)), UPSERT_WIDTH)
        return existing

    async def _insert(self, call: Call, records: Sequence[Record], outcome: Outcome) -> int:
        """Insert, and replace at once what was there already; return how many that were."""
        tried = existing = 0
        chunks = await in_slices(gathered(commands.split_by_size(records), CHUNKS_AT_ONCE))
        width = -(-UPSERT_WIDTH // max(1, min(INSERT_WIDTH, len(chunks))))

        async def insert(chunk: Sequence[Record]) -> None:
            nonlocal tried, existing
            keys = [key for key, _ in chunk]
            if outcome.is_stopped(keys):
                return
            if existing > MOSTLY * tried:  # then so will most of these
                existed = await self._upsert(call, chunk, outcome, width)
                tried, existing = tried + len(chunk), existing + existed
                return
            try:
                inserted = await self._send(
                    call,
                    commands.insert_many(chunk),
                    partial(commands.read_inserted, keys=keys),
                    on_doubt=partial(outcome.doubt, keys),
                )
            except StoreError as error:
                outcome.fail(keys, error)
                return
            tried += len(keys)
            existing += len(inserted.existing)
            outcome.doubt(inserted.again)
            for key, refusal in inserted.failed.items():
                outcome.fail([key], refusal)
            if inserted.existing or inserted.again:
                left = {*inserted.existing, *inserted.again}
                await self._upsert(call, [record for record in chunk if record[0] in left], outcome, width)

        await each(insert, chunks, INSERT_WIDTH)
        return existing

    async def _upsert(self, call: Call, records: Sequence[Record], outcome: Outcome, width: int = UPSERT_WIDTH) -> int:
        """Store each record on its own; return how many keys existed."""
        existing = 0

        async def upsert(record: Record) -> None:
            nonlocal existing
            if await self._replace(call, record, outcome):
                existing += 1  # not in one statement with the await, which would count from before it

        await each(upsert, records, width)
        return existing

    async def _replace(self, call: Call, record: Record, outcome: Outcome) -> bool | None:
        """Store one record; return whether its key existed, None where it was not stored."""
        if outcome.is_stopped([record[0]]):
            return None
        try:
            return await self._send(call, commands.upsert(record), commands.read_replaced)
        except StoreError as error:
            outcome.fail([record[0]], error)
            return None

    async def delete(self, call: Call, keys: Sequence[str]) -> None:
        """Delete the keys' documents."""
        outcome, left = Outcome.of(call, keys)
        if left is not None:
            keys = [key for key in keys if key in left]

        async def remove(chunk: Sequence[str]) -> None:
            if outcome.is_stopped(chunk):
                return
            begun = False
            try:
                while await self._send(call, commands.delete_many(chunk), commands.read_deleted):
                    begun = True
            except StoreError as error:
                if begun:
                    error.applied = None
                outcome.fail(chunk, error)

        await each(remove, _chunks(keys, limits.DELETE_MANY_MAX), DELETE_WIDTH)
        await in_slices(outcome.settle("deleted"))

    # -- the collection -----------------------------------------------------------------------------------------

    async def open(self, call: Call, *, pre_delete: bool) -> dict[str, Any] | None:
        """Create the collection where it is missing; return the settings of one that exists."""
        if not pre_delete:
            return await self._create(call)
        await self.drop(call)
        try:
            return await self._create(call)
        except StoreError as error:
            error.applied = None  # the old one is gone, and the new one is not there
            raise

    async def _create(self, call: Call) -> dict[str, Any] | None:
        """Create the collection, or find that it is there; another process may be making it at the same time.

        Where two creations meet the service fails one of them, for reasons of its own, and may drop the collection.
        """
        found = await self._settings(call)
        for pause_s in (*CREATE_PAUSES_S, None):
            if found is not None:
                return found
            try:
                await self._admin(call, commands.create_collection(self._collection))
                return None
            except DataAPIError as error:
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

    async def drop(self, call: Call) -> None:
        """Drop the collection; a missing one is no error."""
        await self._admin(call, commands.delete_collection(self._collection))

    async def _settings(self, call: Call) -> dict[str, Any] | None:
        found = await self._send(call, commands.find_collections(), commands.read_collections, url=self._keyspace_url)
        return found.get(self._collection)

    async def _admin(self, call: Call, command: Command) -> None:
        await self._send(call, command, commands.read_status, url=self._keyspace_url, timeout_s=ADMIN_TIMEOUT_S)

    # -- one request --------------------------------------------------------------------------------------------

    async def _send(
        self,
        call: Call,
        command: Command,
        read: Callable[[int, bytes | bytearray, str], T],
        *,
        url: URL | None = None,
        timeout_s: float | None = None,
        on_doubt: Callable[[], None] | None = None,
    ) -> T:
        what = f"{command.name} on {self._keyspace}.{self._collection}"
        target = url or self._url
        pool = self._pool()

        async def attempt(one: Attempt) -> T:
            try:
                reply = await pool.post(target, command.parts or command.body, self._request_headers(call), one)
                return _readable(read, reply, what)
            except StoreError as error:
                _hide(error, call.token)
                if on_doubt is not None and error.applied is None:
                    on_doubt()
                raise

        return await call.persist(attempt, pool.flow(), timeout_s=timeout_s)

    def _request_headers(self, call: Call) -> Mapping[str, str]:
        if call.headers is None:
            call.headers = prepared(self._headers if call.token is None else {**self._headers, "Token": call.token})
        return call.headers


def _readable(read: Callable[[int, bytes | bytearray, str], T], reply: Reply, what: str) -> T:
    """Read an answer; one in which something is of another type than it should be is not one of the Data API."""
    try:
        return read(reply.status, reply.body, what)
    except StoreError:
        raise
    except Exception as error:
        failure = BadReplyError(
            f"The answer to {what} is not one of the Data API ({type(error).__name__} in reading it): check the"
            " endpoint.",
            http_status=reply.status,
        )
    raise failure  # out here: the exception, which may hold the whole answer, is not its context


async def _abandon(task: asyncio.Task[Any]) -> None:
    # At the end of an event loop tasks are cancelled first, and then all async generators are closed at once: one that
    # waits then for nothing would be found running by the one that closes it, too.
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # seen


def _collect(page: commands.Page, found: dict[Any, Stored]) -> Steps[None]:
    """Add the documents of a page to what was found."""
    for number, items in enumerate(commands.documents(page)):
        if number:
            yield
        found.update([item for item in items if isinstance(item[0], str)])


def _in_order(found: Mapping[Any, Stored], keys: Sequence[str]) -> Steps[list[Stored | None]]:
    """Return what was found of each key."""
    ordered: list[Stored | None] = []
    for some in parts(keys, SLICE_KEYS):
        if ordered:
            yield
        ordered += [found.get(key) for key in some]
    return ordered


def _chunks(items: Sequence[str], size: int) -> list[Sequence[str]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _next_state(page: commands.Page, state: str | None) -> str | None:
    if page.state is not None and page.state == state:
        raise BadReplyError("The service answered the same page state twice: the scan would never end. Try again.")
    return page.state


def _hide(error: StoreError, token: str | None) -> None:
    """Take the token out of a message that quotes the service's words."""
    if token is None or len(token) < TOKEN_MIN_LENGTH:
        return
    if any(isinstance(part, str) and token in part for part in error.args):
        error.args = tuple(part.replace(token, "***") if isinstance(part, str) else part for part in error.args)
    if isinstance(error, DataAPIError) and token in error.title:
        error.title = error.title.replace(token, "***")
