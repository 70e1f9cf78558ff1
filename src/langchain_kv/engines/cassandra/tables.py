"""The Data API's tables: their layout, the comment that says what a collection is, and the statements on one."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Final

from langchain_kv.engines.base import CollectionName, Settings
from langchain_kv.engines.cassandra.cluster import Session, Statement
from langchain_kv.engines.cassandra.rows import ID_COLUMNS
from langchain_kv.engines.cassandra.shredding import FILTER_COLUMNS
from langchain_kv.engines.cassandra.vectors import VECTOR_COLUMN, column_type, index_options, similarity
from langchain_kv.engines.catalog import no_vectors, unknown_collection, unknown_keyspace
from langchain_kv.engines.indexing import Indexing
from langchain_kv.engines.vectors import Vectors, vectors_of
from langchain_kv.errors import DataAPIError, StoreError

__all__ = [
    "Table",
    "create",
    "create_keyspace",
    "drop",
    "drop_keyspace",
    "find_settings",
    "list_keyspaces",
    "list_settings",
]

FRESH_FOR_S: Final = 10.0
"""Seconds until a table's comment is read again: another program may have dropped it and made it anew."""

_SCHEMA_VERSION: Final = 2

_COLUMNS: Final = {
    "key": "frozen<tuple<tinyint, text>>",
    "tx_id": "timeuuid",
    "doc_json": "text",
    "exist_keys": "set<text>",
    "array_size": "map<text, int>",
    "array_contains": "set<text>",
    "query_bool_values": "map<text, tinyint>",
    "query_dbl_values": "map<text, decimal>",
    "query_text_values": "map<text, text>",
    "query_timestamp_values": "map<text, timestamp>",
    "query_null_values": "set<text>",
}

_INDEXES: Final = {
    "exists_keys": "values(exist_keys)",
    "array_size": "entries(array_size)",
    "array_contains": "values(array_contains)",
    "query_bool_values": "entries(query_bool_values)",
    "query_dbl_values": "entries(query_dbl_values)",
    "query_text_values": "entries(query_text_values)",
    "query_timestamp_values": "entries(query_timestamp_values)",
    "query_null_values": "values(query_null_values)",
}
"""What a collection that indexes anything has an index on, by the end of the index's name."""

_UNKNOWN: Final = ("lexical", "rerank", "schema_version")
"""Settings of collections that only the Data API can write."""

# A tx_id that no row has: so this holds for a row with any other one, and where there is no row.
_NEVER: Final = "00000000-0000-1000-8000-000000000000"

_LISTED: Final = "array_contains CONTAINS ? AND token(key) >= ? AND token(key) <= ?"

# With the key alone a node reads and carries the texts, too (measured: 116 ms for 30 rows of 2.9 MB; with a small
# column beside it 5 ms): hence the tx_id in scan_ids.
_STATEMENTS: Final = {
    "read_one": "SELECT key, doc_json FROM {table} WHERE key = ?",
    "read_many": "SELECT key, doc_json FROM {table} WHERE key IN ?",
    "look_one": "SELECT key, doc_json, tx_id FROM {table} WHERE key = ?",
    "look_many": "SELECT key, doc_json, tx_id FROM {table} WHERE key IN ?",
    "settle": "SELECT tx_id FROM {table} WHERE key = ?",
    "scan_ids": "SELECT key, tx_id FROM {table} WHERE token(key) >= ? AND token(key) <= ? LIMIT ?",
    "scan": "SELECT key, doc_json FROM {table} WHERE token(key) >= ? AND token(key) <= ? LIMIT ?",
    "scan_ids_of": f"SELECT key, tx_id FROM {{table}} WHERE {_LISTED} LIMIT ?",
    "scan_of": f"SELECT key, doc_json FROM {{table}} WHERE {_LISTED} LIMIT ?",
    "nearest": f"SELECT key, {{similarity}} FROM {{table}} ORDER BY {VECTOR_COLUMN} ANN OF ? LIMIT ?",
    "nearest_of": f"SELECT key, {{similarity}} FROM {{table}} WHERE array_contains CONTAINS ?"
    f" ORDER BY {VECTOR_COLUMN} ANN OF ? LIMIT ?",
    "similar_one": "SELECT key, {similarity} FROM {table} WHERE key = ?",
    "similar_many": "SELECT key, {similarity} FROM {table} WHERE key IN ?",
    "delete": "DELETE FROM {table} WHERE key = ? IF EXISTS",
    "remove": "DELETE FROM {table} WHERE key = ? IF tx_id = ?",
}


class Table:
    """A collection's table, with its prepared statements.

    Attributes:
        collection: the collection.
        settings: what it was created with.
        indexing: what it indexes.
        vectors: what its vectors are; None where it has none.
        in_refused: whether the cluster refuses statements that name many keys.
        prepared: the statements, by their names.
    """

    def __init__(self, session: Session, collection: CollectionName, settings: Settings) -> None:
        self.collection = collection
        self.settings = settings
        self.indexing = Indexing.of(settings)
        self.vectors = vectors_of(settings)
        self._checked_at = time.monotonic()
        self.in_refused = False
        self._session = session
        self.prepared: dict[str, Statement] = {}

    @property
    def is_fresh(self) -> bool:
        """Whether the settings were read a moment ago."""
        return time.monotonic() - self._checked_at < FRESH_FOR_S

    def confirm(self, settings: Settings) -> bool:
        """Note that the settings were read again; return whether they are the same."""
        self._checked_at = time.monotonic()
        return settings == self.settings

    def prepare(self, name: str, tag: int = 0) -> Statement:
        """Prepare a statement; blocks."""
        return self._session.prepare(self._cql(name, tag), self.collection)

    def truncate(self) -> None:
        """Remove every row; blocks."""
        self._session.execute(f"TRUNCATE {_quoted(*self.collection)}", collection=self.collection, changes=True)

    @property
    def indexes_only_id(self) -> bool:
        """Whether rows have nothing but their ``_id`` in the filter columns."""
        return self.indexing.is_only_id and self.vectors is None

    @property
    def indexes_more(self) -> bool:
        """Whether rows have more than their ``_id`` in the filter columns: a vector counts as a field that is there."""
        return self.vectors is not None or not (self.indexing.is_only_id or self.indexing.is_nothing)

    def require_writable(self) -> None:
        """Raise CollectionConflictError unless this engine knows how to fill every column."""
        odd: list[str] = [name for name in _UNKNOWN if name in self.settings]
        odd += ["vector.service"] if "service" in (self.settings.get("vector") or {}) else []
        if not odd:
            return
        raise DataAPIError.of(
            "EXISTING_COLLECTION_DIFFERENT_SETTINGS",
            f"Collection '{self.collection.name}' has {', '.join(odd)}, which only the Data API can write: give the URL"
            " of the cluster's Data API (https:...), or use another collection.",
        )

    def require_vectors(self) -> Vectors:
        """Return what its vectors are, or raise the error of a collection without."""
        if self.vectors is None:
            raise no_vectors()
        return self.vectors

    def _cql(self, name: str, tag: int) -> str:
        table = _quoted(*self.collection)
        if name in _STATEMENTS:
            return _STATEMENTS[name].format(table=table, similarity=self.vectors and similarity(self.vectors))
        filters: Sequence[str] = FILTER_COLUMNS if self.indexes_more else ()
        if self.indexes_only_id and name != "replace":  # what replaces a row has its _id
            filters = ("exist_keys", ID_COLUMNS[tag][0])
        columns = ["tx_id", "doc_json", *([VECTOR_COLUMN] if self.vectors else []), *filters]
        if name == "insert":
            marks = ", ".join("?" * (len(columns) + 1))
            return f"INSERT INTO {table} ({', '.join(columns)}, key) VALUES ({marks}) IF NOT EXISTS"
        changes = ", ".join(f"{column} = ?" for column in columns)
        condition = "= ?" if name == "replace" else f"!= {_NEVER}"
        return f"UPDATE {table} SET {changes} WHERE key = ? IF tx_id {condition}"


def find_settings(session: Session, collection: CollectionName) -> Settings:
    """Return what a collection was created with; blocks.

    Raises:
        UnknownCollectionError: there is no such table.
        UnknownKeyspaceError: there is no such keyspace.
        DataAPIError: EXISTING_TABLE_NOT_DATA_API_COLLECTION, CORRUPTED_COLLECTION_SCHEMA.
    """
    rows = session.execute(
        "SELECT comment FROM system_schema.tables WHERE keyspace_name = %s AND table_name = %s", collection
    )
    if not rows:
        _require_keyspace(session, collection.keyspace)
        raise unknown_collection(collection)
    settings = _settings(rows[0][0])
    if settings is None:
        raise DataAPIError.of(
            "EXISTING_TABLE_NOT_DATA_API_COLLECTION",
            f"The table '{collection.name}' in keyspace '{collection.keyspace}' is no collection of the Data API, and"
            " is left alone: choose another name.",
        )
    columns: dict[str, str] = dict(
        session.execute(
            "SELECT column_name, type FROM system_schema.columns WHERE keyspace_name = %s AND table_name = %s",
            collection,
        )
    )
    wrong = ", ".join(name for name, kind in _columns(settings).items() if columns.get(name) != kind)
    if wrong:
        raise DataAPIError.of(
            "CORRUPTED_COLLECTION_SCHEMA",
            f"The table '{collection.name}' in keyspace '{collection.keyspace}' says it is a collection, but its"
            f" columns are not a collection's ({wrong}): choose another name.",
        )
    return settings


def list_settings(session: Session, keyspace: str) -> dict[str, Settings]:
    """Return the settings of each collection of a keyspace, by name, in the order of names; blocks."""
    rows = session.execute("SELECT table_name, comment FROM system_schema.tables WHERE keyspace_name = %s", (keyspace,))
    if not rows:
        _require_keyspace(session, keyspace)
    found = {name: _settings(comment) for name, comment in rows}
    return {name: settings for name, settings in sorted(found.items()) if settings is not None}


def create(session: Session, collection: CollectionName, settings: Settings) -> Settings:
    """Create a collection with all its indexes, or what of it is missing; return the settings in force; blocks.

    Raises:
        DataAPIError: INVALID_CREATE_COLLECTION_OPTIONS for settings that only the Data API can serve;
            UNKNOWN_KEYSPACE; EXISTING_TABLE_NOT_DATA_API_COLLECTION.
    """
    indexing = settings.get("indexing")
    _require_keyspace(session, collection.keyspace)
    exists = session.execute(
        "SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s AND table_name = %s", collection
    )
    if not exists:
        _create_table(session, collection, settings)
    try:
        in_force = find_settings(session, collection)
        if in_force.get("indexing") == indexing and in_force.get("vector") == settings.get("vector"):
            _create_indexes(session, collection, in_force)
    except StoreError as error:
        if not exists:
            error.applied = None  # the table is there, and not all of what belongs to it
        raise
    return in_force


def _create_table(session: Session, collection: CollectionName, settings: Settings) -> None:
    _check_creatable(collection, settings)
    columns = ", ".join(f"{name} {kind}" for name, kind in _columns(settings).items())
    comment = _comment(collection.name, settings).replace("'", "''")
    session.execute(
        f"CREATE TABLE IF NOT EXISTS {_quoted(*collection)} ({columns}, PRIMARY KEY (key)) WITH comment = '{comment}'",
        collection=collection,
        changes=True,
    )


def drop(session: Session, collection: CollectionName) -> None:
    """Drop a collection; a missing one is no error; blocks."""
    rows = session.execute(
        "SELECT comment FROM system_schema.tables WHERE keyspace_name = %s AND table_name = %s", collection
    )
    if not rows:
        _require_keyspace(session, collection.keyspace)
        return
    if _settings(rows[0][0]) is None:
        find_settings(session, collection)  # raises: no table of others is dropped
    session.execute(f"DROP TABLE IF EXISTS {_quoted(*collection)}", collection=collection, changes=True)


def create_keyspace(session: Session, keyspace: str) -> None:
    """Create a keyspace if it is missing; blocks."""
    if _has_keyspace(session, keyspace):
        return
    replication = json.dumps(session.default_replication()).replace("'", "''").replace('"', "'")
    session.execute(f"CREATE KEYSPACE IF NOT EXISTS {_quoted(keyspace)} WITH replication = {replication}", changes=True)


def drop_keyspace(session: Session, keyspace: str) -> None:
    """Drop a keyspace and all in it; a missing one is no error; blocks.

    Raises:
        DataAPIError: UNSUPPORTED_SCHEMA_NAME, for the cluster's own.
    """
    if _is_system(keyspace):
        raise DataAPIError.of(
            "UNSUPPORTED_SCHEMA_NAME", f"The keyspace '{keyspace}' belongs to the cluster itself: name another one."
        )
    session.execute(f"DROP KEYSPACE IF EXISTS {_quoted(keyspace)}", changes=True)


def list_keyspaces(session: Session) -> list[str]:
    """Return the keyspaces but the cluster's own, in the order of their names; blocks."""
    names = [name for (name,) in session.execute("SELECT keyspace_name FROM system_schema.keyspaces")]
    return sorted(name for name in names if not _is_system(name))


def _is_system(keyspace: str) -> bool:
    return keyspace == "system" or keyspace.startswith(("system_", "dse_")) or keyspace in ("dse", "solr_admin")


def _create_indexes(session: Session, collection: CollectionName, settings: Settings) -> None:
    rows = session.execute(
        "SELECT index_name FROM system_schema.indexes WHERE keyspace_name = %s AND table_name = %s", collection
    )
    existing = {name for (name,) in rows}
    wanted = {} if Indexing.of(settings).is_nothing else {suffix: (on, "") for suffix, on in _INDEXES.items()}
    if vectors := vectors_of(settings):
        wanted[VECTOR_COLUMN] = (VECTOR_COLUMN, index_options(vectors))
    for suffix, (target, options) in wanted.items():
        name = f"{collection.name}_{suffix}"
        if name not in existing:
            session.execute(
                f'CREATE CUSTOM INDEX IF NOT EXISTS "{name}" ON {_quoted(*collection)} ({target})'
                f" USING 'StorageAttachedIndex'{options}",
                collection=collection,
                changes=True,
            )


def _columns(settings: Settings) -> dict[str, str]:
    """Return the type of each column of a collection's table, by name."""
    vectors = vectors_of(settings)
    return {**_COLUMNS, VECTOR_COLUMN: column_type(vectors)} if vectors else _COLUMNS


def _quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def _has_keyspace(session: Session, keyspace: str) -> bool:
    cql = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = %s"
    return bool(session.execute(cql, (keyspace,)))


def _require_keyspace(session: Session, keyspace: str) -> None:
    if not _has_keyspace(session, keyspace):
        raise unknown_keyspace(keyspace)


def _check_creatable(collection: CollectionName, settings: Settings) -> None:
    unknown = [name for name in _UNKNOWN if name in settings]
    if unknown:
        raise DataAPIError.of(
            "INVALID_CREATE_COLLECTION_OPTIONS",
            f"The collection '{collection.name}' cannot be created on Apache Cassandra without the real Data API with"
            f" the option '{unknown[0]}': leave it out, or use the Data API.",
        )


def _comment(name: str, settings: Settings) -> str:
    options = {
        **{name: settings[name] for name in ("indexing", "vector") if settings.get(name)},
        "defaultId": settings.get("defaultId") or {"type": ""},
        "lexical": {"enabled": False},
        "rerank": {"enabled": False},
    }
    comment = {"collection": {"name": name, "schema_version": _SCHEMA_VERSION, "options": options}}
    return json.dumps(comment, separators=(",", ":"))


def _settings(comment: str | None) -> Settings | None:
    """Return the settings that a table's comment tells, what is switched off left out; None for no collection."""
    try:
        told = json.loads(comment or "null")
    except ValueError:
        return None
    collection = told.get("collection") if isinstance(told, dict) else None
    if not isinstance(collection, dict):
        return None
    options = collection.get("options")
    options = options if isinstance(options, dict) else {}
    settings: dict[str, Any] = {}
    for name, option in options.items():
        is_off = not option or option == {"type": ""} or (isinstance(option, dict) and option.get("enabled") is False)
        if not is_off:
            settings[name] = _vector_option(option) if name == "vector" else option
    if collection.get("schema_version") != _SCHEMA_VERSION:
        settings["schema_version"] = collection.get("schema_version")
    return settings


def _vector_option(option: dict[str, Any]) -> dict[str, Any]:
    """Return the setting as createCollection spells it; the Data API stores what it puts in by itself in capitals."""
    spelt = {"metric": str(option.get("metric") or "cosine").lower()}
    if option.get("sourceModel"):
        spelt["sourceModel"] = str(option["sourceModel"]).lower().replace("_", "-")
    return {**option, **spelt}
