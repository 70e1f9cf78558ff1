"""The checker: whether what was seen of one key can have happened. It knows nothing of clients, networks or stores.

All possible worlds are followed at once through the calls' beginnings and ends. A world is the value that is stored and
which of the calls under way have had their effect. A call that ends keeps only the worlds in which it had it; when no
world is left, what was seen is impossible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

__all__ = ["ABSENT", "Read", "Violation", "Write", "check"]


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()
"""The value of a key that is not there."""


class Write(NamedTuple):
    """A put, or a delete (which puts ABSENT). At least one of its two ends is known.

    Attributes:
        who: named in a violation.
        invoked: when it began.
        returned: until when it took effect at least once; None where it need not have had any effect.
        repeats_until: until when it may have taken effect any number of times; None means once, until ``returned``.
        value: what it writes.
    """

    who: Any
    invoked: int
    returned: int | None
    repeats_until: int | None
    value: Any


class Read(NamedTuple):
    """A read of the value at some moment between its two ends.

    Attributes:
        fits: tells whether it can have seen a value.
    """

    who: Any
    invoked: int
    returned: int
    fits: Callable[[Any], bool]


class Violation(NamedTuple):
    """What is impossible.

    Attributes:
        who: the first call whose end left no possible world.
        possible: the values that there could have been while it was under way.
    """

    who: Any
    possible: list[Any]


World = tuple[Any, frozenset[int]]
"""The value that is stored, and the numbers of the calls under way that have had their effect."""

_BEGIN, _END, _LAST = 0, 1, 2


def check(writes: Sequence[Write], reads: Sequence[Read], initial: Any = ABSENT) -> Violation | None:
    """Return what is impossible in a history of one key, or None.

    Args:
        writes: every write that may have had an effect.
        reads: every read that saw something.
        initial: the value before all of them.
    """
    calls: list[Write | Read] = [*writes, *reads]
    active: dict[int, Write | Read] = {}
    worlds: set[World] = {(initial, frozenset())}
    for _, event, number in sorted(_events(calls)):
        call = calls[number]
        if event == _BEGIN:
            active[number] = call
            continue
        worlds = _unfolded(worlds, active)
        if event == _END:
            left = {(value, done - {number}) for value, done in worlds if number in done}
            if not left:
                return Violation(call.who, sorted({value for value, _ in worlds}, key=str))
            worlds = left
        if event == _LAST or isinstance(call, Read) or call.repeats_until is None:
            del active[number]
        else:  # it may have more effects, and owes none
            active[number] = call._replace(returned=None)
    return None


def _events(calls: Sequence[Write | Read]) -> list[tuple[int, int, int]]:
    events = []
    for number, call in enumerate(calls):
        events.append((call.invoked, _BEGIN, number))
        if call.returned is not None:
            events.append((call.returned, _END, number))
        if isinstance(call, Write) and call.repeats_until is not None:
            events.append((call.repeats_until, _LAST, number))
    return events


def _unfolded(worlds: set[World], active: dict[int, Write | Read]) -> set[World]:
    """Return the worlds with all that the calls under way can have made of them."""
    reads = [(number, call.fits) for number, call in active.items() if isinstance(call, Read)]
    writes = [(number, call) for number, call in active.items() if isinstance(call, Write)]

    def seen(value: Any, done: frozenset[int]) -> World:
        # A read that can see the value here takes nothing away by seeing it: no need to follow the world without.
        return value, done.union([number for number, fits in reads if number not in done and fits(value)])

    found = {seen(*world) for world in worlds}
    waiting = list(found)
    while waiting:
        _, done = waiting.pop()
        for number, call in writes:
            if call.repeats_until is None and number in done:
                continue
            owes = call.returned is not None
            world = seen(call.value, done | {number} if owes else done)
            if world not in found:
                found.add(world)
                waiting.append(world)
    return found
