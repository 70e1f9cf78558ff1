"""Long work beside the event loop, or in turns on it: health checks, signals and other requests do not wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from langchain_kv.runtime.work_queue import run_aside

__all__ = ["LARGE_BYTES", "Turns", "apart", "do"]

T = TypeVar("T")

LARGE_BYTES: Final = 256 * 1024
"""JSON text that takes too long to read on the loop: milliseconds, against the tenth of one that a thread costs."""

_TURN_S: Final = 0.005
_APART_MAX: Final = 4
"""Calls of one loop that are apart at once: more would not end sooner, and each holds much memory."""

_places: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]] = WeakKeyDictionary()


async def apart(call: Callable[[], T]) -> T:
    """Run a call on a thread of its own, which keeps no process from ending; return or raise what it does."""
    async with _places.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(_APART_MAX)):
        return await run_aside(call, "langchain-kv large command")


async def do(size_bytes: int, call: Callable[..., T], *args: Any) -> T:
    """Make a call, apart where it has much JSON to read; return what it returned."""
    return call(*args) if size_bytes <= LARGE_BYTES else await apart(lambda: call(*args))


class Turns:
    """Does one command's work document by document, and lets others have their turn in between.

    In a loop ``call(x) if turns.is_mine(size) else await turns.do(size, call, x)`` costs less than to wait each time.
    """

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def is_mine(self, size_bytes: int) -> bool:
        """Whether a call may be made at once: it reads little JSON, and others had their turn a moment ago."""
        return size_bytes <= LARGE_BYTES and time.perf_counter() - self._since <= _TURN_S

    async def do(self, size_bytes: int, call: Callable[..., T], *args: Any) -> T:
        """Let others have their turn, then make a call, apart where it reads much JSON; return what it returned."""
        await asyncio.sleep(0)
        self._since = time.perf_counter()
        return await do(size_bytes, call, *args)
