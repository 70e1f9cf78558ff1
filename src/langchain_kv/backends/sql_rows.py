"""The statements on the rows of a SQL database's table that keep records, as functions of a connection."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from langchain_kv import limits
from langchain_kv.backends.base import Change, Kind, Merge, Page, Record, Stored, is_alive
from langchain_kv.backends.sql_driver import ByDriver
from langchain_kv.backends.sql_statements import KEYS, LATER, NOW, SOME, Statements
from langchain_kv.backends.sql_tables import (
    CODES,
    KEY_MAX_BYTES,
    MYSQL,
    NAMESPACE_MAX_BYTES,
    OURS,
    UPSTREAM,
    bytes_of,
    stored_of,
    text_of,
)
from langchain_kv.engines.base import Ending
from langchain_kv.engines.ids import prefix_end
from langchain_kv.errors import (
    CollectionConflictError,
    ConfigError,
    DataAPIError,
    InvalidKeyError,
    InvalidValueError,
    UnsupportedError,
)
from langchain_kv.runtime.clock import now_ms
from langchain_kv.values.keys import shown
from langchain_kv.values.namespaces import tree_range

__all__ = ["ChangeError", "RacedError", "Rows"]

CHUNK: Final = 500
"""Keys of one statement where each is a parameter."""

PAGE_KEYS: Final = 1_000
PAGE_BYTES: Final = 4 * 1024 * 1024
PAGE_ROWS: Final = 10_000
_UPSTREAM_KEY_MAX_BYTES: Final = 1_000_000
_OF_JSON: Final = (Kind.JSON, Kind.TEXT)

_logger = logging.getLogger("langchain_kv")


class RacedError(Exception):
    """Another writer came between: the transaction is to be run again."""


class ChangeError(Exception):
    """What a function of the user's raised, which is the cause."""


class Rows:
    """The rows of one namespace of a table.

    Args:
        table: OURS or UPSTREAM.
        namespace: whose rows these are.
        dialect: SQLAlchemy's name of the kind of database.
        shown: the store, in messages.

    Raises:
        ConfigError: it is a kind of database that has not what this needs, or takes no namespace as long as this.
    """

    def __init__(self, table: sa.Table, namespace: str, dialect: str, shown: str) -> None:
        if dialect not in ("postgresql", "sqlite", *MYSQL):
            raise ConfigError(
                f"Values are kept in PostgreSQL, MySQL, MariaDB and SQLite, not in {dialect}: use one of them."
            )
        if dialect in MYSQL and len(namespace.encode()) > NAMESPACE_MAX_BYTES:
            raise ConfigError(
                f"A namespace takes at most {NAMESPACE_MAX_BYTES} bytes in {dialect}, this one has"
                f" {len(namespace.encode()):,}: choose a shorter one."
            )
        self._table = table
        self._namespace = namespace
        self._dialect = dialect
        self._shown = shown
        self._key: sa.Column[str] = table.c.key
        self._own = table.c.namespace == namespace
        self._expires = "expires_at" in table.c
        self._read = [column for column in table.c if column.name != "namespace"]
        self._statements = Statements(table, namespace, dialect)
        self._packet_bytes: int | None = None
        self._by_driver = ByDriver()
        self._is_raw = self._key.type.is_raw(dialect)  # type: ignore[attr-defined]
        self._driver_namespace = bytes_of(namespace) if dialect in MYSQL else namespace

    @property
    def key_max_bytes(self) -> int:
        """How many bytes a key may take. In upstream's table on PostgreSQL that is by how well it is compressed."""
        if self._dialect in MYSQL or (self._dialect == "postgresql" and self._table is OURS):
            return KEY_MAX_BYTES
        return limits.KEY_MAX_BYTES if self._table is OURS else _UPSTREAM_KEY_MAX_BYTES

    # -- reading ------------------------------------------------------------------------------------------------------

    def get(self, connection: sa.Connection, keys: Sequence[str]) -> list[Stored | None]:
        found = self._found(connection, keys)
        return [found.get(key) for key in keys]

    def _found(self, connection: sa.Connection, keys: Sequence[str]) -> dict[str, Stored]:
        now = now_ms()
        found: dict[str, Stored] = {}
        rest: list[Any]
        for some in self._chunks(keys):
            for key, *rest in self._carry_out(connection, self._statements.select, self._these(some)).fetchall():
                stored = stored_of(*rest)
                if is_alive(stored, now):
                    found[text_of(key)] = stored
        return found

    def page(self, connection: sa.Connection, prefix: str, after: str | None, values: bool) -> tuple[Page, str | None]:
        """Return the next page of a scan, and after which key the one after it begins: None at the end."""
        size = sa.func.length(self._table.c.value) if values else sa.literal(0)
        where = [*self._conditions(prefix), *([] if after is None else [self._key > after])]
        rows = connection.execute(sa.select(self._key, size).where(*where).order_by(self._key).limit(PAGE_KEYS)).all()
        keys: list[str] = []
        left = PAGE_BYTES
        for key, size_bytes in rows:
            if keys and left < size_bytes:
                break
            left -= size_bytes
            keys.append(key)
        more = keys[-1] if len(keys) == PAGE_KEYS or len(keys) < len(rows) else None
        texts = [key for key in keys if _is_text(key)]
        if len(texts) < len(keys):
            _logger.warning("%s has keys that are no UTF-8, written by others: they are left out", self._shown)
        if not values:
            return [(key, None) for key in texts], more
        found = self._found(connection, texts)
        return [(key, found[key]) for key in texts if key in found], more

    def keys_by_ending(
        self, connection: sa.Connection, tree: str, ending: Ending, limit: int | None
    ) -> list[str] | None:
        """See ``Backend.keys_by_ending``."""
        if not self._expires:
            return None
        start, end = tree_range(tree)
        found = self._statements.ending(ending).where(*self._conditions(""), self._key >= start, self._key < end)
        if limit is not None:
            text = found.selected_columns.text
            found = found.order_by(text.is_(None).desc(), text.desc(), self._key).limit(limit)
        rows = connection.execute(found).all()
        if any(text is None for _, text in rows):
            return None
        ranked = sorted([(key, bytes(text)) for key, text in rows if _is_text(key)])
        ranked.sort(key=itemgetter(1), reverse=True)
        return [key for key, _ in ranked]

    def count(self, connection: sa.Connection, prefix: str) -> int:
        return int(connection.scalar(sa.select(sa.func.count()).where(*self._conditions(prefix))) or 0)

    # -- writing ------------------------------------------------------------------------------------------------------

    def put(self, connection: sa.Connection, records: Sequence[Record]) -> None:
        self.check(connection, records)
        # In the order of their keys: two writers that hold rows and wait for each other's would be a deadlock.
        ordered = sorted(records, key=lambda record: record.key)
        if self._dialect == "postgresql":
            for some in _by_bytes(ordered):
                self._by_driver.arrays(connection, self._statements.put(len(some) == 1), self._new(some))
        elif ordered:
            self._by_driver.rows(connection, self._statements.upsert, [self._row(record) for record in ordered])

    def is_put_at_once(self, records: Sequence[Record]) -> bool:
        """Whether ``put`` stores them by one statement, in whatever order it takes them."""
        if len(records) == 1:
            return True
        is_short = self._dialect == "postgresql" and 0 < len(records) <= PAGE_ROWS
        return is_short and sum([len(record.payload) for record in records]) <= PAGE_BYTES

    def delete(self, connection: sa.Connection, keys: Sequence[str]) -> None:
        for some in self._chunks(sorted(keys)):
            self._carry_out(connection, self._statements.delete, self._these(some))

    def add(self, connection: sa.Connection, records: Sequence[Record]) -> list[bool]:
        self.check(connection, records)
        if self._expires:  # looked for first: to remove a row that is not there locks a gap of the index on InnoDB
            now = {NOW: now_ms()}
            for some in self._chunks(sorted(record.key for record in records)):
                old = sorted(connection.scalars(self._statements.select_expired, self._these(some) | now))
                if old:  # that they have expired is said again: another may have stored them anew meanwhile
                    connection.execute(self._statements.delete_expired, self._these(old) | now)
        added: dict[str, bool] = {}
        for record in sorted(records, key=lambda record: record.key):
            added[record.key] = self._insert(connection, record)
        return [added[record.key] for record in records]

    def update(self, connection: sa.Connection, key: str, change: Change) -> None:
        if self._dialect == "sqlite":  # where a write that changes nothing is the lock
            connection.execute(self._statements.lock, self._these([key]))
        row = connection.execute(self._statements.select_locked, self._these([key])).first()
        stored = None if row is None else stored_of(*row[1:])
        try:
            record = change(stored if stored is not None and is_alive(stored, now_ms()) else None)
        except Exception as error:
            raise ChangeError from error
        if record is not None and row is None:
            self.check(connection, [record])
            if not self._insert(connection, record):
                raise RacedError
        elif record is not None:
            self.put(connection, [record])
        elif row is not None:
            self.delete(connection, [key])

    def ending_of(self, records: Sequence[Record], merge: Merge) -> Ending | None:
        """Return by which ending ``merge_at_once`` is for them; None where it is not."""
        is_usual = (
            self._dialect == "postgresql" and self._expires and all(record.kind in _OF_JSON for record in records)
        )
        return merge.ending if is_usual else None

    def merge_at_once(self, connection: sa.Connection, records: Sequence[Record], ending: Ending) -> bool:
        """Merge by one statement, or some if they are large; return whether all were. The others are not stored."""
        self.check(connection, records)
        now, stored = {NOW: now_ms()}, 0
        for some in _by_bytes(sorted(records, key=lambda record: record.key)):
            statement = self._statements.merge(len(some) == 1, ending)
            stored += self._by_driver.arrays(connection, statement, self._new(some) | now).rowcount
        return stored == len(records)

    def merge(self, connection: sa.Connection, records: Sequence[Record], merge: Merge) -> None:
        ending = self.ending_of(records, merge)
        if ending is not None and self.merge_at_once(connection, records, ending):
            return
        self.check(connection, records)
        by_key = {record.key: record for record in sorted(records, key=lambda record: record.key)}
        now = now_ms()
        there: list[Record] = []
        rest: list[Any]
        for some in self._chunks(list(by_key)):
            if self._dialect == "sqlite":  # as in update
                connection.execute(self._statements.lock, self._these(some[:1]))
            for key, *rest in self._carry_out(connection, self._statements.select_locked, self._these(some)).fetchall():
                record, stored = by_key.pop(text_of(key)), stored_of(*rest)
                there.append(_merged(merge, record, stored) if is_alive(stored, now) else record)
        self.put(connection, there)
        try:
            self._insert_all(connection, list(by_key.values()))
        except sa.exc.IntegrityError as error:
            raise RacedError from error

    def touch(self, connection: sa.Connection, keys: Sequence[str], expires_at_ms: int) -> None:
        if not self._expires:
            return
        for some in self._chunks(sorted(keys)):
            connection.execute(self._statements.postpone, self._these(some) | {NOW: now_ms(), LATER: expires_at_ms})

    def clear(self, connection: sa.Connection, prefix: str) -> None:
        connection.execute(sa.delete(self._table).where(*self._conditions(prefix, expired=True)))

    def names(self, connection: sa.Connection) -> list[str]:
        """Return the namespaces that the table has rows of."""
        return list(connection.scalars(sa.select(self._table.c.namespace).distinct()))

    def purge(self, connection: sa.Connection) -> int:
        """Remove some rows that have expired; return how many."""
        if not self._expires:
            return 0
        now = {NOW: now_ms()}
        keys = list(connection.scalars(self._statements.select_some_expired, now | {SOME: PAGE_KEYS}))
        removed = 0
        for some in self._chunks(sorted(keys)):
            removed += connection.execute(self._statements.delete_expired, self._these(some) | now).rowcount
        return removed

    # -- the table ----------------------------------------------------------------------------------------------------

    def create(self, connection: sa.Connection) -> None:
        self._table.create(connection, checkfirst=True)

    def check_table(self, connection: sa.Connection) -> None:
        """Refuse a table of another shape.

        Raises:
            CollectionConflictError: it is one.
            UnknownCollectionError: there is none.
        """
        looker = sa.inspect(connection)
        # Where statements look for it; a look at the database does not see to that by itself.
        schema = (connection.get_execution_options().get("schema_translate_map") or {}).get(None)
        if not looker.has_table(self._table.name, schema):
            raise self.missing()
        columns = looker.get_columns(self._table.name, schema)
        lacking = set(self._table.c.keys()).difference(each["name"] for each in columns)
        if lacking:
            raise CollectionConflictError(
                f"The table {self._table.name} of {self._shown} lacks the columns {', '.join(sorted(lacking))}: others"
                " made it. Use another database, or rename that table."
            )

    def missing(self) -> DataAPIError:
        """Return the error of a table that does not exist."""
        return DataAPIError.of(
            "UNKNOWN_COLLECTION_OR_TABLE",
            f"{self._shown} has no table {self._table.name}: make it with setup_mode=SetupMode.SYNC, or create_schema()"
            " of SQLStore.",
        )

    # -- inside -------------------------------------------------------------------------------------------------------

    def _chunks(self, keys: Sequence[str]) -> Iterator[Sequence[str]]:
        size = len(keys) if self._dialect == "postgresql" else CHUNK  # as one parameter, an array
        for start in range(0, len(keys), size or 1):
            yield keys[start : start + size]

    def _these(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return the parameters of a statement about these keys."""
        if self._dialect != "postgresql":
            return {KEYS: list(keys)}
        self._refuse_nul(keys)
        return {KEYS: [bytes_of(key) for key in keys] if self._is_raw else list(keys)}

    def _conditions(self, prefix: str, *, expired: bool = False) -> list[sa.ColumnElement[bool]]:
        conditions: list[sa.ColumnElement[bool]] = [self._own]
        if self._expires and not expired:
            moment = self._table.c.expires_at
            conditions.append(sa.or_(moment.is_(None), moment > now_ms()))
        if prefix and self._dialect == "postgresql" and self._table is UPSTREAM:  # ordered by a language's rules
            self._refuse_nul([prefix])
            conditions.append(sa.func.starts_with(self._key, prefix))
        elif prefix:
            end = prefix_end(prefix)
            conditions += [self._key >= prefix, *([] if end is None else [self._key < end])]
        return conditions

    def _refuse_nul(self, keys: Sequence[str]) -> None:
        key = None if self._table is OURS else next((key for key in keys if "\0" in key), None)
        if key is not None:
            raise InvalidKeyError(
                f"Key {shown(key)} holds NUL, which text of PostgreSQL cannot: leave it out, or use KVByteStore, whose"
                " table takes it."
            )

    def check(self, connection: sa.Connection, records: Sequence[Record]) -> None:
        """Refuse records that the table, or the server, would."""
        if self._dialect == "postgresql":
            self._refuse_nul([record.key for record in records])
        if not self._expires and any(record.expires_at_ms is not None for record in records):
            raise UnsupportedError(
                f"The table {self._table.name} has no room for a moment of expiry: leave ttl_s out, or use KVByteStore"
                " on this database, whose table has it."
            )
        if self._dialect in MYSQL:
            self._check_packets(connection, records)

    def _check_packets(self, connection: sa.Connection, records: Sequence[Record]) -> None:
        """Refuse a value that the server would end the connection for. Drivers write a byte as two characters."""
        if self._packet_bytes is None:
            self._packet_bytes = int(connection.exec_driver_sql("SELECT @@max_allowed_packet").scalar() or 0)
        fitting = (self._packet_bytes - 16_384) // 2  # with the statement and the key
        large = next((record for record in records if len(record.payload) > fitting), None)
        if large is not None:
            raise InvalidValueError(
                f"The value of key {shown(large.key)} has {len(large.payload):,} bytes, the limit is {fitting:,}, half"
                " of the server's max_allowed_packet: split it over several keys, or raise that setting of the server."
            )

    def _row(self, record: Record) -> dict[str, Any]:
        row: dict[str, Any] = {
            "namespace": self._driver_namespace,
            "key": bytes_of(record.key) if self._is_raw else record.key,
            "value": record.payload,
        }
        if self._expires:
            row |= {"kind": CODES[record.kind], "expires_at": record.expires_at_ms}
        return row

    def _insert(self, connection: sa.Connection, record: Record) -> bool:
        """Store a record whose key is absent; return whether it was."""
        if self._dialect in MYSQL:
            try:  # not IGNORE, which cuts what is too long, and has drivers print the key; the transaction goes on
                connection.execute(sa.insert(self._table).values(**self._row(record)))
            except sa.exc.IntegrityError:
                return False
            return True
        insert = postgresql.insert if self._dialect == "postgresql" else sqlite.insert
        statement = insert(self._table).on_conflict_do_nothing().values(**self._row(record))
        return connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount == 1

    def _insert_all(self, connection: sa.Connection, records: Sequence[Record]) -> None:
        if self._dialect == "postgresql":
            for some in _by_bytes(records):
                self._by_driver.arrays(connection, self._statements.insert_new(len(some) == 1), self._new(some))
        elif records:
            self._by_driver.rows(connection, self._statements.insert_row, [self._row(record) for record in records])

    def _new(self, records: Sequence[Record]) -> dict[str, Any]:
        """Return the parameters of PostgreSQL's statements that store records."""
        rows = [self._row(record) for record in records]
        if len(rows) == 1:
            return {f"{each.name}_one": rows[0][each.name] for each in self._read}
        return {f"{each.name}_array": [row[each.name] for row in rows] for each in self._read}

    def _carry_out(self, connection: sa.Connection, statement: Any, values: dict[str, Any]) -> Any:
        """Carry out a statement about these keys."""
        if self._dialect != "postgresql":
            return connection.execute(statement, values)
        return self._by_driver.arrays(connection, statement, values)


def _merged(merge: Merge, record: Record, stored: Stored) -> Record:
    try:
        return merge(record, stored)
    except Exception as error:
        raise ChangeError from error


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _by_bytes(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    start = size = 0
    for end, record in enumerate(records):
        if size > PAGE_BYTES or end - start == PAGE_ROWS:
            yield records[start:end]
            start, size = end, 0
        size += len(record.payload)
    if start < len(records):
        yield records[start:]
