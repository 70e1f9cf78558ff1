"""The table ``store`` of LangGraph's ``SqliteStore`` and ``PostgresStore``, read as our ``LangGraphStore`` keeps items.

An item is ``{"value": {...}, "updated_at": ..., "created_at": ...}``, with ``ttl``, in minutes, before the last where
it expires; its key encodes the namespace. LangGraph's vectors are not taken: they come anew when an item is stored
again.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from langchain_kv.backends.base import Damaged, Found, Page, Stored, is_alive
from langchain_kv.backends.left_behind import ReadOnlyBackend
from langchain_kv.errors import EngineError
from langchain_kv.runtime.clock import now_ms
from langchain_kv.values.lenient import parse_json
from langchain_kv.values.namespaces import KEY_SIGN, decode_key, namespace_prefix

__all__ = ["LangGraphTableBackend"]

PAGE: Final = 500

# The value as its text on both: psycopg would make an object of it, and SQLite has it as a blob.
_COLUMNS: Final = "SELECT prefix, key, CAST(value AS TEXT) AS value, created_at, updated_at"
_EXPIRY: Final = ", expires_at, ttl_minutes"


class LangGraphTableBackend(ReadOnlyBackend):
    """The items of such a table.

    Args:
        engine: of the database; it is disposed of by ``close``.
        shown: the database, in messages.
    """

    def __init__(self, engine: sa.Engine, shown: str) -> None:
        self._engine = engine
        self._shown = shown
        self._columns = ""

    def __repr__(self) -> str:
        return f"The table store of {self._shown}"

    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        found: list[Stored | None] = []
        for key in keys:
            labels, name = decode_key(key) or ((), "")
            rows = self._rows("WHERE prefix = :prefix AND key = :key", {"prefix": ".".join(labels), "key": name})
            found += [stored for _, stored in self._page(rows)] or [None]
        return found

    def scan(self, prefix: str, *, values: bool) -> Generator[Page]:
        where = ""
        last: dict[str, str] = {}
        while True:
            rows = self._rows(f"{where} ORDER BY prefix, key LIMIT {PAGE}", last)
            yield [(key, stored if values else None) for key, stored in self._page(rows) if key.startswith(prefix)]
            if len(rows) < PAGE:
                return
            where, last = "WHERE (prefix, key) > (:prefix, :key)", {name: rows[-1][name] for name in ("prefix", "key")}

    def close(self) -> None:
        super().close()
        self._engine.dispose()

    def _rows(self, rest: str, values: Mapping[str, str]) -> Sequence[sa.RowMapping]:
        try:
            with self._engine.connect() as connection:
                if not self._columns:  # older tables have no expiry
                    names = {each["name"] for each in sa.inspect(connection).get_columns("store")}
                    self._columns = _COLUMNS + (_EXPIRY if "expires_at" in names else "")
                return connection.execute(sa.text(f"{self._columns} FROM store {rest}"), values).mappings().all()
        except SQLAlchemyError as error:
            reason = f"{getattr(error, 'orig', None) or type(error).__name__}".partition("\n")[0]
            raise EngineError(f"The table store of {self._shown} cannot be read: {reason:.200}.") from error

    def _page(self, rows: Sequence[sa.RowMapping]) -> list[tuple[str, Stored]]:
        now = now_ms()
        return [(key, stored) for key, stored in map(_keyed, rows) if is_alive(stored, now)]


def _keyed(row: sa.RowMapping) -> tuple[str, Stored]:
    labels = row["prefix"].split(".")
    if all(labels):
        return namespace_prefix(labels) + row["key"], _item(row)
    return f"{row['prefix']}{KEY_SIGN}{row['key']}", Damaged("its namespace has an empty label, which none of ours has")


def _item(row: sa.RowMapping) -> Stored:
    try:
        item = {"value": parse_json(row["value"]), "updated_at": _moment(row["updated_at"]).isoformat("T", _EXACT)}
        expires = row.get("expires_at")
        if row.get("ttl_minutes") is not None:
            item["ttl"] = row["ttl_minutes"]
        item["created_at"] = _moment(row["created_at"]).isoformat("T", _EXACT)
        expires_at_ms = None if expires is None else int(_moment(expires).timestamp() * 1_000)
    except (TypeError, ValueError):
        return Damaged("it is no item of LangGraph's: its value is no JSON, or a time of it is none")
    return Found(item, expires_at_ms=expires_at_ms)


_EXACT: Final = "microseconds"


def _moment(written: Any) -> datetime:
    """Return a moment in UTC, of which SQLite has the text, without a zone."""
    moment = written if isinstance(written, datetime) else datetime.fromisoformat(written)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
