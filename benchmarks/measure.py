"""Interleaved timing: every contender once a round, in an order that turns, each answer checked."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Figures", "Sample", "Subject", "compare", "resident_bytes"]


class Sample(NamedTuple):
    """One timing: seconds of the clock, and of this process's processors.

    Attributes:
        grown_bytes: by how much its resident memory grew at its peak (Linux; elsewhere 0).
    """

    wall_s: float
    cpu_s: float
    grown_bytes: int = 0


class Subject(NamedTuple):
    """One contender at one row.

    Attributes:
        name: of the contender.
        before: makes ready; not timed. Given the round's number.
        work: what is timed; a coroutine function where the row is async. Its result goes to ``check``.
        check: raises AssertionError where the result is wrong: a wrong answer is not a time.
        after: cleans up; not timed.
    """

    name: str
    before: Callable[[int], Any]
    work: Callable[[int], Any]
    check: Callable[[int, Any], None]
    after: Callable[[int], Any]


class Figures(NamedTuple):
    """What a contender's samples amount to, and its ratios to the row's reference, pair by pair.

    Attributes:
        error: why there are none.
    """

    name: str
    samples: list[Sample]
    error: str = ""

    @property
    def wall_s(self) -> float:
        return statistics.median(sample.wall_s for sample in self.samples)

    @property
    def cpu_s(self) -> float:
        return statistics.median(sample.cpu_s for sample in self.samples)

    @property
    def grown_bytes(self) -> int:
        return int(statistics.median(sample.grown_bytes for sample in self.samples))

    def above(self, other: Figures) -> float:
        """Return the median of the seconds by which this one's sample took longer than the other's of its pair."""
        return statistics.median(
            mine.wall_s - others.wall_s for mine, others in zip(self.samples, other.samples, strict=False)
        )

    def ratio(self, other: Figures, part: str = "wall_s") -> tuple[float, float, float]:
        """Return the median of the pairs' ratios, and their lower and upper quartile."""
        pairs = sorted(
            getattr(mine, part) / max(getattr(others, part), 1e-9)
            for mine, others in zip(self.samples, other.samples, strict=False)
        )
        quarter = len(pairs) // 4
        return statistics.median(pairs), pairs[quarter], pairs[-1 - quarter]


def compare(
    subjects: Sequence[Subject],
    *,
    rounds: int,
    runner: asyncio.Runner | None = None,
    limit_s: float = 60.0,
    least: int = 15,
    peers_least: int = 4,
) -> list[Figures]:
    """Time the subjects in turn.

    Args:
        subjects: the contenders; one that raises is left out from then on, and its figures hold the error.
        rounds: how often each is timed, after one round that does not count.
        runner: for an async row: its loop runs every subject.
        limit_s: no further round begins after so many seconds, once there are the fewest samples.
        least: the fewest samples of the first two, the floor and ours.
        peers_least: the fewest of the others, which may take minutes.
    """
    figures = {subject.name: Figures(subject.name, []) for subject in subjects}
    started = time.monotonic()
    for number in range(rounds + 1):
        is_late = time.monotonic() - started > limit_s
        if number > least and is_late:
            break
        ended = subjects[2:] if number > peers_least and is_late else ()
        turn = number % len(subjects)
        for subject in [*subjects[turn:], *subjects[:turn]]:
            if figures[subject.name].error or subject in ended:
                continue
            try:
                sample = _timed(subject, number, runner)
            except Exception as error:
                figures[subject.name] = Figures(subject.name, [], f"{type(error).__name__}: {str(error)[:90]}")
                continue
            if number:  # the first only warms up
                figures[subject.name].samples.append(sample)
    return list(figures.values())


def _timed(subject: Subject, number: int, runner: asyncio.Runner | None) -> Sample:
    subject.before(number)
    gc.collect()
    gc.disable()
    resident = resident_bytes(peak=False)
    try:
        if runner is None:
            wall, cpu = time.perf_counter(), time.process_time()
            result = subject.work(number)
            sample = Sample(time.perf_counter() - wall, time.process_time() - cpu)
        else:
            sample, result = runner.run(_timed_in_loop(subject, number))
        sample = sample._replace(grown_bytes=max(0, resident_bytes(peak=True) - resident))
    finally:
        gc.enable()
    try:
        subject.check(number, result)
    finally:
        subject.after(number)
    return sample


def resident_bytes(*, peak: bool) -> int:
    """Return the memory that this process has now, and let its peak begin there; or the peak since then."""
    with suppress(OSError):
        if not peak:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:" if peak else "VmRSS:")[2].split()[0]) * 1024
    return 0


async def _timed_in_loop(subject: Subject, number: int) -> tuple[Sample, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = await subject.work(number)
    return Sample(time.perf_counter() - wall, time.process_time() - cpu), result
