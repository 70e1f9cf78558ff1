"""The tables of a database file, and the steps from one version of them to the next.

Version 1: ``docs_N(id, body)``. A body that begins with ``{`` is the text of a document; one that begins with a byte 1
is a raw value without that byte, if what follows is empty or begins with ``{``, a byte 0 or a byte 1, else damage; an
empty one is damage, and one that begins with a byte 0; any other is a raw value as it is. Text or a number, which
another program put there, is the bytes of its text.

Version 2: ``docs_N(id, is_raw, expires_at, content)``, and an index of what expires. A program that opened the file
before it was upgraded goes on with version 1's statements: where it could write what is misread here, or read
what it would misread, they fail, because the body has another name, and new collections say in which version they are
made. The next version is to do the same.

A collection with vectors has a table of them beside, ``vectors_N(seq, id, vector)``, which follows the documents by
triggers, whoever writes these: a vector is never another one's than the body's. ``seq`` grows with every vector that
is written, so that a reader finds what is new to it. The triggers call a function of ours, so that a program which
does not have it cannot write there, rather than leave a vector that is not the document's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from langchain_kv.engines.vectors import VECTOR
from langchain_kv.limits import DEFAULT_KEYSPACE

__all__ = ["COLUMNS", "SCHEMA_VERSION", "columns_of", "make_schema", "make_table", "make_vectors", "upgrade"]

SCHEMA_VERSION: Final = 2
"""The version of the tables (``PRAGMA user_version``): every change of what is stored raises it."""


VECTOR_FUNCTION: Final = "vector_of"
"""The function of SQL that takes a document's vector from its text."""


def make_schema(connection: sqlite3.Connection) -> None:
    """Make the tables of a new database, within the caller's transaction."""
    connection.execute("CREATE TABLE keyspaces(name TEXT PRIMARY KEY NOT NULL)")
    connection.execute(
        "CREATE TABLE collections(id INTEGER PRIMARY KEY AUTOINCREMENT, keyspace TEXT NOT NULL, name TEXT NOT NULL,"
        " settings TEXT NOT NULL, made_in INTEGER NOT NULL DEFAULT 1, UNIQUE(keyspace, name))"
    )
    _refuse_older_collections(connection)
    connection.execute("INSERT INTO keyspaces VALUES(?)", (DEFAULT_KEYSPACE,))
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def make_table(connection: sqlite3.Connection, number: int | None) -> None:
    """Make the table of a collection's rows.

    The number of one that was dropped never comes back (AUTOINCREMENT): nobody's late write can hit another's.
    """
    # A rowid table, because rows of 1 KB in one WITHOUT ROWID spill into overflow pages. What is small stands before
    # the body, so that no overflow page is read for it.
    connection.execute(
        f"CREATE TABLE docs_{number}("
        "id BLOB PRIMARY KEY NOT NULL, is_raw INTEGER NOT NULL DEFAULT 0, expires_at INTEGER, content BLOB NOT NULL)"
    )
    _index_expiry(connection, number)


def make_vectors(connection: sqlite3.Connection, number: int | None) -> None:
    """Make the table of a collection's vectors, after that of its rows."""
    # A number of its own that VACUUM leaves as it is, and that is never given twice.
    connection.execute(
        f"CREATE TABLE vectors_{number}("
        "seq INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, vector BLOB NOT NULL)"
    )
    forget = f"DELETE FROM vectors_{number} WHERE id=OLD.id;"
    # Looked for in the text first, because calling a function takes far longer.
    keep = (
        f"INSERT INTO vectors_{number}(id, vector) SELECT NEW.id, {VECTOR_FUNCTION}(NEW.content)"
        f" WHERE NEW.is_raw=0 AND instr(NEW.content, CAST('\"{VECTOR}\"' AS BLOB));"
    )
    for event, actions in {"INSERT": keep, "UPDATE OF content": forget + keep, "DELETE": forget}.items():
        name = f"vectors_{number}_{event.split()[0].lower()}"
        connection.execute(f"CREATE TRIGGER {name} AFTER {event} ON docs_{number} BEGIN {actions} END")


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring an older database to this version, all or nothing. The file lock is held."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version >= SCHEMA_VERSION:
        return
    try:
        connection.execute("BEGIN IMMEDIATE")
        for step in _STEPS[version - 1 :]:
            step(connection)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def columns_of(connection: sqlite3.Connection) -> str:
    """Return how a whole row is selected from the tables as they are: COLUMNS from those of this version."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    return _COLUMNS_IN_1 if version == 1 else COLUMNS


def _index_expiry(connection: sqlite3.Connection, number: int | None) -> None:
    # Without what never expires: as long as nothing does, it costs nothing.
    connection.execute(f"CREATE INDEX docs_{number}_expiry ON docs_{number}(expires_at) WHERE expires_at IS NOT NULL")


def _refuse_older_collections(connection: sqlite3.Connection) -> None:
    connection.execute(
        f"CREATE TRIGGER older BEFORE INSERT ON collections WHEN NEW.made_in<{SCHEMA_VERSION} BEGIN SELECT RAISE(ABORT,"
        f" 'the file was upgraded to version {SCHEMA_VERSION}: end this program and install the newer langchain-kv');"
        " END"
    )


def _from_1_to_2(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE collections ADD COLUMN made_in INTEGER NOT NULL DEFAULT 1")
    _refuse_older_collections(connection)
    # A table may be missing, in a file that was damaged: what is in the others is written all the same.
    tables = "SELECT collections.id FROM collections JOIN sqlite_master ON type='table' AND sqlite_master.name="
    for (number,) in connection.execute(f"{tables}'docs_' || collections.id").fetchall():
        connection.execute(f"ALTER TABLE docs_{number} ADD COLUMN is_raw INTEGER NOT NULL DEFAULT 0")
        connection.execute(f"ALTER TABLE docs_{number} ADD COLUMN expires_at INTEGER")
        connection.execute(f"UPDATE docs_{number} SET is_raw=1, body={_BODY_IN_1} WHERE {_IS_RAW_IN_1}")
        connection.execute(f"ALTER TABLE docs_{number} RENAME COLUMN body TO content")
        _index_expiry(connection, number)


_BYTES: Final = "CAST(body AS BLOB)"

_IS_RAW_IN_1: Final = (
    f"CASE substr({_BYTES},1,1) WHEN x'7b' THEN 0 WHEN x'00' THEN 0"
    f" WHEN x'01' THEN substr({_BYTES},2,1) IN (x'',x'7b',x'00',x'01') ELSE length({_BYTES})>0 END"
)
"""Whether a body of version 1 is a raw value, as a condition of SQL."""

_BODY_IN_1: Final = f"CASE WHEN {_IS_RAW_IN_1} AND substr({_BYTES},1,1)=x'01' THEN substr({_BYTES},2) ELSE {_BYTES} END"

COLUMNS: Final = "id, CAST(content AS BLOB), is_raw, CASE WHEN expires_at<'' THEN CAST(expires_at AS INTEGER) END"
"""How a whole row is selected: of the types that it was stored with, whatever another program put there (the sqlite3
command makes text of what it inserts). What is no number is no moment: only numbers sort before the empty text."""

_COLUMNS_IN_1: Final = f"id, {_BODY_IN_1}, {_IS_RAW_IN_1}, NULL"

_STEPS: Final[list[Callable[[sqlite3.Connection], None]]] = [_from_1_to_2]
"""The step from each version, beginning with 1, to the next."""
