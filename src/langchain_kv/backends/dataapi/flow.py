"""How many requests may be under way at once: fewer when the service is overloaded, slowly more when it keeps up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from langchain_kv.errors import BadReplyError, DataAPIError, RequestTimeoutError, StoreError

__all__ = ["CHUNKS_AT_ONCE", "WIDTH_MAX", "Flow", "each", "is_overload"]

T = TypeVar("T")

WIDTH_MAX: Final = 100
"""Requests under way at once of one endpoint and event loop, as long as the service keeps up."""

CHUNKS_AT_ONCE: Final = 64
"""Chunks, or requests that need not be sent, after which a long batch lets others run."""

OVERLOAD_STATUSES: Final = frozenset({429, 503, 504})

OVERLOAD_CODES: Final = frozenset(
    {
        "FAILED_READ_REQUEST",
        "FAILED_WRITE_REQUEST",
        "TIMEOUT_READING_DATA",
        "TIMEOUT_WRITING_DATA",
        "UNAVAILABLE_DATABASE",
        "UNEXPECTED_DRIVER_ERROR",
    }
)
"""Codes of the database behind the Data API not keeping up; the last is also its word for the driver's own timeouts."""


def is_overload(error: StoreError) -> bool:
    """Tell whether an error says that the service has too much to do."""
    if isinstance(error, BadReplyError):
        return error.http_status in OVERLOAD_STATUSES
    if isinstance(error, DataAPIError):
        return error.code in OVERLOAD_CODES and (error.retryable or error.code != "UNEXPECTED_DRIVER_ERROR")
    return isinstance(error, RequestTimeoutError)


class Flow:
    """Shares out turns to send, in the order in which they are asked for; of one event loop.

    Each request that an overloaded service fails halves what is under way, but all those that were sent before the last
    halving together only once; as many successes as there are requests under way allow one more.

    Args:
        most: the bound to start with and to return to.

    Attributes:
        width: how many requests may be under way now, rounded down.
    """

    def __init__(self, most: int = WIDTH_MAX) -> None:
        self.width = float(most)
        self._most = most
        self._under_way = 0
        self._halvings = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def is_free(self) -> bool:
        """Whether a turn is to be had without waiting."""
        return not self._waiting and self._under_way < int(self.width)

    @property
    def is_idle(self) -> bool:
        """Whether no turn is taken and nobody waits for one."""
        return not self._waiting and not self._under_way

    async def enter(self) -> int:
        """Wait for a turn, which ``leave`` ends; return what ``leave`` wants to know of its beginning."""
        if self.is_free:
            self._under_way += 1
        else:
            await self._turn()
        return self._halvings

    def leave(self, entered: int, *, kept_up: bool | None) -> None:
        """End a turn.

        Args:
            entered: what ``enter`` returned.
            kept_up: whether the service did; None where the request does not say.
        """
        if kept_up is True:
            self.width = min(self._most, self.width + 1 / self.width)
        elif kept_up is False and entered == self._halvings:
            self.width = max(1.0, min(self.width, self._under_way) / 2)
            self._halvings += 1
        self._under_way -= 1
        self._hand_on()

    async def _turn(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):  # passed over already
                    self._waiting.remove(turn)
            else:  # it came at the same moment
                self._under_way -= 1
            self._hand_on()
            raise

    def _hand_on(self) -> None:
        while self._waiting and self._under_way < int(self.width):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._under_way += 1


async def each(job: Callable[[T], Awaitable[None]], items: Sequence[T], width: int) -> None:
    """Run ``job`` on each item, at most ``width`` at once. The first exception ends the others before it is raised."""
    if len(items) == 1:
        await job(items[0])
        return
    left = iter(items)

    async def work() -> None:
        for number, item in enumerate(left, 1):
            await job(item)
            if not number % CHUNKS_AT_ONCE:  # jobs that have nothing to wait for let others run, too
                await asyncio.sleep(0)

    failure: BaseException
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(width, len(items))):
                group.create_task(work())
        return
    except BaseExceptionGroup as caught:
        failure = caught.exceptions[0]
    raise failure
