"""Work that grows with what a caller gives, in slices: a coroutine gives its event loop back between them.

What takes longer for some items than for others is a generator that yields after each part of a few tenths of a
millisecond: a plain call runs it ``whole``, a coroutine ``in_slices``. What takes the same for each is a plain
function, which a coroutine calls for each part (``by_parts``). How large a part is goes by bytes and keys, not by a
clock: the same work takes the same turns of the loop on every machine. However many coroutines are at work, of all
their parts but the first of each one is done in a turn of the loop (``next_turn``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:  # loaded where there is a loop: a command has none
    import asyncio

__all__ = [
    "ITEM_BYTES",
    "SLICE_BYTES",
    "SLICE_KEYS",
    "Steps",
    "by_bytes",
    "by_parts",
    "gathered",
    "in_slices",
    "is_short",
    "next_turn",
    "parts",
    "pieces",
    "whole",
]

T = TypeVar("T")
R = TypeVar("R")

SLICE_BYTES: Final = 128 * 1024
"""Bytes of values that are encoded or parsed in one part: two to five tenths of a millisecond."""

SLICE_KEYS: Final = 2_000
"""Keys that are looked at in one part, where the values take no time."""

ITEM_BYTES: Final = -(-SLICE_BYTES // SLICE_KEYS)
"""What an item counts for in a slice beside its bytes, however few these are."""

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


async def next_turn() -> None:
    """Let the loop run what waits, until a turn comes in which none of the others here works, first come first served.

    With two in one turn, reading large values by 12 requests at once still held up the loop for 20 ms (measured).
    """
    import asyncio

    loop = asyncio.get_running_loop()
    turns = _turns.get(loop)
    if turns is None:
        turns = _turns.setdefault(loop, _Turns())
    await turns.next(loop)


class _Turns:
    """The turns of one event loop. Holds no loop while nobody waits: a loop that was left can go."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_next_taken = False

    async def next(self, loop: asyncio.AbstractEventLoop) -> None:
        import asyncio

        if not self._is_next_taken:
            self._is_next_taken = True
            loop.call_soon(self._admit, loop)
            await asyncio.sleep(0)
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            with suppress(ValueError):  # it was its turn already
                self._waiting.remove(turn)
            raise

    def _admit(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say whose turn the next one is; called in each turn that is taken."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                loop.call_soon(self._admit, loop)
                return
        self._is_next_taken = False


_turns: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns]] = WeakKeyDictionary()


async def in_slices(steps: Steps[T]) -> T:
    """Do the work, and let the loop run what waits after each part. Whoever is cancelled in between does no more."""
    try:
        while True:
            next(steps)
            await next_turn()
    except StopIteration as end:
        result: T = end.value
        return result


def is_short(items: object) -> bool:
    """Tell whether items may be looked at in one part."""
    return isinstance(items, list | tuple) and len(items) <= SLICE_KEYS


async def by_parts(work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> Sequence[R]:
    """Return what ``work`` makes of the items, at most SLICE_KEYS at a time: for work that takes the same for each."""
    if len(items) <= SLICE_KEYS:
        return work(items)
    found: list[R] = []
    for some in parts(items, SLICE_KEYS):
        if found:
            await next_turn()
        found += work(some)
    return found


def parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items, at most ``size`` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def by_bytes(items: Sequence[T], size_of: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """Yield the items in parts of SLICE_BYTES, about, of at most SLICE_KEYS items."""
    start = size_bytes = 0
    for end, item in enumerate(items, 1):
        size_bytes += size_of(item) + ITEM_BYTES
        if size_bytes >= SLICE_BYTES:
            yield items[start:end]
            start, size_bytes = end, 0
    if start < len(items):
        yield items[start:] if start else items


def gathered(items: Iterable[T], count: int) -> Steps[list[T]]:
    """Return the items, which are made as they are taken: ``count`` of them in one part."""
    found: list[T] = []
    for item in items:
        if found and not len(found) % count:
            yield
        found.append(item)
    return found


def pieces(texts: Sequence[bytes], size: int) -> Iterator[bytes | memoryview]:
    """Yield what stands in the texts, one after the other, in pieces of about so many bytes."""
    some: list[bytes] = []
    size_bytes = 0
    for text in texts:
        some.append(text)
        size_bytes += len(text)
        if size_bytes >= size:
            piece = memoryview(b"".join(some))
            for start in range(0, size_bytes, size):
                yield piece[start : start + size]
            some, size_bytes = [], 0
    yield b"".join(some)
