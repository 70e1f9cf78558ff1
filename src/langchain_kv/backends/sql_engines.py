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
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["in_transactions", "turns"]


def in_transactions(engine: Any) -> Any:
    """Return the engine, with a level of isolation where it was made for AUTOCOMMIT, in which nothing is a transaction.

    Raises:
        ConfigError: it was derived for AUTOCOMMIT, which another level over it does not end.
    """
    if _is_autocommit(engine.get_execution_options().get("isolation_level")):
        raise ConfigError(
            "The engine was given AUTOCOMMIT by execution_options(), in which nothing is a transaction: give the one"
            " that it was derived from."
        )
    if _is_autocommit(engine.dialect._on_connect_isolation_level):  # what create_engine was given
        level = "SERIALIZABLE" if engine.dialect.name == "sqlite" else "READ COMMITTED"
        return engine.execution_options(isolation_level=level)
    return engine


def _is_autocommit(level: str | None) -> bool:
    return level is not None and level.replace("_", "").upper() == "AUTOCOMMIT"


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
