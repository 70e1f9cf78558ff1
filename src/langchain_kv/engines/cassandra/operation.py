"""One operation on a cluster: what it sends, and how long it goes on."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.cassandra.cluster import Batch, Outcome, Session, Statement
from langchain_kv.engines.cassandra.tables import Table
from langchain_kv.errors import StoreError
from langchain_kv.runtime.work_queue import run_aside

__all__ = ["Operation"]

T = TypeVar("T")

FIRST_DELAY_S: Final = 0.1
"""Half the longest wait before the first retry; it doubles with each try. The wait is random below it (full jitter)."""

DELAY_MAX_S: Final = 1.0
"""The longest wait between two tries: a statement for nodes that are known to be down costs nobody anything."""

_log = logging.getLogger("langchain_kv")


class Operation:
    """One operation on its way. It goes on for so long without any success: each one begins the deadline anew, as over
    HTTP.

    Args:
        session: the connection.
        collection: what it is about; None for no collection.

    Attributes:
        session: the connection.
        table: the collection's, once it is known.
    """

    table: Table

    def __init__(self, session: Session, collection: CollectionName | None) -> None:
        self.session = session
        self._collection = collection
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._end = time.monotonic() + self.session.settings.deadline_s

    async def outcomes(self, batch: Batch) -> list[Outcome]:
        """Run statements; return what came of each, in order."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not done.done():
                done.set_result(None)

        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
                loop.call_soon_threadsafe(settle)

        began = time.monotonic()
        window = self.session.window(batch, self._collection, wake)
        try:
            window.send()
            await done
        except BaseException:
            window.stop()
            raise
        outcomes = window.taken()
        if _log.isEnabledFor(logging.DEBUG):
            self._log_statements(batch, outcomes, time.monotonic() - began)
        if not outcomes or any(not isinstance(outcome, StoreError) for outcome in outcomes):
            self._begin_anew()
        return outcomes

    async def statement(self, name: str, tag: int = 0) -> Statement:
        """Return a prepared statement on the table; ``upsert`` and ``insert`` depend on the type of the ``_id``."""
        table = self.table
        known = f"{name}{tag}" if name in ("upsert", "insert") and table.indexes_only_id else name
        if known not in table.prepared:
            table.prepared[known] = await self.call(lambda: table.prepare(name, tag))
        return table.prepared[known]

    async def call(self, call: Callable[[], T]) -> T:
        """Call, in a thread, what blocks and may be repeated, again where it fails in passing, until the deadline."""
        is_uncertain = False
        for tries in itertools.count():
            try:
                result = await run_aside(call, "langchain-kv cassandra")
            except StoreError as error:
                _log.debug("a statement on %s: %s, try %d", self._name, type(error).__name__, tries + 1)
                is_uncertain = is_uncertain or error.applied is None
                if is_uncertain:
                    error.applied = None  # an earlier try may have changed something, whatever the last one says
                if not error.retryable or not await self.may_try_again(tries):
                    raise
            else:
                self._begin_anew()
                return result
        raise AssertionError("it tries for ever")

    async def may_try_again(self, tries: int) -> bool:
        """Wait before another try; return False, without waiting, where the deadline ends first.

        Args:
            tries: how many there were before the last one; the wait grows with them.
        """
        most_s = min(DELAY_MAX_S, FIRST_DELAY_S * 2.0 ** min(tries + 1, 16))
        delay_s = random.uniform(0, most_s)  # noqa: S311 - spreads clients, protects nothing
        if self.session.is_ending or time.monotonic() + delay_s >= self._end:
            return False
        _log.debug("%s: tried again in %.0f ms, after %d tries", self._name, delay_s * 1_000, tries + 1)
        await asyncio.sleep(delay_s)
        return True

    @property
    def _name(self) -> str:
        return "the cluster" if self._collection is None else ".".join(self._collection)

    def _log_statements(self, batch: Batch, outcomes: list[Outcome], took_s: float) -> None:
        """Say what a batch came to: numbers, and the classes of errors, never a key or a value."""
        failed = [type(outcome).__name__ for outcome in outcomes if isinstance(outcome, StoreError)]
        _log.debug(
            "%d %s statements on %s: %.1f ms, %d failed%s",
            len(outcomes),
            batch.manner,
            self._name,
            took_s * 1_000,
            len(failed),
            f" ({', '.join(sorted(set(failed)))})" if failed else "",
        )
