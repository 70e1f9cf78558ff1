"""The backend on langchain-community's table on Apache Cassandra: ``(row_id text PRIMARY KEY, body_blob blob)``.

Each statement is about one partition, and expiry is the cluster's own. There is no room for anything beside the bytes,
and nothing is written with a condition: a table of the Data API (``cassandra:``) has both.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any, Final

from langchain_kv.backends.async_base import AsyncBackend
from langchain_kv.backends.base import Found, Kind, Page, Record, Stored
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.cassandra.cluster import Batch, Call, Outcome, Row, Session, Statement
from langchain_kv.engines.cassandra.operation import Operation
from langchain_kv.engines.cassandra.work import reading, settle
from langchain_kv.engines.pages import PAGE_BYTES
from langchain_kv.errors import InvalidValueError, StoreClosedError, StoreError
from langchain_kv.runtime.clock import now_ms
from langchain_kv.runtime.work_queue import run_aside
from langchain_kv.values.keys import shown

__all__ = ["KEY_MAX_BYTES", "CassandraBytesBackend"]

KEY_MAX_BYTES: Final = 65_535
"""Bytes of a partition key."""

VALUE_MAX_BYTES: Final = 16 * 1024 * 1024 - 128 * 1024
"""Bytes of a value: with its key it may take half a segment of the commit log, 16 MiB as clusters are shipped."""

TTL_MAX_S: Final = 630_720_000
"""Seconds, twenty years: the longest time to live that the cluster takes."""

AT_ONCE: Final = 64
"""Statements on their way."""

KEYS_PAGE: Final = 1_000
FIRST_VALUES: Final = 8
"""Rows of the first page with values: only rows can be asked for, and their size is not known."""

_BEFORE_ALL: Final = -(2**63)

_CQL: Final = {
    "get": "SELECT row_id, body_blob FROM {table} WHERE row_id = ?",
    "put": "INSERT INTO {table} (row_id, body_blob) VALUES (?, ?) USING TTL ?",
    "delete": "DELETE FROM {table} WHERE row_id = ?",
    "keys": "SELECT token(row_id), row_id FROM {table} WHERE token(row_id) > ? LIMIT ?",
    "values": "SELECT token(row_id), row_id, body_blob FROM {table} WHERE token(row_id) > ? LIMIT ?",
}


class CassandraBytesBackend(AsyncBackend):
    """Keeps bytes, and the null of JSON, in a table.

    Args:
        connect: makes the connection, at the first use; blocks.
        name: the table's, with its keyspace's, as they are in the cluster.
    """

    def __init__(self, connect: Callable[[], Session], name: CollectionName) -> None:
        self._connect = connect
        self._name = name
        self._table = ".".join('"{}"'.format(part.replace('"', '""')) for part in name)
        self._session: Session | None = None
        self._connecting = threading.Lock()
        self._prepared: dict[str, Statement] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"The table '{self._name.name}' of a CassandraByteStore"

    @property
    def key_max_bytes(self) -> int:
        return KEY_MAX_BYTES

    # -- the verbs ----------------------------------------------------------------------------------------------------

    async def aget_many(self, keys: Sequence[str]) -> list[Stored | None]:
        operation = await self._begin()
        get = await self._statement(operation, "get")
        answers = await reading(operation, [(get, (key,)) for key in keys], AT_ONCE)
        return [_found(_values(rows[0])[1]) if rows else None for rows in answers]

    async def aput_many(self, records: Sequence[Record]) -> None:
        operation = await self._begin()
        put, delete = await self._statement(operation, "put"), await self._statement(operation, "delete")
        now = now_ms()
        calls: dict[str, Call] = {}
        for record in records:
            payload, ttl_s = _payload(record), _ttl_s(record, now)
            calls[record.key] = (put, (record.key, payload, ttl_s)) if ttl_s is not None else (delete, (record.key,))
        await self._write(operation, calls, [len(record.payload) for record in records], "stored")

    async def adelete_many(self, keys: Sequence[str]) -> None:
        operation = await self._begin()
        delete = await self._statement(operation, "delete")
        await self._write(operation, {key: (delete, (key,)) for key in keys}, [0] * len(keys), "removed")

    async def _write(self, operation: Operation, calls: dict[str, Call], sizes: list[int], done: str) -> None:
        """Run statements, those that fail in passing again until the deadline: each may happen twice.

        What a later try of a statement says takes nothing back: once it may have happened, only success is surer.
        """
        outcomes: dict[Any, Outcome] = {}
        by_key = dict(zip(calls, sizes, strict=True))
        left, tries = list(calls), 0
        while left:
            batch = Batch([calls[key] for key in left], "write", AT_ONCE, [by_key[key] for key in left])
            for key, outcome in zip(left, await operation.outcomes(batch), strict=True):
                before = outcomes.get(key)
                if isinstance(outcome, StoreError) and isinstance(before, StoreError) and before.applied is None:
                    outcome.applied = None
                outcomes[key] = outcome
            left = [key for key in left if isinstance(failed := outcomes[key], StoreError) and failed.retryable]
            if left and not await operation.may_try_again(tries):
                break
            tries += 1
        settle(outcomes, done)

    async def ascan(self, prefix: str, *, values: bool) -> AsyncGenerator[Page]:
        after, limit = _BEFORE_ALL, FIRST_VALUES if values else KEYS_PAGE
        while True:
            operation = await self._begin()
            statement = await self._statement(operation, "values" if values else "keys")
            (answer,) = await reading(operation, [(statement, (after, limit))], 1)
            rows = [_values(row) for row in answer]
            is_last = len(rows) < limit
            if not is_last:  # keys of one token come together: those at the end may not be all
                new = [row for row in rows if row[0] != rows[-1][0]]
                if not new:
                    limit *= 2
                    continue
                rows = new
            page: Page = [(row[1], _found(row[2]) if values else None) for row in rows if row[1].startswith(prefix)]
            if page:
                yield page
            if is_last:
                return
            after = rows[-1][0]
            if values:
                size_bytes = sum(len(row[2] or b"") for row in rows)
                limit = max(2, min(KEYS_PAGE, 4 * limit, len(rows) * PAGE_BYTES // max(1, size_bytes)))

    async def aclear(self, prefix: str) -> None:
        if prefix:
            await super().aclear(prefix)
            return
        operation = await self._begin()
        truncate = partial(operation.session.execute, f"TRUNCATE {self._table}", (), self._name, changes=True)
        await operation.call(truncate)

    # -- life ---------------------------------------------------------------------------------------------------------

    async def aopen(self, *, clear: bool = False) -> None:
        operation = await self._begin()
        create = f"CREATE TABLE IF NOT EXISTS {self._table} (row_id text PRIMARY KEY, body_blob blob)"
        await operation.call(partial(operation.session.execute, create, (), self._name, changes=True))
        if clear:
            await self.aclear("")

    async def aclose(self) -> None:
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await run_aside(session.close, "langchain-kv close")

    async def _begin(self) -> Operation:
        session = self._session
        if session is None:
            session = await run_aside(self._connected, "langchain-kv cassandra")
        return Operation(session, self._name)

    def _connected(self) -> Session:
        with self._connecting:
            if self._closed:
                raise StoreClosedError(f"The store on table '{self._name.name}' was closed: open a new one.")
            if self._session is None:
                self._session = self._connect()
            return self._session

    async def _statement(self, operation: Operation, name: str) -> Statement:
        if name not in self._prepared:
            prepare = partial(operation.session.prepare, _CQL[name].format(table=self._table), self._name)
            statement = await operation.call(prepare)
            statement.is_idempotent = True
            self._prepared[name] = statement
        return self._prepared[name]


def _values(row: Any) -> Row:
    """Return the columns of a row of whatever kind the session makes."""
    return tuple(row.values() if isinstance(row, dict) else row)


def _found(body: bytes | None) -> Stored:
    return Found(None) if body is None else Found(body, Kind.BYTES)


def _payload(record: Record) -> bytes | None:
    if record.kind is not Kind.BYTES:
        if record.payload == b"null":
            return None
        raise InvalidValueError(
            f"The value of key {shown(record.key)} is JSON, and a table of a CassandraByteStore keeps bytes: keep JSON"
            " by the URL of the cluster, KVStore('name', 'cassandra://...')."
        )
    if len(record.payload) > VALUE_MAX_BYTES:
        raise InvalidValueError(
            f"The value of key {shown(record.key)} has {len(record.payload):,} bytes, the limit of a cluster is"
            f" {VALUE_MAX_BYTES:,}: split it over several keys, or compress it."
        )
    return record.payload


def _ttl_s(record: Record, now: int) -> int | None:
    """Return the time to live, 0 for ever; None where it is over."""
    if record.expires_at_ms is None:
        return 0
    ttl_s = -(-(record.expires_at_ms - now) // 1_000)
    if ttl_s > TTL_MAX_S:
        raise InvalidValueError(
            f"The value of key {shown(record.key)} is to live for {ttl_s:,} seconds, the limit of Apache Cassandra is"
            f" {TTL_MAX_S:,}: give a shorter ttl_s, or none."
        )
    return ttl_s if ttl_s > 0 else None
