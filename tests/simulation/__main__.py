"""The long run: ``make simulate HISTORIES=20000``; one history again: ``make simulate SEED=17``."""

from __future__ import annotations

import argparse
import sys
from time import monotonic

from simulation.mutants import MUTANTS
from simulation.tally import Tally, first_caught, simulate_embedded, simulate_in_processes
from simulation.world import accusation, judge, plan_of

MUTANT_HISTORIES = 300
"""A mutant that so many histories do not catch counts as not caught."""

EMBEDDED_SHARE = 40
"""For so many simulated histories one is run on each embedded target, which takes real time."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("--histories", type=int, default=20_000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, help="show the one history of this seed")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _show(arguments.seed)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.histories)
    has_failed = False
    print("| target | histories | calls | requests | faults | keys written / unwritten / unknown | violations |")
    print("|---|---|---|---|---|---|---|")
    tally, started = _simulated(seeds, arguments.jobs)
    print(_row("HTTP, simulated", tally), flush=True)
    has_failed |= bool(tally.violations)
    embedded = seeds[: max(1, len(seeds) // EMBEDDED_SHARE)]
    for kind in ("memory", "sqlite"):
        one = simulate_embedded(embedded, kind)
        print(_row(f"{kind}, threads and tasks", one), flush=True)
        has_failed |= bool(one.violations)
    print(f"\n{started:.0f} s for the simulated ones. Faults by kind:\n")
    for name, count in tally.faults.most_common():
        print(f"{count:>9,}  {name}")
    has_failed |= not _mutants_are_caught()
    for seed in tally.violations[:3]:
        print(f"\n{accusation(seed)}")
    return int(has_failed)


def _simulated(seeds: range, jobs: int) -> tuple[Tally, float]:
    """Return the tally, and the seconds that it took."""
    tally, started, told = Tally(), monotonic(), monotonic()
    for portion in simulate_in_processes(seeds, jobs):
        tally += portion
        if monotonic() - told > 10:
            told = monotonic()
            print(f"{tally.histories:,} histories, {len(tally.violations)} violations", file=sys.stderr)
    return tally, monotonic() - started


def _row(name: str, tally: Tally) -> str:
    fates = " / ".join(f"{tally.fates[fate]:,}" for fate in ("written", "unwritten", "unknown"))
    numbers = (tally.histories, tally.operations, tally.requests, tally.faults.total())
    return f"| {name} | {' | '.join(f'{number:,}' for number in numbers)} | {fates} | {len(tally.violations)} |"


def _mutants_are_caught() -> bool:
    print("\n| a client that ... | is caught by history |")
    print("|---|---|")
    found = {name: first_caught(name, range(MUTANT_HISTORIES)) for name in MUTANTS}
    for name, seed in found.items():
        print(f"| {name} | {'none' if seed is None else seed + 1} |", flush=True)
    return None not in found.values()


def _show(seed: int) -> int:
    history, found = judge(plan_of(seed))
    for operation in history.operations:
        print(operation.told())
    print(f"stored in the end: {history.final}")
    if found:
        print(f"\n{accusation(seed)}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
