"""The statements on the rows of one namespace of a SQL database's table.

Each is made once, with names for what differs from call to call: SQLAlchemy takes longer to put one together than to
carry it out.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.dialects.postgresql import ARRAY

from langchain_kv.backends.sql_tables import CODES, MYSQL
from langchain_kv.engines.base import Ending
from langchain_kv.values.records import Kind

__all__ = ["KEYS", "LATER", "NOW", "SOME", "Statements"]

KEYS: Final = "key_array"
"""The name of the parameter that is the keys which a statement is about."""

SOME: Final = "some"
"""The name of the largest number of rows that are wanted."""

NOW: Final = "now_ms"
LATER: Final = "later_ms"
"""The names of moments, in milliseconds of Unix time: of the call, and until when what expires is to live."""


class Statements:
    """The statements.

    Args:
        table: OURS or UPSTREAM.
        namespace: whose rows these are.
        dialect: SQLAlchemy's name of the kind of database.
    """

    def __init__(self, table: sa.Table, namespace: str, dialect: str) -> None:
        self._table = table
        self._namespace = namespace
        self._dialect = dialect
        self._key: sa.Column[str] = table.c.key
        self._own = table.c.namespace == namespace
        self._columns = [column for column in table.c if column.name != "namespace"]
        self.insert_new, self.put, self.merge = cache(self._insert_new), cache(self._put), cache(self._merge)

    @cached_property
    def are_these(self) -> sa.ColumnElement[bool]:
        if self._dialect == "postgresql":  # as one parameter
            return self._key == sa.any_(sa.bindparam(KEYS, type_=ARRAY(self._key.type)))
        return self._key.in_(sa.bindparam(KEYS, expanding=True))

    @cached_property
    def has_expired(self) -> sa.ColumnElement[bool]:
        return self._table.c.expires_at <= sa.bindparam(NOW, type_=sa.BigInteger)

    @cached_property
    def select(self) -> Any:
        return sa.select(*self._columns).where(self._own, self.are_these)

    @cached_property
    def select_locked(self) -> Any:
        return self.select.order_by(self._key).with_for_update()

    @cached_property
    def select_expired(self) -> Any:
        return sa.select(self._key).where(self._own, self.has_expired, self.are_these)

    @cached_property
    def select_some_expired(self) -> Any:
        return sa.select(self._key).where(self._own, self.has_expired).limit(sa.bindparam(SOME, type_=sa.Integer))

    @cached_property
    def lock(self) -> Any:
        """A write that changes nothing."""
        return sa.update(self._table).where(self._own, self.are_these).values(key=self._key)

    @cached_property
    def delete(self) -> Any:
        return sa.delete(self._table).where(self._own, self.are_these)

    @cached_property
    def delete_expired(self) -> Any:
        return sa.delete(self._table).where(self._own, self.has_expired, self.are_these)

    @cached_property
    def postpone(self) -> Any:
        moment, later = self._table.c.expires_at, sa.bindparam(LATER, type_=sa.BigInteger)
        lives = moment > sa.bindparam(NOW, type_=sa.BigInteger)
        return sa.update(self._table).where(self._own, self.are_these, lives, moment < later).values(expires_at=later)

    def ending(self, ending: Ending) -> Any:
        """Select each key with its text near the end, NULL where it is without."""
        value = self._table.c.value

        def cut(after: int, length: int) -> sa.ColumnElement[bytes]:
            return sa.func.substr(value, sa.func.length(value) - (after + length - 1), length, type_=sa.LargeBinary)

        before = ending.before
        is_usual = cut(ending.size - len(before), len(before)) == before
        of_json = _is_json(self._table.c)
        text = sa.case((sa.and_(of_json, is_usual), cut(ending.after, ending.length)))
        return sa.select(self._key, text.label("text"))

    @cached_property
    def insert_row(self) -> Any:
        return sa.insert(self._table)

    @cached_property
    def upsert(self) -> Any:
        names = [column.name for column in self._columns[1:]]
        if self._dialect in MYSQL:
            into = mysql.insert(self._table)
            return into.on_duplicate_key_update({name: into.inserted[name] for name in names})
        put = sqlite.insert(self._table)
        return put.on_conflict_do_update(
            index_elements=["namespace", "key"], set_={name: put.excluded[name] for name in names}
        )

    def _put(self, one: bool) -> Any:
        """The upsert of PostgreSQL, of one row, or of rows of which each column is an array: a tenth of their work."""
        put = self.insert_new(one)
        return put.on_conflict_do_update(
            index_elements=["namespace", "key"], set_={each.name: put.excluded[each.name] for each in self._columns[1:]}
        )

    def _merge(self, one: bool, ending: Ending) -> Any:
        """The same, where what is there is JSON with this ending: with the text of that. Others are left as they are.

        What has expired by NOW is replaced.
        """
        put, there = self.insert_new(one), self._table.c
        new, cut = put.excluded.value, ending.length + ending.after
        merged = sa.func.substr(new, _number(1), sa.func.length(new) - _number(cut)).op("||")(_last(there.value, cut))
        end = sa.func.encode(_last(there.value, ending.size), sa.literal_column("'escape'"))
        is_usual = sa.and_(_is_json(there), end.regexp_match(f"^{ending.pattern}$"))
        names = [each.name for each in self._columns[1:]]
        return put.on_conflict_do_update(
            index_elements=["namespace", "key"],
            set_={name: put.excluded[name] for name in names}
            | {"value": sa.case((self.has_expired, new), else_=merged)},
            where=sa.or_(self.has_expired, is_usual),
        )

    def _insert_new(self, one: bool) -> Any:
        """The insert of PostgreSQL, as ``_put``."""
        if one:
            new: Any = [sa.bindparam(f"{each.name}_one", type_=each.type) for each in self._columns]
        else:
            arrays = [sa.bindparam(f"{each.name}_array", type_=ARRAY(each.type)) for each in self._columns]
            rows = sa.func.unnest(*arrays).table_valued(*[sa.column(each.name, each.type) for each in self._columns])
            new = rows.render_derived("new").c
        return postgresql.insert(self._table).from_select(
            ["namespace", *(each.name for each in self._columns)], sa.select(sa.literal(self._namespace), *new)
        )


def _is_json(columns: Any) -> sa.ColumnElement[bool]:
    return sa.or_(*[columns["kind"] == _number(CODES[kind]) for kind in (Kind.JSON, Kind.TEXT)])


def _number(number: int) -> sa.ColumnElement[int]:
    return sa.literal_column(str(number), sa.Integer)  # in the text: a driver takes its time for each parameter


def _last(value: Any, size: int) -> Any:
    """Return the last bytes of a value."""
    return sa.func.substr(value, sa.func.length(value) - _number(size - 1))
