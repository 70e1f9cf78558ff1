"""What engines that a program made want, so that a transaction on them is one."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy.pool import StaticPool

from langchain_kv.errors import ConfigError
from langchain_kv.runtime import threads
from langchain_kv.runtime.forks import renew_in_child

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["in_transactions", "is_autocommit", "refuse_autocommit", "turns"]


def refuse_autocommit(engine: Any) -> None:
    """Refuse an engine that was derived for AUTOCOMMIT, which another level over it does not end.

    Raises:
        ConfigError: it was.
    """
    level = engine.get_execution_options().get("isolation_level")
    if level is not None and level.replace("_", "").upper() == "AUTOCOMMIT":
        raise ConfigError(
            "The engine was given AUTOCOMMIT by execution_options(), in which nothing is a transaction: give the one"
            " that it was derived from."
        )


def is_autocommit(connection: Connection) -> bool:
    """Tell whether nothing is a transaction on a connection, as it was made. Asks no server."""
    try:
        return connection.dialect.detect_autocommit_setting(connection.connection.dbapi_connection)  # type: ignore[arg-type]
    except NotImplementedError:  # of a driver that SQLAlchemy cannot ask
        return False


def in_transactions(engine: Any) -> Any:
    """Return an engine that was made for AUTOCOMMIT with a level of isolation.

    Raises:
        ConfigError: it has one, and its connections are in AUTOCOMMIT all the same.
    """
    if "isolation_level" in engine.get_execution_options():
        raise ConfigError(
            "The engine's connections are in AUTOCOMMIT whatever level of isolation it is given, and nothing is a"
            " transaction then: give one without."
        )
    level = "SERIALIZABLE" if engine.dialect.name == "sqlite" else "READ COMMITTED"
    return engine.execution_options(isolation_level=level)


class _Turns:
    """Whose turn it is on an engine that has one connection for all, in which transactions would be mixed.

    By its dialect, which engines have in common that were derived from one another.
    """

    def __init__(self) -> None:
        self._after_fork_in_child()
        renew_in_child(self)

    def _after_fork_in_child(self) -> None:
        self._plain: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self._coroutines: WeakKeyDictionary[Any, tuple[Any, asyncio.Lock]] = WeakKeyDictionary()

    def of(self, engine: Engine) -> AbstractContextManager[Any]:
        if not isinstance(engine.pool, StaticPool):
            return nullcontext()
        turn: AbstractContextManager[Any] = self._plain.setdefault(engine.dialect, threads.Mutex())
        return turn

    def aof(self, engine: AsyncEngine) -> AbstractAsyncContextManager[Any]:
        if not isinstance(engine.pool, StaticPool):
            return nullcontext()
        here = asyncio.get_running_loop()
        loop, turn = self._coroutines.get(engine.dialect, (None, None))
        if turn is None or loop is not here:  # a lock belongs to its loop, as the engine does
            turn = asyncio.Lock()
            self._coroutines[engine.dialect] = (here, turn)
        return turn


turns: Final = _Turns()
