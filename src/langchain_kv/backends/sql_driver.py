"""Statements about many rows, carried out by the driver itself.

SQLAlchemy takes longer to look at each value of each row than a database to store it, and psycopg six times as long to
write an array of bytes as text, as it does unasked, as in PostgreSQL's binary form (measured).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from operator import itemgetter
from typing import Any, Final

import sqlalchemy as sa

__all__ = ["ByDriver", "DirectConnection", "DirectEngine"]

_PSYCOPG: Final = ("psycopg", "psycopg_async")
_BINARY: Final = re.compile(r"%\((\w+_(?:array|one))\)s")
_MADE_AT: Final = "langchain_kv_made_at"
_COUNTED: Final = {"preserve_rowcount": True}


class DirectEngine:
    """Gives connections of psycopg from the pool of an engine, on which each statement is whole by itself.

    For one statement SQLAlchemy's own connection takes more time than psycopg (measured).

    Args:
        engine: an engine of ours, made without a level of isolation.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._broke_at = -math.inf
        sa.event.listen(engine, "connect", _note_moment)
        sa.event.listen(engine, "checkout", self._look)
        # Whatever cuts a call off, Ctrl-C among it: nothing on it would be a transaction any more.
        sa.event.listen(engine, "checkin", _leave_autocommit)

    def begin(self) -> AbstractContextManager[Any]:
        """Return a ``DirectConnection`` for a ``with``."""
        return DirectConnection(self)

    def note_broken(self, used_at: float) -> None:
        """Have the connections replaced that were made before one was taken that had broken: they will have, too.

        Those made since are whole: were they refused, too, calls would be without any where many break at once.
        """
        self._broke_at = max(self._broke_at, used_at)

    def _look(self, _: object, record: Any, __: object) -> None:
        if record.info.get(_MADE_AT, math.inf) < self._broke_at:
            raise sa.exc.DisconnectionError


def _note_moment(_: object, record: Any) -> None:
    record.info[_MADE_AT] = time.monotonic()


def _leave_autocommit(connection: Any, _: object) -> None:
    if connection is not None and not connection.closed and connection.autocommit:
        connection.autocommit = False


class DirectConnection:
    """A connection of psycopg, for the length of a ``with``."""

    def __init__(self, owner: DirectEngine) -> None:
        self.dialect = owner.engine.dialect
        self._owner = owner
        self._errors: Any = self.dialect.loaded_dbapi
        self._connection: Any = None

    def __enter__(self) -> DirectConnection:
        self._used_at = time.monotonic()
        try:
            self._pooled = self._owner.engine.raw_connection()
        except self._errors.Error as error:
            raise self._wrapped(error) from error
        self._connection = self._pooled.driver_connection
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated:
            self._pooled.invalidate()
            self._owner.note_broken(self._used_at)
        elif kind is not None and not issubclass(kind, Exception):  # in the middle of anything
            self._pooled.invalidate()
        self._pooled.close()

    def carry_out(self, text: str, values: Any) -> Any:
        """Carry out a statement; return the driver's cursor."""
        try:
            self._connection.autocommit = True
            return self._connection.execute(text, values)
        except self._errors.Error as error:
            raise self._wrapped(error) from error

    def _wrapped(self, error: Any) -> sa.exc.DBAPIError:
        kind = sa.exc.ProgrammingError if isinstance(error, self._errors.ProgrammingError) else sa.exc.DBAPIError
        is_broken = self.dialect.is_disconnect(error, self._connection, None)
        return kind(None, None, error, hide_parameters=True, connection_invalidated=is_broken)


class ByDriver:
    """Carries out statements on one kind of database. What is given is as the driver takes it: no bytes as text."""

    def __init__(self) -> None:
        self._texts: dict[Any, tuple[str, Any, dict[str, Any]]] = {}

    def rows(self, connection: sa.Connection, statement: Any, rows: Sequence[dict[str, Any]]) -> None:
        """Carry out a statement that takes a row of values, once for each of some rows."""
        if "schema_translate_map" in connection.get_execution_options():
            connection.execute(statement, rows)
            return
        text, names, _ = self._known(connection, statement, list(rows[0]))
        given: Any = rows if names is None else list(map(itemgetter(*names), rows))
        connection.exec_driver_sql(text, given)

    def arrays(self, connection: sa.Connection | DirectConnection, statement: Any, values: dict[str, Any]) -> Any:
        """Carry out a statement of PostgreSQL.

        Args:
            connection: of the database.
            statement: the statement.
            values: its parameters; the names of columns end with ``_one``, those of arrays of them with ``_array``.

        Returns:
            How many rows it changed, or the rows: text is in these as the driver or as SQLAlchemy has it.
        """
        if not isinstance(connection, DirectConnection):
            options = connection.get_execution_options()
            if connection.dialect.driver not in (*_PSYCOPG, "asyncpg") or "schema_translate_map" in options:
                return connection.execute(statement, values, execution_options=_COUNTED)
        text, names, constants = self._known(connection, statement, None)
        values = constants | values
        given: Any = values if names is None else tuple([values[name] for name in names])
        if isinstance(connection, DirectConnection):
            return connection.carry_out(text, given)
        return connection.exec_driver_sql(text, given, execution_options=_COUNTED)

    def _known(
        self, connection: sa.Connection | DirectConnection, statement: Any, columns: list[str] | None
    ) -> tuple[str, Any, dict[str, Any]]:
        if statement not in self._texts:
            compiled = statement.compile(dialect=connection.dialect, column_keys=columns)
            is_psycopg = connection.dialect.driver in _PSYCOPG
            text = _BINARY.sub(r"%(\1)b", compiled.string) if is_psycopg else compiled.string
            self._texts[statement] = text, compiled.positiontup, compiled.params
        return self._texts[statement]
