"""An event loop without sockets and without waiting: where it would wait, its clock jumps to the next timer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

__all__ = ["VirtualLoop", "clock_of"]


class StandstillError(Exception):
    """Every task waits for something that nothing will ever do."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs tasks in virtual time: seconds pass at once, in an order that depends on nothing outside."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._selector = self

    def time(self) -> float:
        return self._now_s

    def select(self, timeout_s: float | None) -> list[Any]:
        """Stand in for the selector: nothing ever comes from outside, so what is waited for is a timer."""
        if timeout_s is None:
            raise StandstillError("every task waits, and no timer is set")
        self._now_s += timeout_s
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        """Do nothing: no other thread has to be woken for."""


@contextmanager
def clock_of(loop: asyncio.AbstractEventLoop, modules: list[ModuleType]) -> Iterator[None]:
    """Let modules that imported ``time.monotonic`` by name read the loop's clock instead."""
    with ExitStack() as stack:
        for module in modules:
            if hasattr(module, "monotonic"):
                stack.enter_context(patch.object(module, "monotonic", loop.time))
        yield
