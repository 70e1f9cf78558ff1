"""The backends over a SQL database, by SQLAlchemy: one for an ``Engine``, one for an ``AsyncEngine``.

Each verb is a transaction of its own, or one statement, so a batch is stored whole or not at all. Coroutines over an
``Engine`` run on threads aside, each with a connection of the pool; plain calls over an ``AsyncEngine`` run on the
event loop that it is used on, or on the loop thread.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import Engine, exc
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from langchain_kv.backends.at_home import AtHomeBackend
from langchain_kv.backends.base import Change, Merge, Page, Record, Stored, SyncBackend
from langchain_kv.backends.sql_engines import in_transactions, turns
from langchain_kv.backends.sql_rows import ChangeError, RacedError, Rows
from langchain_kv.errors import (
    ConnectError,
    DataAPIError,
    EngineError,
    InvalidKeyError,
    StoreClosedError,
    StoreError,
    TransportError,
)
from langchain_kv.runtime import loop_thread
from langchain_kv.runtime.forks import renew_in_child
from langchain_kv.runtime.work_queue import AsideBridge, Bridge, InlineBridge

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["AsyncSQLBackend", "SQLBackend"]

T = TypeVar("T")

TRIES: Final = 20
"""How often a transaction is run that others win against; each time one of them went on."""

LOCKED_S: Final = 0.1
"""How long a transaction that was refused a lock has waited for it, at least; less is a race that was lost."""

# What databases say: SQLSTATEs, and numbers of MySQL.
_RACED: Final[set[object]] = {"40001", "40P01", 1020, 1213}
_LOCKED: Final[set[object]] = {"55P03", 1205}
# What a transaction may be told by, where its connection broke.
_READS: Final = ("get", "page", "count", "names", "check_table")
_ONCE: Final = ("add", "update", "merge")
_NO_TABLE: Final[set[object]] = {"42P01", 1146}
_TOO_LONG: Final[set[object]] = {"54000"}
_NO_ENTRY: Final[set[object]] = {"28P01", "28000", 1044, 1045, 1698}

_Work = Callable[..., T]


def _bare_options(dialect: str, owned: bool) -> dict[str, str]:
    """Return how a verb is carried out that is one statement, which is whole without a transaction around it.

    On PostgreSQL that spares two of four round trips. Elsewhere such a verb may be several statements, or what begins
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
    """

    can_update = True
    allows_empty_key = True
    in_key_order = True

    def __init__(self, engine: Engine, rows: Rows, shown: str, *, owned: bool) -> None:
        self._engine = engine = in_transactions(engine)
        self._bare = engine.execution_options(**_bare_options(engine.dialect.name, owned))
        self._rows = rows
        self._shown = shown
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

    def _transaction(self, engine: Engine, work: _Work[T], *args: Any) -> T:
        if self._closed:
            raise StoreClosedError(f"The store on {self._shown} was closed: open a new one.")
        for tried in range(1, TRIES + 1):
            this = _Try(work.__name__, tried)
            try:
                with turns.of(engine), engine.begin() as connection:
                    this.since = time.monotonic()
                    answer = work(connection, *args)
                    this.is_ending = True
                return answer
            except (SQLAlchemyError, OSError, RacedError, ChangeError) as error:
                raised = _raised(error, self._rows, self._shown, this)
            if raised is not None:
                raise raised
        raise AssertionError  # the last try raises

    # -- the verbs ----------------------------------------------------------------------------------------------------

    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return self._transaction(self._bare, self._rows.get, keys)

    def put_many(self, records: Sequence[Record]) -> None:
        self._transaction(self._bare if len(records) == 1 else self._engine, self._rows.put, records)

    def delete_many(self, keys: Sequence[str]) -> None:
        self._transaction(self._bare, self._rows.delete, keys)

    def scan(self, prefix: str, *, values: bool) -> Generator[Page]:
        return self._pages(prefix, None, values)

    def scan_after(self, prefix: str, after: str) -> Generator[Page]:
        return self._pages(prefix, after, True)

    def _pages(self, prefix: str, after: str | None, values: bool) -> Generator[Page]:
        while True:
            page, after = self._do(self._rows.page, prefix, after, values)
            yield page
            if after is None:
                return

    def add_many(self, records: Sequence[Record]) -> list[bool]:
        return self._do(self._rows.add, records)

    def update(self, key: str, change: Change) -> None:
        self._do(self._rows.update, key, change)

    def merge_many(self, records: Sequence[Record], merge: Merge) -> None:
        self._do(self._rows.merge, records, merge)

    def touch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        self._do(self._rows.touch, keys, expires_at_ms)

    def count(self, prefix: str) -> int:
        return self._do(self._rows.count, prefix)

    async def acount(self, prefix: str) -> int:
        return await self.bridge.read(self.count, prefix)

    def clear(self, prefix: str) -> None:
        self._do(self._rows.clear, prefix)

    def purge(self) -> int:
        removed = 0
        while some := self._do(self._rows.purge):
            removed += some
        return removed

    # -- life ---------------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Return the namespaces that the table has rows of: "KEYSPACE.COLLECTION"."""
        return self._do(self._rows.names)

    def open(self, *, clear: bool = False) -> None:
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
        self._engine = engine = in_transactions(engine)
        self._bare = engine.execution_options(**_bare_options(engine.dialect.name, owned))
        self._rows = rows
        self._shown = shown
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

    async def _on(self, engine: AsyncEngine, work: _Work[T], *args: Any) -> T:
        if self._closed:
            raise StoreClosedError(f"The store on {self._shown} was closed: open a new one.")
        return await self._at_home(partial(self._transaction, engine, work, *args))

    def names(self) -> list[str]:
        """As of ``SQLBackend``."""
        return loop_thread.run(self._do(self._rows.names))

    async def _transaction(self, engine: AsyncEngine, work: _Work[T], *args: Any) -> T:
        for tried in range(1, TRIES + 1):
            this = _Try(work.__name__, tried)
            try:
                async with turns.aof(engine), engine.begin() as connection:
                    this.since = time.monotonic()
                    answer = await connection.run_sync(work, *args)
                    this.is_ending = True
                return answer
            except (SQLAlchemyError, OSError, RacedError, ChangeError) as error:
                raised = _raised(error, self._rows, self._shown, this)
            if raised is not None:
                raise raised
        raise AssertionError  # the last try raises

    # -- the verbs ----------------------------------------------------------------------------------------------------

    async def aget_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return await self._on(self._bare, self._rows.get, keys)

    async def aput_many(self, records: Sequence[Record]) -> None:
        await self._on(self._bare if len(records) == 1 else self._engine, self._rows.put, records)

    async def adelete_many(self, keys: Sequence[str]) -> None:
        await self._on(self._bare, self._rows.delete, keys)

    async def ascan(self, prefix: str, *, values: bool) -> AsyncGenerator[Page]:
        after: str | None = None
        while True:
            page, after = await self._do(self._rows.page, prefix, after, values)
            yield page
            if after is None:
                return

    async def aadd_many(self, records: Sequence[Record]) -> list[bool]:
        return await self._do(self._rows.add, records)

    async def aupdate(self, key: str, change: Change) -> None:
        await self._do(self._rows.update, key, change)

    async def amerge_many(self, records: Sequence[Record], merge: Merge) -> None:
        await self._do(self._rows.merge, records, merge)

    async def atouch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        await self._do(self._rows.touch, keys, expires_at_ms)

    async def acount(self, prefix: str) -> int:
        return await self._do(self._rows.count, prefix)

    async def aclear(self, prefix: str) -> None:
        await self._do(self._rows.clear, prefix)

    async def apurge(self) -> int:
        removed = 0
        while some := await self._do(self._rows.purge):
            removed += some
        return removed

    # -- life ---------------------------------------------------------------------------------------------------------

    async def aopen(self, *, clear: bool = False) -> None:
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


# -- errors -----------------------------------------------------------------------------------------------------------


@dataclass
class _Try:
    """How far a transaction came.

    Attributes:
        work: the name of what it does.
        number: which try it is, from 1.
        since: when it had a connection; None where there was none.
        is_ending: whether its statements were answered, and it is being committed.
    """

    work: str
    number: int
    since: float | None = None
    is_ending: bool = False


def _raised(error: Exception, rows: Rows, shown: str, this: _Try) -> BaseException | None:
    """Return what is raised for what a transaction raised; None where it is run again.

    Args:
        error: what it raised.
        rows: whose statements.
        shown: the place, in messages.
        this: how far it came.
    """
    if isinstance(error, ChangeError):
        return error.__cause__
    codes, text = _told(error)
    is_refused = bool(codes & _LOCKED) or "database is locked" in text
    if this.since is not None and (isinstance(error, RacedError) or codes & _RACED or is_refused):
        has_waited = is_refused and time.monotonic() - this.since >= LOCKED_S
        if this.number < (2 if has_waited else TRIES):
            return None
        told: StoreError = EngineError(
            f"{shown}: another transaction holds what this call writes ({text}): is one of this program's open? End"
            " it, and repeat the call."
            if has_waited
            else f"{shown}: others write the same keys all the time: repeat the call later."
        )
        told.retryable = True
    elif codes & _NO_ENTRY or "password authentication failed" in text:
        told = DataAPIError.of("UNAUTHORIZED_ACCESS", f"{shown} does not let us in: {text}. Check user and password.")
    elif isinstance(error, exc.TimeoutError):
        told = ConnectError(
            f"All connections of {shown} were in use for too long, and nothing was sent: give its engine more of them"
            " (pool_size, max_overflow) or more time (pool_timeout), or make fewer calls at once."
        )
    elif this.since is None:
        told = ConnectError(f"No connection to {shown}: {text}. Check that the server runs, and host and port.")
    elif codes & _NO_TABLE or "no such table" in text:
        told = rows.missing()
    elif not isinstance(error, DBAPIError) or error.connection_invalidated:
        told = _broken(f"The connection to {shown} broke: {text}.", this)
    elif codes & _TOO_LONG:
        told = InvalidKeyError(
            f"{shown} refused a key of the call, which is too long for the table's index: {text}. Nothing of the"
            " call was stored: use a hash of it as key."
        )
    else:
        told = EngineError(f"{shown} refused it: {text}. Nothing of the call was stored.")
    return told


def _broken(text: str, this: _Try) -> TransportError:
    is_unsure = this.work in _ONCE and this.is_ending
    told = TransportError(
        f"{text} It may have been carried out: read the key before you repeat it."
        if is_unsure
        else f"{text} Repeating the call is safe."
    )
    if is_unsure:
        told.retryable = False
    elif this.work in (*_READS, *_ONCE):  # without its end a transaction changes nothing
        told.applied = False
    return told


def _told(error: Exception) -> tuple[set[object], str]:
    """Return the database's codes of an error, and the first line of its text: a later one may hold values."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    args = cause.args
    is_numbered = len(args) > 1 and isinstance(args[0], int)
    lines = str(args[1] if is_numbered else cause).splitlines()
    text = lines[0].rstrip(".")[:300] if lines else type(cause).__name__
    return {getattr(cause, "sqlstate", None), args[0] if is_numbered else None} - {None}, text
