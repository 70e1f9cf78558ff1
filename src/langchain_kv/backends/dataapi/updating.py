"""Changing one document in one step with reading it, in collections whose documents have a version.

A change is sent on the condition that the version is still the one that was read, and leaves a new one. So a change
that is repeated after its answer was lost finds its own version, and one that another client overtook finds none.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Final

from langchain_kv.backends.base import Change, Damaged, Found, Record, is_alive
from langchain_kv.backends.collections import VERSION, CollectionForm
from langchain_kv.backends.dataapi import commands, replies
from langchain_kv.backends.dataapi.commands import Command, VersionFilter
from langchain_kv.backends.dataapi.flow import each
from langchain_kv.backends.dataapi.replies import Versioned
from langchain_kv.backends.dataapi.retry import Call
from langchain_kv.backends.dataapi.sending import hide_token
from langchain_kv.backends.dataapi.verbs import FIND_WIDTH, Verbs
from langchain_kv.backends.documents import in_form, new_version
from langchain_kv.errors import DataAPIError, PartialWriteError, StoreError
from langchain_kv.runtime.clock import now_ms
from langchain_kv.values.keys import shown

__all__ = ["touch", "update"]

OVERTAKEN_S: Final = 20.0
"""Seconds that a change is tried while other writers are faster."""

FIRST_PAUSE_S: Final = 0.005
PAUSE_MAX_S: Final = 0.5
"""The longest wait before the first try after a lost one, and before any; each is random below its limit."""

REFUSED: Final = frozenset({"INVALID_DATABASE_QUERY", "UNSUPPORTED_DATABASE_QUERY"})
"""What a service on Apache Cassandra answers to a filter by the ``_id`` and another field. By the version alone it
finds the document, too, as no other has it. Where it was overtaken then, it reads again by both, and answers the same.
"""


async def update(verbs: Verbs, call: Call, key: str, change: Change, form: CollectionForm) -> None:
    """Change one key as ``change`` says of what is stored of it.

    Raises:
        DataAPIError: FAILED_CONCURRENT_OPERATIONS, where others were faster all the time.
        PartialWriteError: an answer was lost, and another client has written since: ``unknown`` has the key.
    """
    if call.outcome is None:  # else the call is run again with another token, and goes on
        call.outcome = _Update(verbs, call, key, change, form)
    await call.outcome.run()


async def touch(verbs: Verbs, call: Call, keys: Sequence[str], expires_at_ms: int) -> None:
    """Have those of the keys that expire sooner expire at this moment; what others write meanwhile stays theirs."""

    async def postpone(key: str) -> None:
        found = await verbs.send(call, commands.find_one(key, values=False), replies.parse_versioned)
        stored = found.stored
        if not isinstance(stored, Found) or stored.expires_at_ms is None or found.version is None:
            return
        if now_ms() < stored.expires_at_ms < expires_at_ms:
            changed = partial(commands.postpone, expires_at_ms=expires_at_ms, new_version=new_version())
            await _change_version(verbs, call, key, found.version, changed)

    await each(postpone, keys, FIND_WIDTH)


class _Update:
    def __init__(self, verbs: Verbs, call: Call, key: str, change: Change, form: CollectionForm) -> None:
        self._verbs = verbs
        self._call = call
        self._key = key
        self._change = change
        self._form = form
        self._own: set[str] = set()  # the versions that its tries would leave
        self._has_removed = False  # or may have
        self._seen: Versioned | None = None  # before the last try
        self._in_doubt = False  # whether a try that failed may have been, or may still be, carried out

    async def run(self) -> None:
        end = monotonic() + OVERTAKEN_S
        pause_s = FIRST_PAUSE_S
        try:
            while not await self._step():
                if monotonic() > end:
                    raise _overtaken(self._key)
                await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311 - spreads clients, protects nothing
                pause_s = min(2 * pause_s, PAUSE_MAX_S)
        except StoreError as error:
            if self._in_doubt:
                error.applied = None
            raise

    async def _step(self) -> bool:
        """Try once; return whether the change is made, by this try or one before."""
        found = await self._find()
        if found.version in self._own or (self._has_removed and self._in_doubt and found.stored is None):
            return True
        if self._in_doubt and self._seen is not None and found.version != self._seen.version:
            raise _unknown(self._key)
        self._seen = found
        return await self._try(found)

    async def _find(self) -> Versioned:
        return await self._verbs.send(self._call, commands.find_one(self._key), replies.parse_versioned)

    async def _try(self, found: Versioned) -> bool:
        """Make the change of what was found; return whether it is made for sure."""
        if found.stored is not None and found.version is None and not isinstance(found.stored, Damaged):
            version = new_version()  # others wrote it
            await self._verbs.send(self._call, commands.give_version(self._key, version), replies.parse_status)
            return False
        is_there = found.stored is not None and is_alive(found.stored, now_ms())
        record = self._change(found.stored if is_there else None)
        if found.version is None:
            return record is None or await self._insert(record)
        if record is None:
            self._has_removed = True
            return await self._change_version(found.version, commands.delete_version)
        version, document = self._written(record)
        self._own.add(version)
        return await self._change_version(found.version, partial(commands.replace_version, document=document))

    def _written(self, record: Record) -> tuple[str, bytes]:
        version = new_version()
        return version, in_form(record, self._form, version)

    async def _insert(self, record: Record) -> bool:
        version, document = self._written(record)
        self._own.add(version)
        inserted = await self._verbs.send(
            self._call,
            commands.insert_many([(self._key, document)]),
            partial(replies.parse_inserted, keys=[self._key], must_go_on=True),
            on_doubt=self._doubt,
        )
        for error in inserted.failed.values():
            hide_token(error, self._call.token)
            raise error
        return not inserted.existing

    async def _change_version(self, version: str, command: Callable[[VersionFilter], Command]) -> bool:
        return await _change_version(self._verbs, self._call, self._key, version, command, on_doubt=self._doubt)

    def _doubt(self) -> None:
        self._in_doubt = True


async def _change_version(
    verbs: Verbs,
    call: Call,
    key: str,
    version: str,
    command: Callable[[VersionFilter], Command],
    *,
    on_doubt: Callable[[], None] | None = None,
) -> bool:
    """Send a change of the document of a version; return whether that was there."""
    while True:
        wanted = {VERSION: version} if verbs.by_version_alone else {"_id": key, VERSION: version}
        try:
            return await verbs.send(call, command(wanted), replies.parse_changed, on_doubt=on_doubt)
        except DataAPIError as error:
            if error.code not in REFUSED:
                raise
        if verbs.by_version_alone:
            return False
        verbs.by_version_alone = True


def _overtaken(key: str) -> DataAPIError:
    error = DataAPIError.of(
        "FAILED_CONCURRENT_OPERATIONS",
        f"The update of key {shown(key)} was overtaken by other writers for {OVERTAKEN_S:.0f} s: try again, or have"
        " fewer of them change one key.",
    )
    error.applied = False
    return error


def _unknown(key: str) -> PartialWriteError:
    error = StoreError("its answer was lost, and another client has written the key since")
    error.applied = None
    return PartialWriteError(
        f"The update of key {shown(key)} may have been made or not: {error}. Read the key to see what it holds.",
        unknown=(key,),
        errors={key: error},
    )
