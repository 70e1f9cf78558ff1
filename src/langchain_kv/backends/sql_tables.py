"""The tables of a SQL database that keep records.

A table of ours, ``langchain_kv``, keeps the records of every collection::

    namespace  the keyspace and the collection: "default_keyspace.kv"
    key        the key: text in SQLite, its UTF-8 bytes elsewhere: keys are told apart, and ordered, by their bytes
    value      the payload
    kind       what the payload is: 0 JSON, 1 JSON that documents keep as text, 2 bytes, 3 an answer of a model
    expires_at the moment of expiry in milliseconds of Unix time, or NULL

That of the archived ``SQLStore``, ``langchain_key_value_stores``, has the first three columns, with bytes as values.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, SmallInteger, String, Table
from sqlalchemy.dialects.mysql import LONGBLOB, VARBINARY
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from langchain_kv.backends.base import Damaged, Found, Kind, Stored
from langchain_kv.values.lenient import parse_json

__all__ = [
    "CODES",
    "KEY_MAX_BYTES",
    "MYSQL",
    "NAMESPACE_MAX_BYTES",
    "OURS",
    "UPSTREAM",
    "bytes_of",
    "stored_of",
    "text_of",
]

MYSQL: Final = ("mysql", "mariadb")
"""SQLAlchemy's names of these, which are one to it or two, by its version."""

KEY_MAX_BYTES: Final = 2_560
"""Bytes of a key in an index of PostgreSQL, whose row takes 2,704, and of InnoDB, whose key takes 3,072 (measured)."""

CODES: Final = {Kind.JSON: 0, Kind.TEXT: 1, Kind.BYTES: 2, Kind.BODY_BLOB: 3}
"""What the table has of each kind."""

_KINDS: Final = {code: kind for kind, code in CODES.items()}

NAMESPACE_MAX_BYTES: Final = 512
"""Bytes of a namespace in MySQL and MariaDB, whose columns of a key have a length."""

_FOREIGN: Final = "surrogateescape"  # what others wrote may be no UTF-8: it is paged over, and left out


def bytes_of(name: str) -> bytes:
    """Return a key or a namespace as the bytes by which it is told apart."""
    return name.encode(errors=_FOREIGN)


def text_of(name: str | bytes | memoryview) -> str:
    """Return a key or a namespace as a driver reads it."""
    return name if isinstance(name, str) else bytes(name).decode(errors=_FOREIGN)


class _Name(TypeDecorator[str]):
    """Text that is told apart by its bytes.

    Args:
        max_bytes: of UTF-8 that it takes where that must be said.
        is_bytea: whether PostgreSQL has bytes, too, which take NUL and have no collation.
    """

    impl = String
    cache_ok = True

    def __init__(self, max_bytes: int, *, is_bytea: bool = False) -> None:
        super().__init__()
        self.max_bytes = max_bytes
        self.is_bytea = is_bytea

    def is_raw(self, dialect: str) -> bool:
        return dialect in MYSQL or (self.is_bytea and dialect == "postgresql")

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        if dialect.name in MYSQL:
            return dialect.type_descriptor(VARBINARY(self.max_bytes))
        return dialect.type_descriptor(BYTEA() if self.is_raw(dialect.name) else String())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        is_text = isinstance(value, str) and self.is_raw(dialect.name)
        return bytes_of(value) if is_text else value  # type: ignore[arg-type]

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else text_of(value)


def _table(name: str, key: _Name, *more: Column[Any]) -> Table:
    value = LargeBinary().with_variant(LONGBLOB(), *MYSQL)
    return Table(
        name,
        MetaData(),
        Column("namespace", _Name(NAMESPACE_MAX_BYTES), primary_key=True),
        Column("key", key, primary_key=True),
        Column("value", value, nullable=False),
        *more,
    )


OURS: Final = _table(
    "langchain_kv",
    _Name(KEY_MAX_BYTES, is_bytea=True),
    Column("kind", SmallInteger, nullable=False),
    Column("expires_at", BigInteger),
)
UPSTREAM: Final = _table("langchain_key_value_stores", _Name(KEY_MAX_BYTES))


def stored_of(value: Any, code: int = 2, expires_at_ms: int | None = None) -> Stored:
    """Return what a row keeps."""
    payload = bytes(value)
    kind = _KINDS.get(code)
    if kind is Kind.BYTES:
        return Found(payload, kind, expires_at_ms)
    if kind is None:
        return Damaged(f"its kind is {code}, which this version does not know")
    try:
        return Found(parse_json(payload.decode()), kind, expires_at_ms)
    except ValueError:
        return Damaged("the text of the value is not valid JSON")
