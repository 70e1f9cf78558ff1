"""Looks at many rows of a file of which few are wanted: SQLite tells them apart, and the others are not fetched."""

from __future__ import annotations

import re
import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Final, TypeVar

from langchain_kv.engines.base import CollectionName, DocId, Ending, Engine, Held, NearRow, Row, Where
from langchain_kv.engines.ids import prefix_end
from langchain_kv.engines.pages import is_last
from langchain_kv.engines.sqlite.connection import Connection
from langchain_kv.engines.sqlite.rows import bounded, page_of, range_of, with_columns
from langchain_kv.engines.sqlite.schema import COLUMNS
from langchain_kv.engines.sqlite.vectors import nearest_rows

__all__ = ["Looks"]

T = TypeVar("T")

_MEANING_MORE: Final = re.compile(r"[*?\[]")
"""What means something in a pattern of GLOB."""


class Looks(Engine):
    """The part of the engine on a file that looks."""

    @abstractmethod
    def _query(self, collection: CollectionName, query: Callable[[Connection, int], T]) -> T:
        """Run a query on a collection's table."""

    keeps_vectors = True

    def nearest(
        self,
        collection: CollectionName,
        vector: bytes,
        *,
        limit: int,
        ids: Sequence[DocId] | None = None,
        where: Where | None = None,
    ) -> list[NearRow]:
        search = partial(nearest_rows, vector=vector, limit=limit, ids=ids, where=where)
        return self._query(collection, search)

    def scan_holding(
        self,
        collection: CollectionName,
        held: Held,
        *,
        after: DocId | None = None,
        prefix: str = "",
        limit: int,
        size_bytes: int | None = None,
    ) -> list[Row]:
        holding = "CAST(content AS TEXT) GLOB ?"  # twice as fast as instr
        pattern = f"*{_MEANING_MORE.sub(lambda found: f'[{found[0]}]', held.text)}[{held.ends}]*"

        def query(connection: Connection, table: int) -> list[Row]:
            def select(columns: str) -> list[Row]:
                condition, values = range_of(after, prefix)
                if columns is not COLUMNS:
                    return page_of(connection, table, columns, (condition, values), limit=limit, size_bytes=size_bytes)
                if after is None and len(prefix) <= 1:
                    # Nearly all rows are looked at: without the index by id they are read in the order of their pages.
                    found = connection.execute(
                        f"SELECT {columns} FROM docs_{table} WHERE {condition.replace('id', '+id')} AND {holding}"
                        " LIMIT ?",
                        (*values, pattern, bounded(limit)),
                    ).fetchall()
                    if is_last(found, limit, sys.maxsize if size_bytes is None else size_bytes):
                        return sorted(found, key=itemgetter(0))
                which: tuple[str, list[Any]] = f"{condition} AND {holding}", [*values, pattern]
                return page_of(connection, table, columns, which, limit=limit, size_bytes=size_bytes)

            return with_columns(connection, select)

        return self._query(collection, query)

    def ids_by_ending(
        self, collection: CollectionName, ending: Ending, *, start: str, end: str, limit: int | None
    ) -> list[str] | None:
        at = len(ending.before) + ending.length + ending.after
        is_usual = f"expires_at IS NULL AND is_raw=0 AND substr(content,-{at},{len(ending.before)})=?"
        text = f"CASE WHEN {is_usual} THEN substr(content,-{ending.length + ending.after},{ending.length}) END"

        def query(connection: Connection, table: int) -> list[str] | None:
            return with_columns(connection, lambda columns: select(connection, table) if columns is COLUMNS else None)

        def select(connection: Connection, table: int) -> list[str] | None:
            rows = f"SELECT id, {text} AS text FROM docs_{table} WHERE id>=? AND id<? ORDER BY"
            values = (ending.before, start, end)
            if limit is not None:
                by_text = f"{rows} text DESC NULLS FIRST, id LIMIT ?"
                found = connection.execute(by_text, (*values, bounded(limit))).fetchall()
                return None if found and found[0][1] is None else [doc_id for doc_id, _ in found]
            found = connection.execute(f"{rows} id", values).fetchall()
            if any(text is None for _, text in found):
                return None
            found.sort(key=itemgetter(1), reverse=True)  # in half the time that SQLite takes; equals stay in order
            return [doc_id for doc_id, _ in found]

        return self._query(collection, query)

    def beginnings(self, collection: CollectionName, *, prefix: str, end: str, now_ms: int) -> list[str]:
        last = end.encode()
        values = {"prefix": prefix, "stop": prefix_end(prefix), "end": last, "next": prefix_end(end), "now": now_ms}

        def query(connection: Connection, table: int) -> list[str]:
            def select(columns: str) -> list[tuple[bytes]]:
                alive = " AND (expires_at IS NULL OR expires_at>:now)" if columns is COLUMNS else ""
                return connection.execute(_BEGINNINGS.format(table=table, alive=alive), values).fetchall()

            found = [beginning for (beginning,) in with_columns(connection, select)]
            return [each.decode() for each in found if each is not None and each.endswith(last)]

        return self._query(collection, query)


# Each step looks for the first id that comes after all with the beginning before: one look at the index for each. By
# bytes, because the functions of text end with a NUL.
_BEGINNINGS: Final = """
WITH RECURSIVE found(beginning) AS (
  SELECT (
    SELECT substr(CAST(id AS BLOB), 1, ifnull(nullif(instr(CAST(id AS BLOB), :end), 0), length(CAST(id AS BLOB))))
    FROM docs_{table} WHERE id>=:prefix AND id<:stop{alive} ORDER BY id LIMIT 1
  )
  UNION ALL
  SELECT (
    SELECT substr(CAST(id AS BLOB), 1, ifnull(nullif(instr(CAST(id AS BLOB), :end), 0), length(CAST(id AS BLOB))))
    FROM docs_{table}
    WHERE id > CASE WHEN substr(beginning, -1)=:end
      THEN CAST(substr(beginning, 1, length(beginning)-1) AS TEXT) || :next ELSE CAST(beginning AS TEXT) END
    AND id<:stop{alive} ORDER BY id LIMIT 1
  ) FROM found WHERE beginning IS NOT NULL
)
SELECT beginning FROM found"""
