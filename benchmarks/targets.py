"""What the package promises of its speed, held against the figures of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from benchmarks.measure import Figures
from benchmarks.report import OURS, Result

__all__ = ["table"]


class Target(NamedTuple):
    """A bound for some rows.

    Attributes:
        what: in words.
        most: the bound.
        of: tells which rows it is for.
        figure: what is bounded, of our figures and the floor's, and by how many calls to divide.
        unit: of the figure.
    """

    what: str
    most: float
    of: Callable[[Result], bool]
    figure: Callable[[Figures, Figures, int], float]
    unit: str = " x"


def _wall(ours: Figures, floor: Figures, _: int) -> float:
    return ours.ratio(floor)[0]


def _cpu(ours: Figures, floor: Figures, _: int) -> float:
    return ours.ratio(floor, "cpu_s")[0]


def _above_us(ours: Figures, floor: Figures, calls: int) -> float:
    return ours.above(floor) / calls * 1e6


def _is_http(row: Result, *delays_ms: int) -> bool:
    return row.group.startswith("Over HTTP") and any(f" {delay_ms} ms" in row.group for delay_ms in delays_ms)


_OVERWRITES: Final = ("mset existing", "mset half")
_FIRST: Final = "mset existing, after new ones"
_JSON_FILE: Final = "On a file, JSON values"


def _is_usual(row: Result) -> bool:
    return row.name not in (*_OVERWRITES, _FIRST)


TARGETS: Final = (
    Target(
        "HTTP, 5 ms: reads, deletes, listing, new keys", 1.2, lambda row: _is_http(row, 5) and _is_usual(row), _wall
    ),
    Target("HTTP, 5 ms: existing and mixed mset", 1.3, lambda row: _is_http(row, 5) and row.name in _OVERWRITES, _wall),
    Target(
        "HTTP: first existing mset after new ones",
        1.8,
        lambda row: _is_http(row, 0, 5, 40) and row.name == _FIRST,
        _wall,
    ),
    Target("HTTP, no latency: as the first line", 1.3, lambda row: _is_http(row, 0) and _is_usual(row), _wall),
    Target("HTTP, no latency: as the second", 1.5, lambda row: _is_http(row, 0) and row.name in _OVERWRITES, _wall),
    Target("HTTP: processor time of the client", 1.6, lambda row: _is_http(row, 0, 5, 40), _cpu),
    Target(
        "file: batches of 100 and more",
        1.5,
        lambda row: row.group == _JSON_FILE and not row.calls and "one" not in row.name,
        _wall,
    ),
    Target(
        "file: one key, sync, above the floor",
        10,
        lambda row: row.group == _JSON_FILE and bool(row.calls) and row.colour == "sync",
        _above_us,
        " us",
    ),
    Target(
        "file: one key, async, above the floor",
        40,
        lambda row: row.group == _JSON_FILE and bool(row.calls) and row.colour == "async",
        _above_us,
        " us",
    ),
    Target("file: 64 amget at once", 2, lambda row: row.group == _JSON_FILE and "64" in row.name, _wall),
)

PEERS: Final = ("langchain-astradb", "LocalFileStore", "SQLStore", "diskcache")
UNFLUSHED: Final = ("LocalFileStore", "diskcache")
"""Those whose writes a power cut may undo, as it may ours under ``synchronous=normal``."""


def table(results: Sequence[Result]) -> str:
    """Write each target with the rows it is for, how many reach it, and the worst; then who is behind which peer."""
    lines = ["### Targets", "", "| target | at most | rows | reached | worst |", "|---|---|---|---|---|"]
    for target in TARGETS:
        found = [
            (target.figure(ours, row.figures[0], row.calls or 1), row)
            for row in results
            if target.of(row) and (ours := row.of(OURS)) is not None and row.figures[0].samples
        ]
        if found:
            reached = sum(figure <= target.most for figure, _ in found)
            figure, row = max(found, key=lambda each: each[0])
            worst = f"{figure:.2f}{target.unit}: {row.name}, {row.size}, {row.colour}, {row.group}"
            lines.append(f"| {target.what} | {target.most}{target.unit} | {len(found)} | {reached} | {worst} |")
    return "\n".join([*lines, "", *_behind(results), ""])


def _behind(results: Sequence[Result]) -> list[str]:
    compared, behind = 0, []
    for row in results:
        for name in PEERS:
            ours, peer = row.of(OURS), row.of(name)
            if ours is None or peer is None:
                continue
            compared += 1
            middle, low, _ = ours.ratio(peer)
            if middle > 1:
                notes = ["its lower quartile is below 1"] if low < 1 else []
                alike = row.of(f"{OURS} normal") if name in UNFLUSHED and "set" in row.name else None
                if alike is not None:
                    notes.append(f"{alike.ratio(peer)[0]:.2f} x with the same promise, synchronous=normal")
                more = f" ({'; '.join(notes)})" if notes else ""
                behind.append(f"- {middle:.2f} x {name}{more}: {row.name}, {row.size}, {row.colour}, {row.group}")
    return [f"Behind a peer in {len(behind)} of {compared} comparisons with {', '.join(PEERS)}:", "", *sorted(behind)]
