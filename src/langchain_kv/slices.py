"""Work that grows with what a caller gives, in slices: a coroutine gives its event loop back between them.

What is done to a batch is written once, as a generator that yields after each part of a few tenths of a millisecond. A
plain call runs it ``whole``, a coroutine ``in_slices``. How large a part is goes by bytes and keys, not by a clock: the
same work takes the same turns of the loop on every machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Final, TypeVar

__all__ = ["SLICE_BYTES", "SLICE_KEYS", "Steps", "gathered", "in_slices", "parts", "whole"]

T = TypeVar("T")

SLICE_BYTES: Final = 128 * 1024
"""Bytes of values that are encoded or parsed in one part: two to five tenths of a millisecond."""

SLICE_KEYS: Final = 2_000
"""Keys that are looked at in one part, where the values take no time."""

Steps = Generator[None, None, T]
"""Work in parts, and what it returns. A batch of one part yields nothing, and so costs no turn of the loop."""


def whole(steps: Steps[T]) -> T:
    """Do all of the work; return what it returns."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result: T = end.value
        return result


async def in_slices(steps: Steps[T]) -> T:
    """Do the work, and let the loop run what waits after each part. Whoever is cancelled in between does no more."""
    try:
        while True:
            next(steps)
            await asyncio.sleep(0)
    except StopIteration as end:
        result: T = end.value
        return result


def parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items, at most ``size`` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def gathered(items: Iterable[T], count: int) -> Steps[list[T]]:
    """Return the items, which are made as they are taken: ``count`` of them in one part."""
    found: list[T] = []
    for item in items:
        if found and not len(found) % count:
            yield
        found.append(item)
    return found
