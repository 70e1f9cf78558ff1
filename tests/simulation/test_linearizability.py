"""The checker: what it lets pass, and what it does not."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import pytest

from simulation.linearizability import ABSENT, Read, Write, check


def write(value: Any, invoked: int, returned: int | None, until: int | None = None) -> Write:
    return Write(f"write {value}", invoked, returned, until, value)


def read(value: Any, invoked: int, returned: int) -> Read:
    return Read(f"read {value}", invoked, returned, lambda stored: stored == value)


POSSIBLE = {
    "nothing at all": ([], []),
    "one after the other": ([write(1, 1, 2)], [read(1, 3, 4)]),
    "a read of nothing": ([], [read(ABSENT, 1, 2)]),
    "a read during the write, before": ([write(1, 1, 4)], [read(ABSENT, 2, 3)]),
    "a read during the write, after": ([write(1, 1, 4)], [read(1, 2, 3)]),
    "two writes at once, the first is last": ([write(1, 1, 4), write(2, 2, 3)], [read(1, 5, 6)]),
    "two writes at once, both seen": ([write(1, 1, 6), write(2, 2, 6)], [read(1, 3, 4), read(2, 4, 5)]),
    "a delete": ([write(1, 1, 2), write(ABSENT, 3, 4)], [read(ABSENT, 5, 6)]),
    "unknown, took effect": ([write(1, 1, None, 2)], [read(1, 3, 4)]),
    "unknown, did not": ([write(1, 1, None, 2)], [read(ABSENT, 3, 4)]),
    "unknown, after it returned": ([write(1, 1, None, 6)], [read(ABSENT, 2, 3), read(1, 4, 5)]),
    "retried, again over another's": ([write(1, 1, 2, 6), write(2, 3, 4)], [read(2, 5, 5), read(1, 7, 8)]),
    "retried, again and again": (
        [write(1, 1, 2, 20), write(2, 3, 4), write(3, 9, 10)],
        [read(2, 5, 6), read(1, 7, 8), read(3, 11, 12), read(1, 13, 14)],
    ),
}
IMPOSSIBLE = {
    "a lost write": ([write(1, 1, 2)], [read(ABSENT, 3, 4)]),
    "a value that nobody wrote": ([write(1, 1, 2)], [read(2, 3, 4)]),
    "a value before it was written": ([write(1, 3, 4)], [read(1, 1, 2)]),
    "back to the value before": ([write(1, 1, 2), write(2, 3, 4)], [read(1, 5, 6)]),
    "seen, then unseen": ([write(1, 1, 9)], [read(1, 2, 3), read(ABSENT, 4, 5)]),
    "seen twice with another's between": (
        [write(1, 1, 9), write(2, 1, 9)],
        [read(1, 2, 3), read(2, 4, 5), read(1, 6, 7)],
    ),
    "unknown, took effect and was undone": ([write(1, 1, None, 2)], [read(1, 3, 4), read(ABSENT, 5, 6)]),
    "unknown, after its last request": ([write(1, 1, None, 4)], [read(ABSENT, 5, 6), read(1, 7, 8)]),
    "retried, after its last request": ([write(1, 1, 2, 5), write(2, 3, 4)], [read(2, 6, 7), read(1, 8, 9)]),
    "retried, acknowledged and not there": ([write(1, 1, 2, 9)], [read(ABSENT, 3, 4)]),
    "a delete that did nothing": ([write(1, 1, 2), write(ABSENT, 3, 4)], [read(1, 5, 6)]),
}


@pytest.mark.parametrize("name", POSSIBLE)
def test_what_can_have_happened_passes(name: str) -> None:
    assert check(*POSSIBLE[name]) is None


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_have_happened_does_not(name: str) -> None:
    writes, reads = IMPOSSIBLE[name]
    violation = check(writes, reads)

    assert violation is not None
    assert violation.who in {call.who for call in reads}


def test_the_violation_says_which_values_there_could_have_been() -> None:
    violation = check([write(1, 1, 2), write(2, 1, 2)], [read(3, 3, 4)])

    assert violation is not None
    assert violation.possible == [1, 2]


def by_all_orders(writes: list[Write], reads: list[Read]) -> bool:
    """Tell by trying every order of all calls whether one explains the reads."""
    calls: list[Any] = [*writes, *reads]
    for order in itertools.permutations(calls):
        if any(late.returned < early.invoked for early, late in itertools.combinations(order, 2)):
            continue
        value: Any = ABSENT
        for call in order:
            if isinstance(call, Write):
                value = call.value
            elif not call.fits(value):
                break
        else:
            return True
    return False


def test_it_agrees_with_trying_every_order() -> None:
    dice = Random(5)
    answers = []
    for _ in range(400):
        ticks = dice.sample(range(12), 12)
        ends = [sorted(ticks[at : at + 2]) for at in range(0, 10, 2)]
        writes = [write(number, *ends[number]) for number in range(1, 3)]
        reads = [read(dice.choice((ABSENT, 1, 2)), *ends[number]) for number in (0, 3, 4)]
        answers.append(by_all_orders(writes, reads))
        assert (check(writes, reads) is None) == answers[-1], (writes, reads)

    assert 0.2 < sum(answers) / len(answers) < 0.8
