"""The tables of a file that list its keyspaces and collections."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from langchain_kv.engines.base import CollectionName, Settings
from langchain_kv.engines.catalog import unknown_collection, unknown_keyspace

__all__ = [
    "NO_TABLE",
    "collections_of",
    "drop",
    "keyspaces_of",
    "require_keyspace",
    "settings_in_force",
    "settings_of",
    "table_of",
]

NO_TABLE: Final = "no such table: docs_"
"""How SQLite's error of a collection that was dropped begins."""

_logger = logging.getLogger("langchain_kv")


def table_of(connection: sqlite3.Connection, collection: CollectionName) -> int:
    """Return the number of the collection's table."""
    row = connection.execute("SELECT id FROM collections WHERE keyspace=? AND name=?", collection).fetchone()
    if row is None:
        require_keyspace(connection, collection.keyspace)
        raise unknown_collection(collection)
    table: int = row[0]
    return table


def keyspaces_of(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the keyspaces, in their order."""
    rows = connection.execute("SELECT CAST(name AS BLOB) FROM keyspaces ORDER BY name").fetchall()
    return [_text(name) for (name,) in rows]


def require_keyspace(connection: sqlite3.Connection, keyspace: str) -> None:
    """Raise UnknownKeyspaceError where there is no such keyspace."""
    if connection.execute("SELECT 1 FROM keyspaces WHERE name=?", (keyspace,)).fetchone() is None:
        raise unknown_keyspace(keyspace)


def drop(connection: sqlite3.Connection, where: str, names: Sequence[str]) -> None:
    """Drop the collections that a condition on their names holds for, and their documents."""
    for (table,) in connection.execute(f"SELECT id FROM collections WHERE {where}", names).fetchall():
        connection.execute(f"DROP TABLE docs_{table}")
        connection.execute(f"DROP TABLE IF EXISTS vectors_{table}")
        connection.execute("DELETE FROM collections WHERE id=?", (table,))


def _text(cell: bytes) -> str:
    """Return a text that was read as bytes, because sqlite3 fails on all rows where one text is no UTF-8."""
    return cell.decode(errors="replace")


# -- settings ---------------------------------------------------------------------------------------------------------


def settings_of(connection: sqlite3.Connection, table: int) -> Settings:
    """Return the settings of the collection that has this table; those of one that was damaged as ``{}``."""
    found = connection.execute(
        "SELECT CAST(name AS BLOB), CAST(settings AS BLOB) FROM collections WHERE id=?", (table,)
    ).fetchone()
    if found is None:
        raise sqlite3.OperationalError(NO_TABLE)  # dropped meanwhile, as a query of its documents would find
    settings = _parsed(found[1])
    return _instead_of_damaged(_text(found[0])) if settings is None else settings


def settings_in_force(connection: sqlite3.Connection, collection: CollectionName, wanted: str) -> Settings:
    """Return the settings of a collection that is there. Damaged ones are replaced by those ``wanted``, a JSON text."""
    table = table_of(connection, collection)
    cell = connection.execute("SELECT CAST(settings AS BLOB) FROM collections WHERE id=?", (table,)).fetchone()[0]
    settings = _parsed(cell)
    if settings is None:
        connection.execute("UPDATE collections SET settings=? WHERE id=?", (wanted, table))
        settings = json.loads(wanted)
    return settings


def collections_of(connection: sqlite3.Connection, keyspace: str) -> dict[str, Settings]:
    """Return the settings of a keyspace's collections by their names, in the order of these."""
    require_keyspace(connection, keyspace)
    rows = connection.execute(
        "SELECT CAST(name AS BLOB), CAST(settings AS BLOB) FROM collections WHERE keyspace=? ORDER BY name", (keyspace,)
    ).fetchall()
    found = {_text(name): _parsed(settings) for name, settings in rows}
    return {name: _instead_of_damaged(name) if settings is None else settings for name, settings in found.items()}


def _instead_of_damaged(name: str) -> Settings:
    _logger.warning(
        "The settings of collection '%s' are damaged, so it counts as one without any; its values are not touched."
        " Creating it anew by createCollection stores settings again, or restore the file from a backup",
        name,
    )
    return {}


def _parsed(cell: bytes) -> Settings | None:
    """Return the settings that a cell keeps, None where they were damaged."""
    try:
        settings = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    if not isinstance(settings, dict) or not _is_indexing(settings.get("indexing", {})):
        return None
    vector = settings.get("vector")
    return settings if vector is None or (isinstance(vector, dict) and type(vector.get("dimension")) is int) else None


def _is_indexing(value: Any) -> bool:
    """Whether a value is as createCollection's option ``indexing`` is kept: what reads it relies on that."""
    return isinstance(value, dict) and all(
        isinstance(paths, list) and all(isinstance(path, str) for path in paths) for paths in value.values()
    )
