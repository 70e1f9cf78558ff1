"""Backends over a client of coroutines, whose connections belong to one event loop, and which a user may have made."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, TypeVar

from langchain_kv.backends.async_base import AsyncBackend
from langchain_kv.backends.base import Page
from langchain_kv.errors import TransportError, UsageError
from langchain_kv.runtime import loop_thread, threads
from langchain_kv.runtime.forks import renew_in_child
from langchain_kv.runtime.work_queue import AsideBridge

__all__ = ["AtHomeBackend"]

T = TypeVar("T")

LOOK_S: Final = 1.0
"""Seconds between two looks at whether the loop that makes a call is there."""


class AtHomeBackend(AsyncBackend):
    """A backend whose client belongs to an event loop, its home: of a user's client the loop that the first store on it
    was made in, else the first that uses it; of ours the loop thread's.

    All stores on one client have one home. Coroutines of other loops and plain calls of other threads are made there.

    Args:
        client: what has the connections.
        owned: whether it is ours.
        moves: whether they can be made anew in another loop where that one has ended; else the client has ended, too.
    """

    def __init__(self, client: Any, *, owned: bool = False, moves: bool = False) -> None:
        self.client = client
        self._owned = owned
        self._moves = moves
        self._aside = AsideBridge()
        here = asyncio._get_running_loop()
        if here is not None and not owned:
            self._home(here)

    def _home(self, here: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
        """Return the client's home, which is ``here`` where it has none."""
        with _homes.lock:
            home = _homes.of.get(id(self.client))
            if home is None:
                weakref.finalize(self.client, _homes.of.pop, id(self.client), None).atexit = False
            if home is None or (self._moves and not home.is_running()):
                home = _homes.of[id(self.client)] = here
            return home

    def _check_elsewhere(self) -> None:
        here = asyncio._get_running_loop()
        if here is not None and here is _homes.of.get(id(self.client)):
            raise UsageError(
                f"A plain call on the event loop of {self!r} would wait for itself: await the method with a leading a;"
                " a store is made there with setup_mode=SetupMode.ASYNC."
            )

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            self._check_elsewhere()
        except UsageError:
            coroutine.close()
            raise
        return super()._run(coroutine)

    def scan(self, prefix: str, *, values: bool) -> Generator[Page]:
        self._check_elsewhere()
        return super().scan(prefix, values=values)

    async def _at_home(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make a call on the loop to which the connections belong."""
        here = asyncio.get_running_loop()
        if self._owned and not loop_thread.owns(here):
            return await self._aside.read(lambda: loop_thread.run(call()))
        home = self._home(here)
        if home is here:
            return await call()
        if not home.is_running():
            raise UsageError(
                f"The event loop that used the client of {self!r} first has ended, and the client with it: make a new"
                " client in each loop, or use one of plain calls, which serves any."
            )
        return await self._made_there(call(), home)

    async def _made_there(self, coroutine: Coroutine[Any, Any, T], home: asyncio.AbstractEventLoop) -> T:
        try:
            future = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, home))
        except RuntimeError:  # it was closed a moment ago
            raise self._abandoned(coroutine) from None
        is_closed = False
        try:
            while not (await asyncio.wait([future], timeout=LOOK_S))[0]:
                if is_closed:  # since the last look: what it had done by then is known by now
                    raise self._abandoned(coroutine)
                is_closed = home.is_closed()
        except asyncio.CancelledError:
            if not home.is_closed():
                future.cancel()
            raise
        return future.result()

    def _abandoned(self, coroutine: Coroutine[Any, Any, Any]) -> TransportError:
        error = TransportError(
            f"The event loop of {self!r} was closed while it was to make this call: end the calls first, or use a"
            " client of plain calls."
        )
        if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
            error.applied = False
            coroutine.close()
        return error


class _Homes:
    """The home of each client, by its identity."""

    def __init__(self) -> None:
        self._after_fork_in_child()
        renew_in_child(self)

    def _after_fork_in_child(self) -> None:
        self.lock = threads.Mutex()
        self.of: dict[int, asyncio.AbstractEventLoop] = {}


_homes: Final = _Homes()
