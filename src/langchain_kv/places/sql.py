"""``postgresql:``, ``mysql:``, ``mariadb:`` and ``sqlite+sqlalchemy:``, SQL databases that SQLAlchemy reaches."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from langchain_kv.errors import ConfigError
from langchain_kv.limits import REQUEST_TIMEOUT_S
from langchain_kv.places.base import BackendOptions, Place, identity_of_url
from langchain_kv.places.extras import is_installed, require
from langchain_kv.runtime.forks import importing
from langchain_kv.values.keys import type_name

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from langchain_kv.backends.base import Backend
    from langchain_kv.backends.sql import SQLBackend

__all__ = ["SQLPlace", "parse_sql_url"]

_DRIVERS: Final = {
    "postgresql": {"psycopg": "psycopg", "psycopg2": "psycopg2", "asyncpg": "asyncpg"},
    "mysql": {"pymysql": "pymysql", "mysqldb": "MySQLdb", "asyncmy": "asyncmy", "aiomysql": "aiomysql"},
}
"""The drivers of each kind of database, as SQLAlchemy calls them, with their modules: the first that is installed."""

_TIMEOUTS: Final = {
    **dict.fromkeys(("psycopg", "psycopg_async", "psycopg2", "aiomysql"), ("connect_timeout",)),
    "asyncmy": ("connect_timeout", "read_timeout"),
    **dict.fromkeys(("pymysql", "mysqldb"), ("connect_timeout", "read_timeout", "write_timeout")),
    "asyncpg": ("timeout", "command_timeout"),
}
"""How drivers call the seconds, whole ones, that they wait for an answer; some have them for connecting only."""

_ASYNC: Final = ("asyncpg", "asyncmy", "aiomysql", "aiosqlite", "psycopg_async")


@dataclass(frozen=True)
class SQLPlace(Place):
    """A SQL database: one that a URL of SQLAlchemy names, or an engine that the program has.

    A given engine is used, whatever it is, and never closed. An ``AsyncEngine`` belongs to the event loop that it is
    used on: plain calls from other threads run there, too.

    Attributes:
        database: SQLAlchemy's URL, an ``Engine`` or an ``AsyncEngine``.
        engine_options: further arguments for making the engine of a URL, which is only used by SQLAlchemy then.
        of_upstream: whether values are in the table of the archived ``SQLStore``.
        owned: whether a given engine is closed with the store after all.
    """

    database: str | Engine | AsyncEngine = field(repr=False)
    engine_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    of_upstream: bool = False
    owned: bool = False

    @property
    def shown(self) -> str:
        """The URL, without a password and parameters."""
        url = self.database if isinstance(self.database, str) else self.database.url.render_as_string()
        scheme, slashes, rest = url.partition("://")
        if not slashes:  # no URL: it may be anything, such as a driver's own text with a password
            return f"{url.partition(':')[0]}:" if re.match(r"[a-z0-9+_]+:", url) else "the text"
        if not scheme.startswith("sqlite"):
            rest = re.sub(r"^([^@/:]*)[:/].*(?:@|%40)", r"\1:***@", rest, flags=re.DOTALL)
        return f"{scheme}://{rest}".partition("?")[0]

    @property
    def url_shown(self) -> str:
        """As ``shown``; that of a file in our own form."""
        driver = self.shown.partition(":")[0].partition("+")[2] or "sqlalchemy"
        return f"sqlite+{driver}:{self.file}" if self.file else self.shown

    @property
    def file(self) -> str:
        """The path of the file that a URL of SQLite names, else empty."""
        scheme, is_file, path = self.shown.partition(":///")
        return path if is_file and scheme.startswith("sqlite") else ""

    @property
    def identity(self) -> str:
        """With the parameters, such as ``host=`` and ``options=``."""
        return identity_of_url(self.shown, self.database) if isinstance(self.database, str) else self.shown

    def open(self, options: BackendOptions) -> Backend:
        """Return a new backend. A URL has an engine of its own for each store, which is closed with it."""
        require("sqlalchemy", "sql", "SQL databases")
        with importing.lock:
            from langchain_kv.backends.sql import AsyncSQLBackend, SQLBackend
            from langchain_kv.backends.sql_rows import Rows
            from langchain_kv.backends.sql_tables import OURS, UPSTREAM

        owned = self.owned or isinstance(self.database, str)
        engine: Any = (
            self.make_engine(timeout_s=options.request_timeout_s) if isinstance(self.database, str) else self.database
        )
        if not hasattr(getattr(engine, "dialect", None), "name") or hasattr(engine, "closed"):  # which connections have
            raise ConfigError(f"A SQLPlace takes a URL, an Engine or an AsyncEngine, got {type_name(engine)}.")
        table, namespace = OURS, f"{options.keyspace}.{options.collection}"
        if self.of_upstream:
            table, namespace = UPSTREAM, options.collection
        rows = Rows(table, namespace, engine.dialect.name, self.shown)
        if hasattr(engine, "sync_engine"):
            return AsyncSQLBackend(engine, rows, self.shown, owned=owned)
        direct = isinstance(self.database, str) and not self.engine_options and engine.dialect.driver == "psycopg"
        return SQLBackend(engine, rows, self.shown, owned=owned, direct=direct)

    def collections(self, options: BackendOptions) -> list[str]:
        """Return the names of the keyspace's collections that have a value, sorted."""
        with closing(cast("SQLBackend", self.open(options))) as backend:
            names = backend.names()
        if self.of_upstream:
            return sorted(names)
        pairs = (name.rpartition(".") for name in names)
        return sorted(name for keyspace, _, name in pairs if keyspace == options.keyspace)

    def make_engine(
        self, *, is_async: bool | None = None, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> Engine | AsyncEngine:
        """Return a new engine for the URL.

        Args:
            timeout_s: seconds to wait for an answer, where the URL and the arguments say nothing else.
            is_async: whether it is an ``AsyncEngine``; None: where its driver is known for coroutines.

        Raises:
            ConfigError: SQLAlchemy, the driver or greenlet is not installed, or the URL is none.
        """
        require("sqlalchemy", "sql", "SQL databases")
        from sqlalchemy import create_engine
        from sqlalchemy.exc import ArgumentError, InvalidRequestError, NoSuchModuleError

        url = str(self.database)
        driver = url.partition(":")[0].partition("+")[2]
        waits = dict.fromkeys(_TIMEOUTS.get(driver, ()), math.ceil(timeout_s))
        waits = {name: seconds for name, seconds in waits.items() if f"{name}=" not in url.partition("?")[2]}
        options = {"hide_parameters": True, **self.engine_options}  # nothing shows values
        options["connect_args"] = {**waits, **options.get("connect_args", {})}
        try:
            if is_async or (is_async is None and driver in _ASYNC):
                from sqlalchemy.ext.asyncio import create_async_engine

                return create_async_engine(url, **options)
            return create_engine(url, **options)
        except ImportError as error:
            raise ConfigError(f"{self.shown} needs what is not installed: {error}. Install it with pip.") from None
        except (ArgumentError, InvalidRequestError, NoSuchModuleError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{self.shown} is no URL that SQLAlchemy takes ({type(error).__name__}): write"
                " postgresql://USER:PASSWORD@HOST:PORT/DATABASE, say."
            ) from None


def parse_sql_url(url: str) -> SQLPlace:
    """Return the database that a URL names.

    Args:
        url: SQLAlchemy's, where the driver may be left out; ``sqlite+sqlalchemy:PATH`` for a file.

    Raises:
        ConfigError: it names none, or no driver is installed.
    """
    scheme, _, rest = url.partition(":")
    name, _, driver = scheme.lower().partition("+")
    if name == "sqlite":
        path = rest.removeprefix("//")
        if not path.strip("/") or path == ":memory:":
            raise ConfigError("Write sqlite+sqlalchemy:PATH, the path of a file.")
        kind = "sqlite+aiosqlite" if driver == "aiosqlite" else "sqlite"
        path = os.path.abspath(os.path.expanduser(path))
        if "?" in path or "%" in path:  # in SQLAlchemy's URL these mean something else, by its version
            raise ConfigError(
                f"{scheme}: takes no path with ? or %, such as {path}: use another, or give"
                f" SQLPlace(create_engine(URL.create({kind!r}, database=PATH)))."
            )
        return SQLPlace(f"{kind}:///{path}")
    try:
        database = urlsplit(rest).path.strip("/") if rest.startswith("//") else ""
    except ValueError:  # half of an IPv6 address, or a password with a bracket in it
        raise ConfigError(
            f"Write {scheme}://USER:PASSWORD@HOST:PORT/DATABASE, with @ : / ? # % [ ] in user and password"
            " percent-encoded."
        ) from None
    if not database:
        raise ConfigError(f"Write {scheme}://USER:PASSWORD@HOST:PORT/DATABASE, with the name of a database.")
    return SQLPlace(f"{name}+{driver or _driver(name)}:{rest}")


def _driver(name: str) -> str:
    drivers = _DRIVERS["mysql" if name == "mariadb" else name]
    for driver, module in drivers.items():
        if is_installed(module):
            return driver
    raise ConfigError(f"{name}: needs a driver: pip install {next(iter(drivers))} (or {', '.join(list(drivers)[1:])}).")
