"""The backends over a SQL database, by SQLAlchemy: one for an ``Engine``, one for an ``AsyncEngine``.

Each verb is a transaction of its own, or one statement, so a batch is stored whole or not at all. Coroutines over an
``Engine`` run on threads aside, each with a connection of the pool; plain calls over an ``AsyncEngine`` run on the
event loop that it is used on, or on the loop thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from langchain_kv.backends.at_home import AtHomeBackend
from langchain_kv.backends.base import Change, Merge, Page, Record, Stored, SyncBackend
from langchain_kv.backends.sql_driver import DirectEngine
from langchain_kv.backends.sql_engines import in_transactions, is_autocommit, refuse_autocommit, turns
from langchain_kv.backends.sql_errors import TRANSLATED, TRIES, Try, raised_for
from langchain_kv.backends.sql_rows import Rows
from langchain_kv.engines.base import Ending
from langchain_kv.engines.os_errors import require_folder
from langchain_kv.errors import (
    EngineError,
    StoreClosedError,
)
from langchain_kv.runtime import loop_thread
from langchain_kv.runtime.forks import renew_in_child
from langchain_kv.runtime.halfway import Halfway
from langchain_kv.runtime.work_queue import AsideBridge, Bridge, InlineBridge

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["AsyncSQLBackend", "SQLBackend"]

T = TypeVar("T")

_Work = Callable[..., T]


def _file_of(engine: Engine) -> str | None:
    """Return the path of the file of SQLite that an engine reaches; None where it is none."""
    name = engine.url.database if engine.dialect.name == "sqlite" else None
    return None if not name or name.startswith((":memory:", "file:")) else name


def _require_file(path: str | None, rows: Rows, work: Callable[..., object]) -> None:
    """Refuse what only making the table may do: SQLite makes a file that is missing, whatever is asked of it."""
    if path is not None and work != rows.create and not os.path.exists(path):
        raise rows.missing()


def _bare_options(dialect: str, owned: bool) -> dict[str, str]:
    """Return how a verb is carried out that is one statement, which is whole without a transaction around it.

    On PostgreSQL that spares two of three round trips. Elsewhere such a verb may be several statements, or what begins
    and ends a transaction is sent all the same; and a user's engine may have something hung on its transactions.
    """
    return {"isolation_level": "AUTOCOMMIT"} if owned and dialect == "postgresql" else {}


class SQLBackend(SyncBackend):
    """Keeps records in a table of a database, by an ``Engine``.

    Args:
        engine: how to reach it.
        rows: the statements.
        shown: the place, in messages.
        owned: whether the engine is ours, and so closed here.
        direct: whether what is one statement goes by the driver itself, which is psycopg; of an engine of ours only,
            because nothing that is hung on an engine sees it.
    """

    can_update = True
    allows_empty_key = True
    in_key_order = True

    def __init__(self, engine: Engine, rows: Rows, shown: str, *, owned: bool, direct: bool = False) -> None:
        refuse_autocommit(engine)
        self._engine = engine
        self._has_looked = False
        self._bare = engine.execution_options(**_bare_options(engine.dialect.name, owned))
        self._at_once: Engine | DirectEngine = DirectEngine(engine) if direct else self._bare
        self._rows = rows
        self._shown = shown
        self._file = _file_of(engine)
        self._own_file = self._file if owned else None
        self._owned = owned
        self._closed = False
        if owned:
            renew_in_child(self)

    def _after_fork_in_child(self) -> None:
        self._engine.dispose(close=False)  # the parent goes on using its connections

    def __repr__(self) -> str:
        return self._shown

    @property
    def key_max_bytes(self) -> int:
        """How many bytes of UTF-8 a key may take."""
        return self._rows.key_max_bytes

    @cached_property
    def bridge(self) -> Bridge:
        """The way in for coroutines. One connection, which is a database in memory, is used where it is."""
        return InlineBridge() if isinstance(self._engine.pool, SingletonThreadPool | StaticPool) else AsideBridge()

    def _do(self, work: _Work[T], *args: Any) -> T:
        return self._transaction(self._engine, work, *args)

    def _do_bare(self, work: _Work[T], *args: Any) -> T:
        """As ``_do``, for what is one statement on PostgreSQL, or several that may see different states."""
        return self._transaction(self._bare, work, *args)

    def _do_at_once(self, work: _Work[T], *args: Any) -> T:
        """As ``_do_bare``, for what the driver carries out itself."""
        return self._transaction(self._at_once, work, *args)

    def _transaction(self, engine: Engine | DirectEngine, work: _Work[T], *args: Any) -> T:
        if self._closed:
            raise StoreClosedError(f"The store on {self._shown} was closed: open a new one.")
        _require_file(self._own_file, self._rows, work)
        this = Try(work.__name__, self._file)
        for _ in range(TRIES):
            this.begin()
            try:
                with turns.of(self._engine), engine.begin() as connection:
                    this.since = time.monotonic()
                    if engine is self._engine and not self._has_looked:
                        if is_autocommit(connection):
                            self._engine = engine = in_transactions(engine)
                            continue
                        self._has_looked = True
                    answer = work(connection, *args)
                    this.is_ending = True
                return answer
            except TRANSLATED as error:
                raised = raised_for(error, self._rows, self._shown, this)
            if raised is not None:
                raise raised
        raise AssertionError  # the last try raises

    # -- the verbs ----------------------------------------------------------------------------------------------------

    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return self._do_at_once(self._rows.get, keys)

    def put_many(self, records: Sequence[Record]) -> None:
        do = self._do_at_once if self._rows.is_put_at_once(records) else self._do
        do(self._rows.put, records)

    def check_many(self, records: Sequence[Record]) -> None:
        self._do(self._rows.check, records)

    def check_writable(self) -> None:
        if self._own_file is not None:
            require_folder(self._own_file)

    def delete_many(self, keys: Sequence[str]) -> None:
        self._do_at_once(self._rows.delete, keys)

    def scan(self, prefix: str, *, values: bool) -> Generator[Page]:
        return self._pages(prefix, None, values)

    def scan_after(self, prefix: str, after: str) -> Generator[Page]:
        return self._pages(prefix, after, True)

    def _pages(self, prefix: str, after: str | None, values: bool) -> Generator[Page]:
        while True:
            page, after = self._do_bare(self._rows.page, prefix, after, values)
            yield page
            if after is None:
                return

    def add_many(self, records: Sequence[Record]) -> list[bool]:
        return self._do(self._rows.add, records)

    def update(self, key: str, change: Change) -> None:
        self._do(self._rows.update, key, change)

    def merge_many(self, records: Sequence[Record], merge: Merge) -> None:
        ending = self._rows.ending_of(records, merge) if len(records) == 1 else None
        if ending is None or not self._do_at_once(self._rows.merge_at_once, records, ending):
            self._do(self._rows.merge, records, merge)

    def touch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        self._do_bare(self._rows.touch, keys, expires_at_ms)

    def keys_by_ending(self, tree: str, ending: Ending, limit: int | None) -> list[str] | None:
        return self._do_bare(self._rows.keys_by_ending, tree, ending, limit)

    async def akeys_by_ending(self, tree: str, ending: Ending, limit: int | None) -> list[str] | None:
        return await self.bridge.read(self.keys_by_ending, tree, ending, limit)

    def count(self, prefix: str) -> int:
        return self._do_bare(self._rows.count, prefix)

    async def acount(self, prefix: str) -> int:
        return await self.bridge.read(self.count, prefix)

    def clear(self, prefix: str) -> None:
        self._do_bare(self._rows.clear, prefix)

    def purge(self) -> int:
        removed = 0
        with Halfway() as halfway:
            while some := self._do(self._rows.purge):
                removed += some
                halfway.has_changed = True
        return removed

    # -- life ---------------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Return the namespaces that the table has rows of: "KEYSPACE.COLLECTION"."""
        return self._do_bare(self._rows.names)

    def open(self, *, clear: bool = False) -> None:
        self.check_writable()
        try:
            self._do(self._rows.create)
        except EngineError:  # another process may have made it at the same time
            self._do(self._rows.check_table)
        self._do(self._rows.check_table)
        if clear:
            self.clear("")

    def close(self) -> None:
        self._closed = True
        super().close()
        if self._owned:
            self._engine.dispose()


class AsyncSQLBackend(AtHomeBackend):
    """As ``SQLBackend``, by an ``AsyncEngine``, whose connections belong to the event loop that they are used on.

    Ours is used on the loop thread. A user's is used on the loop that uses it first, as long as that runs.
    """

    can_update = True
    allows_empty_key = True

    def __init__(self, engine: AsyncEngine, rows: Rows, shown: str, *, owned: bool) -> None:
        super().__init__(engine, owned=owned, moves=True)
        refuse_autocommit(engine)
        self._engine = engine
        self._has_looked = False
        self._bare = engine.execution_options(**_bare_options(engine.dialect.name, owned))
        self._rows = rows
        self._shown = shown
        self._file = _file_of(engine.sync_engine)
        self._own_file = self._file if owned else None
        self._closed = False
        if owned:
            renew_in_child(self)

    def _after_fork_in_child(self) -> None:
        self._engine.sync_engine.dispose(close=False)

    def __repr__(self) -> str:
        return self._shown

    @property
    def key_max_bytes(self) -> int:
        """How many bytes of UTF-8 a key may take."""
        return self._rows.key_max_bytes

    async def _do(self, work: _Work[T], *args: Any) -> T:
        return await self._on(self._engine, work, *args)

    async def _do_bare(self, work: _Work[T], *args: Any) -> T:
        """As of ``SQLBackend``."""
        return await self._on(self._bare, work, *args)

    async def _on(self, engine: AsyncEngine, work: _Work[T], *args: Any) -> T:
        if self._closed:
            raise StoreClosedError(f"The store on {self._shown} was closed: open a new one.")
        return await self._at_home(partial(self._transaction, engine, work, *args))

    def names(self) -> list[str]:
        """As of ``SQLBackend``."""
        return loop_thread.run(self._do_bare(self._rows.names))

    async def _transaction(self, engine: AsyncEngine, work: _Work[T], *args: Any) -> T:
        _require_file(self._own_file, self._rows, work)
        this = Try(work.__name__, self._file)
        for _ in range(TRIES):
            this.begin()
            try:
                async with turns.aof(engine), engine.begin() as connection:
                    this.since = time.monotonic()
                    if engine is self._engine and not self._has_looked:
                        if await connection.run_sync(is_autocommit):
                            self._engine = engine = in_transactions(engine)
                            continue
                        self._has_looked = True
                    answer = await connection.run_sync(work, *args)
                    this.is_ending = True
                return answer
            except TRANSLATED as error:
                raised = raised_for(error, self._rows, self._shown, this)
            if raised is not None:
                raise raised
        raise AssertionError  # the last try raises

    # -- the verbs ----------------------------------------------------------------------------------------------------

    async def aget_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return await self._do_bare(self._rows.get, keys)

    async def aput_many(self, records: Sequence[Record]) -> None:
        do = self._do_bare if self._rows.is_put_at_once(records) else self._do
        await do(self._rows.put, records)

    def check_many(self, records: Sequence[Record]) -> None:
        loop_thread.run(self._do(self._rows.check, records))

    def check_writable(self) -> None:
        if self._own_file is not None:
            require_folder(self._own_file)

    async def adelete_many(self, keys: Sequence[str]) -> None:
        await self._do_bare(self._rows.delete, keys)

    async def ascan(self, prefix: str, *, values: bool) -> AsyncGenerator[Page]:
        after: str | None = None
        while True:
            page, after = await self._do_bare(self._rows.page, prefix, after, values)
            yield page
            if after is None:
                return

    async def aadd_many(self, records: Sequence[Record]) -> list[bool]:
        return await self._do(self._rows.add, records)

    async def aupdate(self, key: str, change: Change) -> None:
        await self._do(self._rows.update, key, change)

    async def amerge_many(self, records: Sequence[Record], merge: Merge) -> None:
        ending = self._rows.ending_of(records, merge) if len(records) == 1 else None
        if ending is None or not await self._do_bare(self._rows.merge_at_once, records, ending):
            await self._do(self._rows.merge, records, merge)

    async def atouch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        await self._do_bare(self._rows.touch, keys, expires_at_ms)

    def keys_by_ending(self, tree: str, ending: Ending, limit: int | None) -> list[str] | None:
        return self._run(self.akeys_by_ending(tree, ending, limit))

    async def akeys_by_ending(self, tree: str, ending: Ending, limit: int | None) -> list[str] | None:
        if limit is None:  # as many as there are would hold up the loop; a scan gives it its turns
            return None
        return await self._do_bare(self._rows.keys_by_ending, tree, ending, limit)

    async def acount(self, prefix: str) -> int:
        return await self._do_bare(self._rows.count, prefix)

    async def aclear(self, prefix: str) -> None:
        await self._do_bare(self._rows.clear, prefix)

    async def apurge(self) -> int:
        removed = 0
        with Halfway() as halfway:
            while some := await self._do(self._rows.purge):
                removed += some
                halfway.has_changed = True
        return removed

    # -- life ---------------------------------------------------------------------------------------------------------

    async def aopen(self, *, clear: bool = False) -> None:
        self.check_writable()
        try:
            await self._do(self._rows.create)
        except EngineError:  # another process may have made it at the same time
            await self._do(self._rows.check_table)
        await self._do(self._rows.check_table)
        if clear:
            await self.aclear("")

    async def aclose(self) -> None:
        closed, self._closed = self._closed, True
        if self._owned and not closed:
            await self._at_home(self._engine.dispose)
