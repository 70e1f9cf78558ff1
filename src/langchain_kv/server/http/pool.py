"""The connections of one server: how many there may be, how long each may take, and their end."""

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ["Pool"]

SWEEP_S = 1.0
"""Seconds between two looks for connections whose time is over."""


class _Member(Protocol):
    """What is asked of a connection."""

    deadline_s: float

    def abort(self) -> None: ...
    def stop(self) -> None: ...
    def expire(self) -> None: ...


class Pool:
    """The connections on one event loop.

    Args:
        most: how many there may be. One more takes the place of the one that has been idle longest.
    """

    def __init__(self, most: int) -> None:
        self.is_stopping = False
        self._most = most
        self._members: set[_Member] = set()
        self._idle: dict[_Member, None] = {}  # the one that has been so longest comes first
        self._removed = asyncio.Event()
        self._sweep()

    def add(self, member: _Member) -> None:
        """Count a connection in; where there are too many, abort another one, or this one where none is idle."""
        self._members.add(member)
        self._idle[member] = None
        if len(self._members) > self._most:
            oldest = next(iter(self._idle))
            self.remove(oldest)
            oldest.abort()

    def remove(self, member: _Member) -> None:
        """Count it out."""
        self._members.discard(member)
        self._idle.pop(member, None)
        self._removed.set()

    def set_idle(self, member: _Member, is_idle: bool) -> None:
        """Note whether nothing is done for it that its client may want."""
        self._idle.pop(member, None)
        if is_idle and member in self._members:
            self._idle[member] = None

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for member in [each for each in self._members if each.deadline_s < now_s]:
            member.expire()
        self._sweeping = loop.call_later(SWEEP_S, self._sweep)

    async def stop(self, patience_s: float) -> None:
        """Close what is idle, let requests under way end, and cut off what takes longer than ``patience_s``."""
        self.is_stopping = True
        for member in list(self._members):
            member.stop()
        await self._wait_until_none(patience_s)
        for member in list(self._members):
            member.abort()
        await self._wait_until_none(1.0)
        self._sweeping.cancel()

    async def _wait_until_none(self, patience_s: float) -> None:
        try:
            async with asyncio.timeout(patience_s):
                while self._members:
                    self._removed.clear()
                    await self._removed.wait()
        except TimeoutError:
            pass
