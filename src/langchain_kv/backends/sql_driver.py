"""Statements about many rows, carried out by the driver itself.

SQLAlchemy takes longer to look at each value of each row than a database to store it, and psycopg six times as long to
write an array of bytes as text, as it does unasked, as in PostgreSQL's binary form (measured).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

import sqlalchemy as sa

__all__ = ["ByDriver"]

_PSYCOPG: Final = ("psycopg", "psycopg_async")
_ARRAYS: Final = re.compile(r"%\((\w+_array)\)s")
_COUNTED: Final = {"preserve_rowcount": True}


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

    def arrays(self, connection: sa.Connection, statement: Any, values: dict[str, Any]) -> sa.CursorResult[Any]:
        """Carry out a statement of PostgreSQL.

        Args:
            connection: of the database.
            statement: the statement.
            values: its parameters; the names of those that are arrays end with ``_array``.

        Returns:
            How many rows it changed, or the rows: text is in these as the driver or as SQLAlchemy has it.
        """
        options = connection.get_execution_options()
        if connection.dialect.driver not in (*_PSYCOPG, "asyncpg") or "schema_translate_map" in options:
            return connection.execute(statement, values, execution_options=_COUNTED)
        text, names, constants = self._known(connection, statement, None)
        values = constants | values
        given: Any = values if names is None else tuple([values[name] for name in names])
        return connection.exec_driver_sql(text, given, execution_options=_COUNTED)

    def _known(
        self, connection: sa.Connection, statement: Any, columns: list[str] | None
    ) -> tuple[str, Any, dict[str, Any]]:
        if statement not in self._texts:
            compiled = statement.compile(dialect=connection.dialect, column_keys=columns)
            is_psycopg = connection.dialect.driver in _PSYCOPG
            text = _ARRAYS.sub(r"%(\1)b", compiled.string) if is_psycopg else compiled.string
            self._texts[statement] = text, compiled.positiontup, compiled.params
        return self._texts[statement]
