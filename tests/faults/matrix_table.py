"""The table of docs/reliability.md: each cell of the matrix tried several times, in rows of cells that end alike."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from faults import matrix
from faults.matrix import CELLS, Cell, Verdict

__all__ = ["BEGIN", "END", "PAGE", "main", "measure", "rows", "written_rows"]

DURATIONS = ("passes", "lasts", "lasts for a part")
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- begin: make reliability -->", "<!-- end: make reliability -->"
HEAD = (
    "| fault | how long | operations | ends with | `.applied` | tries, sync + async | `.applied` right | stored right"
    " | failures |\n|---|---|---|---|---|---|---|---|---|\n"
)

Row = tuple[str, str, tuple[str, ...], str, str]


class Tally:
    """What came of every try of one cell."""

    def __init__(self) -> None:
        self.tries = 0
        self.failures = 0
        self.wrong: Counter[str] = Counter()
        self.ends: set[str] = set()
        self.applied: set[str] = set()

    def add(self, verdict: Verdict) -> None:
        self.tries += 1
        self.failures += bool(verdict.wrong)
        self.wrong.update({concerns for concerns, _ in verdict.wrong})
        self.ends.add(verdict.outcome)
        self.applied.add("-" if verdict.outcome == "success" else str(verdict.applied))


def measure(cells: Iterable[Cell], tries: int) -> dict[Cell, Tally]:
    """Try each cell; tell of each failure on stderr."""
    tallies: dict[Cell, Tally] = {}
    for cell in cells:
        tally = tallies[cell] = Tally()
        for _ in range(tries):
            verdict = matrix.run(cell)
            tally.add(verdict)
            for concerns, text in verdict.wrong:
                print(f"{cell}: {concerns}: {text}", file=sys.stderr)
    return tallies


def rows(tallies: dict[Cell, Tally]) -> str:
    """Return the table, a row for all the operations that end alike under a fault, and its last line, the sums."""
    groups: dict[tuple[str, str, str, str], list[Cell]] = {}
    for fault, operation, _, duration in dict.fromkeys(cell._replace(mode="sync") for cell in tallies):
        both = [Cell(fault, operation, mode, duration) for mode in ("sync", "async")]
        ends = " or ".join(sorted(set().union(*(tallies[cell].ends for cell in both))))
        applied = " or ".join(sorted(set().union(*(tallies[cell].applied for cell in both))))
        groups.setdefault((fault, duration, ends, applied), []).extend(both)
    ordered = sorted(groups.items(), key=lambda item: (*_order(item[1][0]), item[0]))
    lines = [_row(key, [(cell, tallies[cell]) for cell in cells]) for key, cells in ordered]
    every = list(tallies.values())
    total = (
        f"\n{len(every)} cells (fault x operation x mode x how long), {sum(tally.tries for tally in every)} tries,"
        f" failures: {sum(tally.failures for tally in every)}.\n"
    )
    return HEAD + "".join(lines) + total


def _order(cell: Cell) -> tuple[int, int]:
    return list(matrix.FAULTS).index(cell.fault), DURATIONS.index(cell.duration)


def _row(key: tuple[str, str, str, str], cells: list[tuple[Cell, Tally]]) -> str:
    fault, duration, ends, applied = key
    tries = {mode: sum(tally.tries for cell, tally in cells if cell.mode == mode) for mode in ("sync", "async")}
    total = sum(tries.values())
    right = [total - sum(tally.wrong[concerns] for _, tally in cells) for concerns in ("applied", "stored")]
    operations = list(dict.fromkeys(cell.operation for cell, _ in cells))
    shown = "all" if operations == operations_of(fault, duration) else "; ".join(operations)
    failures = sum(tally.failures for _, tally in cells)
    return (
        f"| {fault} | {duration} | {shown} | {ends} | {applied} | {tries['sync']} + {tries['async']}"
        f" | {right[0]} of {total} | {right[1]} of {total} | {failures} |\n"
    )


def written_rows(page: str) -> list[Row]:
    """Return fault, duration, operations, end and failures of each row of the page's table.

    Raises:
        ValueError: the page has no such table.
    """
    table = page[page.index(BEGIN) : page.index(END)]
    cells = [[part.strip() for part in line.strip("|\n").split("|")] for line in re.findall(r"^\| .*$", table, re.M)]
    return [
        (
            row[0],
            row[1],
            tuple(operations_of(row[0], row[1]) if row[2] == "all" else row[2].split("; ")),
            row[3],
            row[8],
        )
        for row in cells[1:]
    ]


def operations_of(fault: str, duration: str) -> list[str]:
    """Return the names of all operations that the matrix has under a fault."""
    return list(dict.fromkeys(cell.operation for cell in CELLS if (cell.fault, cell.duration) == (fault, duration)))


def main() -> int:
    """Try every cell, write the table into the page, and return 1 where anything failed."""
    parser = argparse.ArgumentParser(prog="python -m faults.matrix", description=__doc__)
    parser.add_argument("--tries", type=int, default=5, help="of each cell (default 5)")
    parser.add_argument("--only", default="", help="cells whose name holds this text; the page is left as it is")
    arguments = parser.parse_args()
    logging.getLogger("langchain_kv").setLevel(logging.ERROR)  # it tells of each endpoint that does not answer
    cells = [cell for cell in CELLS if arguments.only in str(cell)]
    tallies = measure(cells, arguments.tries)
    table = rows(tallies)
    if arguments.only:
        print(table)
    else:
        page = PAGE.read_text()
        PAGE.write_text(f"{page[: page.index(BEGIN)]}{BEGIN}\n{table}{page[page.index(END) :]}")
        print(table.splitlines()[-1])
    return int(any(tally.failures for tally in tallies.values()))
