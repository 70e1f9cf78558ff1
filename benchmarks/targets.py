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
        figure: what is bounded, of the row, our figures and the floor's.
        unit: of the figure.
    """

    what: str
    most: float
    of: Callable[[Result], bool]
    figure: Callable[[Result, Figures, Figures], float]
    unit: str = " x"


def _wall(_: Result, ours: Figures, floor: Figures) -> float:
    return ours.ratio(floor)[0]


def _cpu(_: Result, ours: Figures, floor: Figures) -> float:
    return ours.ratio(floor, "cpu_s")[0]


def _above_us(row: Result, ours: Figures, floor: Figures) -> float:
    return ours.above(floor) / (row.calls or 1) * 1e6


def _share_of_lead(row: Result, ours: Figures, floor: Figures) -> float:
    """Return how much of the time that the floor is ahead of the peer ours takes: 0 is the floor, 1 the peer."""
    peer = row.of(ASTRADB)
    assert peer is not None
    return (ours.wall_s - floor.wall_s) / max(peer.wall_s - floor.wall_s, 1e-9)


def _is_http(row: Result, *delays_ms: int) -> bool:
    return row.group.startswith("Over HTTP") and any(f" {delay_ms} ms" in row.group for delay_ms in delays_ms)


ASTRADB: Final = "langchain-astradb"
_OVERWRITES: Final = ("mset existing", "mset half")
_FIRST: Final = "mset existing, after new ones"
_JSON_FILE: Final = "On a file, JSON values"


def _is_one_key(row: Result) -> bool:
    return row.group == _JSON_FILE and "one" in row.name and bool(row.calls)


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
        f"HTTP: of the floor's lead over {ASTRADB}, what is lost",
        0.5,
        lambda row: row.of(ASTRADB) is not None,
        _share_of_lead,
        "",
    ),
    Target(
        "file: batches of 100 and more",
        1.5,
        lambda row: row.group == _JSON_FILE and "one" not in row.name,
        _wall,
    ),
    Target(
        "file: one key, sync, above the floor",
        10,
        lambda row: _is_one_key(row) and row.colour == "sync",
        _above_us,
        " us",
    ),
    Target(
        "file: one key, async, above the floor",
        40,
        lambda row: _is_one_key(row) and row.colour == "async",
        _above_us,
        " us",
    ),
    Target("file: 64 amget at once", 2, lambda row: row.group == _JSON_FILE and "64" in row.name, _wall),
)

PEERS: Final = (ASTRADB, "LocalFileStore", "SQLStore", "diskcache")
UNFLUSHED: Final = ("LocalFileStore", "diskcache")
"""Those whose writes a power cut may undo, as it may ours under ``synchronous=normal``."""


def table(results: Sequence[Result]) -> str:
    """Write each target with the rows it is for, how many reach it, and the worst; the others; who is behind whom."""
    lines = ["### Targets", "", "| target | at most | rows | reached | worst |", "|---|---|---|---|---|"]
    missed: list[str] = []
    for target in TARGETS:
        found = [
            (target.figure(row, ours, row.figures[0]), f"{row.name}, {row.size}, {row.colour}, {row.group}")
            for row in results
            if target.of(row) and (ours := row.of(OURS)) is not None and row.figures[0].samples
        ]
        found.sort(reverse=True)
        if found:
            beyond = [f"{figure:.2f}{target.unit}: {row}" for figure, row in found if figure > target.most]
            worst = f"{found[0][0]:.2f}{target.unit}: {found[0][1]}"
            reached = len(found) - len(beyond)
            lines.append(f"| {target.what} | {target.most}{target.unit} | {len(found)} | {reached} | {worst} |")
            missed += [f"- {target.what}, {target.most}{target.unit}: {each}" for each in beyond]
    return "\n".join([*lines, "", "Not reached:", "", *(missed or ["nothing"]), "", *_behind(results), ""])


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
