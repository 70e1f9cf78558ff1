"""What archived classes and LangGraph's own stores left, by the name of its layout: places that are only read."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from langchain_kv.errors import ConfigError
from langchain_kv.places.base import BackendOptions, Place
from langchain_kv.runtime.forks import importing

if TYPE_CHECKING:
    from langchain_kv.backends.base import Backend
    from langchain_kv.places.sql import SQLPlace

__all__ = ["LAYOUTS", "place_of_layout"]


@dataclass(frozen=True)
class FolderPlace(Place):
    """The folder of a ``LocalFileStore``.

    Attributes:
        path: its absolute path.
    """

    path: str

    @property
    def shown(self) -> str:
        """The path."""
        return f"files:{self.path}"

    def open(self, options: BackendOptions) -> Backend:
        """Return a backend that reads it.

        Raises:
            ConfigError: there is no such folder.
        """
        if not os.path.isdir(self.path):
            raise ConfigError(f"There is no folder {self.path}: give the root_path of the LocalFileStore.")
        with importing.lock:
            from langchain_kv.backends.left_behind import FolderBackend

        return FolderBackend(self.path)


@dataclass(frozen=True)
class LangGraphTablePlace(Place):
    """A database with the table ``store`` of LangGraph.

    Attributes:
        database: PostgreSQL, or a file of SQLite.
    """

    database: SQLPlace

    @property
    def shown(self) -> str:
        """The database."""
        return f"langgraph:{self.database.shown}"

    def open(self, options: BackendOptions) -> Backend:
        """Return a backend that reads it.

        Raises:
            ConfigError: SQLAlchemy or the driver is not installed, or there is no such file.
        """
        path = self.database.file
        if path and not os.path.exists(path):  # SQLite would make it
            raise ConfigError(f"There is no file {path}: give the database of LangGraph's store.")
        engine: Any = self.database.make_engine(is_async=False, timeout_s=options.request_timeout_s)
        with importing.lock:
            from langchain_kv.backends.langgraph_table import LangGraphTableBackend

        return LangGraphTableBackend(engine, self.database.shown)


def _of_files(url: str, _: str) -> Place:
    return FolderPlace(os.path.abspath(os.path.expanduser(url.removeprefix("file://"))))


def _of_sql(url: str, _: str) -> Place:
    return replace(_database(url), of_upstream=True)


def _of_langgraph(url: str, _: str) -> Place:
    return LangGraphTablePlace(_database(url))


def _database(url: str) -> SQLPlace:
    from langchain_kv.places.sql import SQLPlace, parse_sql_url

    scheme, _, rest = url.partition(":")
    if not rest and scheme:
        return parse_sql_url(f"sqlite+sqlalchemy:{url}")  # a path
    if scheme == "sqlite" and not rest.startswith("///"):
        return parse_sql_url(f"sqlite+sqlalchemy:{rest}")
    return SQLPlace(url) if scheme == "sqlite" else parse_sql_url(url)


def _of_redis(url: str, name: str) -> Place:
    from langchain_kv.places.redis import parse_redis_url

    return replace(parse_redis_url(url), prefix=f"{name}/" if name else "")


def _of_upstash(url: str, name: str) -> Place:
    from langchain_kv.places.upstash import parse_upstash_url

    return replace(parse_upstash_url(url), prefix=f"{name}/" if name else "")


def _of_mongodb(url: str, _: str) -> Place:
    from langchain_kv.places.mongodb import parse_mongodb_url

    place = parse_mongodb_url(url)
    if not place.keyspace:
        raise ConfigError("The mongodb: URL names no database: write mongodb://HOST:PORT/DATABASE.")
    return place


def _of_cassandra(url: str, _: str) -> Place:
    from langchain_kv.places.cassandra_tables import CassandraTablesPlace
    from langchain_kv.places.clusters import parse_cluster_url

    cluster = parse_cluster_url(url)
    if not cluster.keyspace:
        raise ConfigError("The cassandra: URL names no keyspace: write cassandra://HOST/KEYSPACE.")
    return CassandraTablesPlace(cluster.keyspace, settings=cluster.settings)


LAYOUTS: Final[dict[str, tuple[Callable[[str, str], Place], str]]] = {
    "files": (_of_files, ""),
    "sql": (_of_sql, "the namespace of the SQLStore"),
    "redis": (_of_redis, ""),
    "mongodb": (_of_mongodb, "the name of the collection"),
    "cassandra": (_of_cassandra, "the name of the table"),
    "upstash": (_of_upstash, ""),
    "langgraph": (_of_langgraph, ""),
}
"""Of each layout what makes a place of a URL and a name, and what the name is, where there must be one.

They are those of ``LocalFileStore``, ``SQLStore``, ``RedisStore`` (whose namespace the name is, where it has one),
``MongoDBStore`` and ``MongoDBByteStore``, ``CassandraByteStore``, ``UpstashRedisStore`` and ``UpstashRedisByteStore``,
and of LangGraph's ``SqliteStore`` and ``PostgresStore``."""


def place_of_layout(layout: str, url: str, name: str | None) -> Place:
    """Return the place of what a class left.

    Args:
        layout: one of LAYOUTS.
        url: of the folder (a path), the file (a path, too), the database or the service.
        name: see LAYOUTS; None where there is none.

    Raises:
        ConfigError: the URL is none, or the layout needs a name.
    """
    make, what = LAYOUTS[layout]
    if what and not name:
        raise ConfigError(f"The layout {layout} needs {what}: give --name.")
    return make(url, name or "")
