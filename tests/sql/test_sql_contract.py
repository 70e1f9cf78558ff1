"""The shipped contracts on SQL databases: SQLite, PostgreSQL, MariaDB, by drivers of plain calls and of coroutines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from sqlalchemy import create_engine, select

from langchain_kv import Backend, BackendOptions
from langchain_kv.backends.sql_tables import KEY_MAX_BYTES, OURS
from langchain_kv.places.schemes import parse_url
from langchain_kv.testing import BackendContract, StoreContract
from sql_servers import alchemy_url


class TestSQLBackend(BackendContract):
    @pytest.fixture(autouse=True)
    def _lives_on(self, database: str) -> None:
        self.database = database

    def open(self, collection: str) -> Backend:
        return parse_url(self.database).open(BackendOptions(collection, "default_keyspace"))


class TestSQLStore(StoreContract):
    allows_empty_key = True

    @pytest.fixture(autouse=True)
    def _lives_on(self, database: str) -> None:
        self.database = database
        if not database.startswith("sqlite"):
            self.key_max_bytes = KEY_MAX_BYTES

    def open(self, collection: str, kind: type[Any], **options: Any) -> Any:
        return kind(collection, self.database, **options)

    def peek(self, collection: str) -> Iterable[str]:
        url = (
            self.database.replace("asyncpg", "psycopg").replace("asyncmy", "pymysql").replace("aiosqlite", "sqlalchemy")
        )
        engine = create_engine(alchemy_url(url))
        with engine.connect() as connection:
            keys = connection.scalars(select(OURS.c.key).where(OURS.c.namespace == f"default_keyspace.{collection}"))
            found = list(keys)
        engine.dispose()
        return found
