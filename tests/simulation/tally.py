"""Many histories: counted, and judged on all cores."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from simulation.embedded import judge_embedded
from simulation.history import History
from simulation.mutants import mutated
from simulation.world import judge, plan_of

__all__ = ["Tally", "first_caught", "simulate", "simulate_embedded", "simulate_in_processes"]

PORTION = 100
"""Histories that a process judges before it reports."""


@dataclass
class Tally:
    """What was tried.

    Attributes:
        endings: how many calls ended how: "ok" or an error's name.
        fates: what writes said of their keys.
        violations: the seeds of histories that must not have happened.
    """

    histories: int = 0
    operations: int = 0
    requests: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    fates: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[int] = field(default_factory=list)

    def add(self, seed: int, history: History, found: list[str]) -> None:
        self.histories += 1
        self.operations += len(history.operations)
        self.requests += history.requests
        self.faults += history.faults
        for operation in history.operations:
            self.endings[operation.ending] += 1
            self.fates.update(operation.fates.values())
        if found:
            self.violations.append(seed)

    def __iadd__(self, other: Tally) -> Tally:
        self.histories += other.histories
        self.operations += other.operations
        self.requests += other.requests
        self.endings += other.endings
        self.fates += other.fates
        self.faults += other.faults
        self.violations += other.violations
        return self


def simulate(seeds: Iterable[int]) -> Tally:
    """Judge the history of each seed, in this process."""
    tally = Tally()
    for seed in seeds:
        tally.add(seed, *judge(plan_of(seed)))
    return tally


def simulate_in_processes(seeds: range, jobs: int) -> Iterator[Tally]:
    """As ``simulate``, yielding what is new in portions."""
    portions = [seeds[start : start + PORTION] for start in range(0, len(seeds), PORTION)]
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(simulate, portions)


def simulate_embedded(seeds: Iterable[int], kind: str) -> Tally:
    """Judge a history of each seed on an embedded target ("memory" or "sqlite"), in threads and in tasks by turns."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:{Path(directory) / 'kv.db'}" if kind == "sqlite" else "memory:simulation"
        for seed in seeds:
            tally.add(seed, *judge_embedded(seed, url, "threads" if seed % 2 else "tasks"))
    return tally


def first_caught(name: str, seeds: Iterable[int]) -> int | None:
    """Return the first seed that catches a mutant."""
    with mutated(name):
        return next((seed for seed in seeds if judge(plan_of(seed))[1]), None)
