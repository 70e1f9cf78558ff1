"""``SQLStore`` as langchain_community had it: bytes in a table ``langchain_key_value_stores`` of a SQL database."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped

from langchain_kv.backends.sql_tables import UPSTREAM
from langchain_kv.errors import ConfigError, InvalidValueTypeError
from langchain_kv.places.base import BackendOptions
from langchain_kv.places.sql import SQLPlace
from langchain_kv.stores.base import KVByteStore
from langchain_kv.stores.life import Options
from langchain_kv.stores.setup import SetupMode
from langchain_kv.values.keys import type_name

__all__ = ["LangchainKeyValueStores", "SQLStore", "items_equal"]


def items_equal(x: Any, y: Any) -> bool:
    """Return whether two values are equal, as upstream's function of this name."""
    return bool(x == y)


class Base(DeclarativeBase):
    """The base of the table's class, as upstream has one."""


class LangchainKeyValueStores(Base):
    """A row of the table, for programs that go to it by SQLAlchemy's ORM.

    Attributes:
        namespace: the store's.
        key: the key, within its namespace.
        value: the value.
    """

    __table__ = UPSTREAM

    namespace: Mapped[str]
    key: Mapped[str]
    value: Mapped[bytes]


class SQLStore(KVByteStore):
    """Keeps bytes in a SQL database, in langchain_community's table: each reads what the other wrote.

    Plain calls and coroutines both work on every store. The table has no room for expiry: ``ttl_s`` is refused, and
    ``KVByteStore`` on a URL of the database has it.

    Example:
        >>> store = SQLStore(namespace="test", db_url="sqlite:///:memory:")
        >>> store.create_schema()
        >>> store.mset([("a", b"1")])
        >>> store.mget(["a", "x"])
        [b'1', None]
    """

    namespace: str  # type: ignore[assignment] # upstream's attribute wins; KVByteStore.namespace(store, ...) narrows

    def __init__(
        self,
        *,
        namespace: str,
        db_url: Any = None,
        engine: Any = None,
        engine_kwargs: dict[str, Any] | None = None,
        async_mode: bool | None = None,
    ) -> None:
        """Open a store. Nothing is sent: ``create_schema`` makes the table where it is missing.

        Args:
            namespace: whose keys these are; the table has those of all stores of the database.
            db_url: SQLAlchemy's URL, as text or as an object; the engine is made here, and closed by ``close``.
            engine: an ``Engine`` or an ``AsyncEngine`` in the place of a URL; it is never closed here.
            engine_kwargs: further arguments for ``create_engine``.
            async_mode: for a URL, whether its driver is one of coroutines, which makes an ``AsyncEngine``; None: by the
                driver.

        Raises:
            ConfigError: not one of ``db_url`` and ``engine`` is given, or one that cannot be used (a ValueError).
        """
        if db_url is None and engine is None:
            raise ConfigError("Must specify either db_url or engine")
        if db_url is not None and engine is not None:
            raise ConfigError("Must specify either db_url or engine, not both")
        if not isinstance(namespace, str):
            raise ConfigError(f"namespace must be a string, got {type_name(namespace)}.")
        owned = engine is None
        if engine is None:
            text = db_url if isinstance(db_url, str) else db_url.render_as_string(hide_password=False)
            engine = SQLPlace(text, engine_kwargs or {}).make_engine(is_async=async_mode)
        self.namespace = namespace
        place = SQLPlace(engine, of_upstream=True, owned=owned)
        self._start(place, BackendOptions(namespace, UPSTREAM.name), Options(), SetupMode.OFF, pre_delete=False)

    @property
    def engine(self) -> Any:
        """The ``Engine`` or ``AsyncEngine``."""
        return cast("SQLPlace", self._place).database

    @property
    def dialect(self) -> str:
        """SQLAlchemy's name of the kind of database."""
        return str(self.engine.dialect.name)

    @property
    def async_mode(self) -> bool:
        """Whether it is an ``AsyncEngine``."""
        return not isinstance(self.engine, Engine)

    @property
    def session_maker(self) -> Any:
        """A maker of sessions of SQLAlchemy's ORM on the engine."""
        if self.async_mode:
            from sqlalchemy.ext.asyncio import async_sessionmaker

            return async_sessionmaker(bind=self.engine)
        from sqlalchemy.orm import sessionmaker

        return sessionmaker(bind=self.engine)

    def create_schema(self) -> None:
        """Make the table where it is missing.

        Raises:
            CollectionConflictError: there is one of another shape.
        """
        self._check_open()
        self._backend.open()

    async def acreate_schema(self) -> None:
        """As ``create_schema``."""
        self._check_open()
        await self._backend.aopen()

    def drop(self) -> None:
        """Remove all keys of this namespace. The table stays, for the other namespaces."""
        self.clear()

    def encode_value(self, value: bytes | None) -> Any:
        """Return the bytes, as an exact ``bytes``.

        Raises:
            InvalidValueTypeError: it is None, which the table cannot keep.
        """
        if value is None:
            raise InvalidValueTypeError("A value of this table must be bytes, got None: delete the key instead.")
        return super().encode_value(value)
