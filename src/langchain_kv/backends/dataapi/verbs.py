"""The four verbs, and opening and dropping a collection, as coroutines: chunks, concurrency, each key's outcome."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from yarl import URL

from langchain_kv import limits
from langchain_kv.backends.base import Record, Stored
from langchain_kv.backends.dataapi import commands
from langchain_kv.backends.dataapi.client import Pool
from langchain_kv.backends.dataapi.commands import Command
from langchain_kv.backends.dataapi.retry import Attempt, Call
from langchain_kv.errors import (
    AuthError,
    BadReplyError,
    CollectionConflictError,
    DataAPIError,
    PartialWriteError,
    StoreClosedError,
    StoreError,
    TransportError,
)
from langchain_kv.keys import shown

__all__ = ["Verbs"]

T = TypeVar("T")

FIND_WIDTH: Final = 12
INSERT_WIDTH: Final = 10
UPSERT_WIDTH: Final = 48
DELETE_WIDTH: Final = 50
"""Requests of one operation that are under way at once."""

MOSTLY: Final = 0.75
"""From this share of existing keys on, upserts alone are faster than inserts and then upserts (measured: over 0.5)."""

PROBES: Final = 2 * UPSERT_WIDTH
"""Upserts that tell whether the others of a batch should be upserts, too."""

ADMIN_TIMEOUT_S: Final = 120.0
"""Seconds for creating or dropping a collection: on Apache Cassandra creation takes 10 s and more (measured)."""

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
        self._existing_share = 0.0
        """Of the last batch of more than FEW_KEYS keys."""

    # -- reading ------------------------------------------------------------------------------------------------

    async def get(self, call: Call, keys: Sequence[str]) -> list[Stored | None]:
        """Return the document of each key, in order."""
        found: dict[Any, Stored] = {}

        async def fetch(chunk: Sequence[str]) -> None:
            state: str | None = None
            while True:
                page = await self._send(call, commands.find_keys(chunk, state), commands.read_page)
                found.update((key, document) for key, document in page.items if isinstance(key, str))
                state = _next_state(page, state)
                if state is None:
                    return

        await _each(fetch, _chunks(keys, limits.IN_MAX), FIND_WIDTH)
        return [found.get(key) for key in keys]

    async def pages(self, call: Call, prefix: str, *, values: bool) -> AsyncGenerator[list[Any] | None, None]:
        """Yield pages of keys, or of (key, document), that are not empty; the next page comes while the consumer works.

        None is yielded where the token was refused: the consumer, in whose thread the token's source is to be
        called, renews the call's token and goes on, or does not and raises.
        """
        state: str | None = None
        skipped = 0
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
                if state is not None:
                    ahead = asyncio.create_task(self._page(call, state, values))
                texts = [item for item in page.items if isinstance(item[0], str)]
                if len(texts) < len(page.items) and not skipped:
                    self._log_other_ids()
                skipped += len(page.items) - len(texts)
                chosen = [item for item in texts if item[0].startswith(prefix)] if prefix else texts
                if chosen:
                    yield chosen if values else [key for key, _ in chosen]
                if state is None:
                    return
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
        outcome = _Outcome.of(call, [key for key, _ in records])
        left = outcome.begin()
        if left is not None:
            records = [record for record in records if record[0] in left]
        if len(records) <= limits.FEW_KEYS:
            await self._upsert(call, records, outcome)
        else:
            existing = await self._put_many(call, records, outcome)
            if outcome.stop is None:
                self._existing_share = existing / len(records)
        outcome.settle("stored")

    async def _put_many(self, call: Call, records: Sequence[Record], outcome: _Outcome) -> int:
        """Store the records by whichever way is the faster one; return how many keys existed.

        An insert in vain costs a hundredth of the requests that must follow; upserting what is new costs a hundred
        times as many as inserting it. So inserts need no trial, and upserts have one.
        """
        existing = 0
        if self._existing_share > MOSTLY:
            first, records = records[:PROBES], records[PROBES:]
            existing = await self._upsert(call, first, outcome)
            if existing > MOSTLY * len(first):
                return existing + await self._upsert(call, records, outcome)
        return existing + await self._insert(call, list(commands.split_by_size(records)), outcome)

    async def _insert(self, call: Call, chunks: list[Sequence[Record]], outcome: _Outcome) -> int:
        """Insert, and replace at once what was there already; return how many that were."""
        tried = existing = 0
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

        await _each(insert, chunks, INSERT_WIDTH)
        return existing

    async def _upsert(self, call: Call, records: Sequence[Record], outcome: _Outcome, width: int = UPSERT_WIDTH) -> int:
        """Store each record on its own; return how many keys existed."""
        existing = 0

        async def upsert(record: Record) -> None:
            nonlocal existing
            if outcome.is_stopped([record[0]]):
                return
            try:
                existed = await self._send(call, commands.upsert(record), commands.read_replaced)
            except StoreError as error:
                outcome.fail([record[0]], error)
            else:
                existing += existed  # not in one statement with the await, which would count from before it

        await _each(upsert, records, width)
        return existing

    async def delete(self, call: Call, keys: Sequence[str]) -> None:
        """Delete the keys' documents."""
        outcome = _Outcome.of(call, keys)
        left = outcome.begin()
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

        await _each(remove, _chunks(keys, limits.DELETE_MANY_MAX), DELETE_WIDTH)
        outcome.settle("deleted")

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
        found = await self._settings(call)
        if found is not None:
            return found
        try:
            await self._admin(call, commands.create_collection(self._collection))
        except CollectionConflictError:  # another process was faster
            found = await self._settings(call)
            if found is None:
                raise
        return found

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
        read: Callable[[int, bytes, str], T],
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
                reply = await pool.post(target, command.body, self._request_headers(call), one)
                return read(reply.status, reply.body, what)
            except StoreError as error:
                _hide(error, call.token)
                if on_doubt is not None and error.applied is None:
                    on_doubt()
                raise

        return await call.persist(attempt, pool.flow(), timeout_s=timeout_s)

    def _request_headers(self, call: Call) -> Mapping[str, str]:
        return self._headers if call.token is None else {**self._headers, "Token": call.token}


class _Outcome:
    """What became of each key of a batch of writes.

    Attributes:
        stop: an error that concerns the whole operation: what was not sent yet is not to be sent.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.stop: StoreError | None = None
        self._keys = keys
        self._errors: dict[str, StoreError] = {}
        self._unsent: set[str] = set()
        self._doubtful: set[str] = set()

    @classmethod
    def of(cls, call: Call, keys: Sequence[str]) -> _Outcome:
        """Return the outcome of a call, which goes on where the call is run again with another token."""
        if call.outcome is None:
            call.outcome = cls(keys)
        outcome: _Outcome = call.outcome
        return outcome

    def begin(self) -> Collection[str] | None:
        """Return the keys that are left to do in a second run, those that failed; None: all of them."""
        if not self._errors:
            return None
        left = self._errors
        self.doubt(key for key in left if not self._is_unwritten(key))
        self.stop, self._errors, self._unsent = None, {}, set()
        return left

    def doubt(self, keys: Iterable[str]) -> None:
        """Note that a request may have written the keys, whatever the answer to the next one says."""
        self._doubtful.update(keys)

    def fail(self, keys: Iterable[str], error: StoreError) -> None:
        """Note that the keys were not, or may not have been, written."""
        self._errors.update(dict.fromkeys(keys, error))
        concerns_all = isinstance(error, TransportError | StoreClosedError | AuthError) or (
            isinstance(error, DataAPIError) and error.scope == "SCHEMA"
        )
        if concerns_all and self.stop is None:
            self.stop = error

    def is_stopped(self, keys: Sequence[str]) -> bool:
        """Tell whether nothing more is to be sent, and if so note the keys as unwritten."""
        if self.stop is None:
            return False
        self._errors.update(dict.fromkeys(keys, self.stop))
        self._unsent.update(keys)
        return True

    def _is_unwritten(self, key: str) -> bool:
        return (key in self._unsent or self._errors[key].applied is False) and key not in self._doubtful

    def settle(self, done: str) -> None:
        """Raise the error that the whole batch failed for, or one that names each key's; every request has ended."""
        if not self._errors:
            return
        unwritten: list[str] = []
        unknown: list[str] = []
        for key in self._errors:
            (unwritten if self._is_unwritten(key) else unknown).append(key)
        reasons = {(type(error), getattr(error, "code", "")) for error in self._errors.values()}
        first = next(iter(self._errors.values()))
        if len(self._errors) == len(self._keys) and len(reasons) == 1 and not (unwritten and unknown):
            first.applied = None if unknown else False
            raise first
        names = ", ".join(shown(key) for key in list(self._errors)[:3])
        raise PartialWriteError(
            f"{len(self._keys) - len(self._errors)} of {len(self._keys)} keys were {done}; the others"
            f" ({names}{', ...' if len(self._errors) > 3 else ''}) failed, the first with: {first} See .written,"
            " .unwritten, .unknown and .errors; repeating the call is safe.",
            written=tuple(key for key in self._keys if key not in self._errors),
            unwritten=tuple(unwritten),
            unknown=tuple(unknown),
            errors=self._errors,
        )


async def _each(job: Callable[[T], Awaitable[None]], items: Sequence[T], width: int) -> None:
    """Run ``job`` on each item, at most ``width`` at once. The first exception ends the others before it is raised."""
    if len(items) == 1:
        await job(items[0])
        return
    left = iter(items)

    async def work() -> None:
        for item in left:
            await job(item)

    failure: BaseException
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(width, len(items))):
                group.create_task(work())
        return
    except BaseExceptionGroup as caught:
        failure = caught.exceptions[0]
    raise failure


async def _abandon(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # seen


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
