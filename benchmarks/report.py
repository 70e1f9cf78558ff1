"""The figures as a table in docs/performance.md, and as charts in docs/figures."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import Figures

__all__ = ["Result", "chart", "duration", "markdown", "readme_chart", "worst"]

OURS = "langchain-kv"


class Result(NamedTuple):
    """One row.

    Attributes:
        group: the target, and the latency.
        name: what was done.
        size: of a value.
        colour: ``sync`` or ``async``.
        calls: by how many to divide.
        figures: of each contender; the first is the floor.
    """

    group: str
    name: str
    size: str
    colour: str
    calls: int
    figures: list[Figures]

    def of(self, name: str) -> Figures | None:
        return next((each for each in self.figures if each.name == name and each.samples), None)


def duration(seconds: float) -> str:
    """Write seconds to three figures."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def markdown(results: Sequence[Result]) -> str:
    """Write a table for each group: for each contender the median, and its ratio to the floor, wall and CPU."""
    parts = []
    for group in dict.fromkeys(result.group for result in results):
        rows = [result for result in results if result.group == group]
        names = list(dict.fromkeys(figures.name for row in rows for figures in row.figures))
        parts += [
            f"### {group}",
            "",
            "| work | value | colour | " + " | ".join(names) + " |",
            "|---" * (3 + len(names)) + "|",
        ]
        for row in rows:
            cells = [_cell(row, name) for name in names]
            parts.append(f"| {row.name} | {row.size} | {row.colour} | " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def _cell(row: Result, name: str) -> str:
    figures = next((each for each in row.figures if each.name == name), None)
    if figures is None:
        return ""
    if figures.error:
        return f"fails: {figures.error.replace('|', '/')}"
    floor = row.figures[0]
    wall = duration(figures.wall_s / (row.calls or 1))
    if figures is floor or not floor.samples:
        return wall + (f", {figures.grown_bytes / 2**20:.0f} MB" if figures.grown_bytes > 2**20 else "")
    middle, low, high = figures.ratio(floor)
    cpu, _, _ = figures.ratio(floor, "cpu_s")
    memory = f", {figures.grown_bytes / 2**20:.0f} MB" if figures.grown_bytes > 2**20 else ""
    fewer = f", {len(figures.samples)} pairs" if len(figures.samples) < len(floor.samples) else ""
    return f"{wall}, **{middle:.2f}** ({low:.2f}-{high:.2f}), CPU {cpu:.2f}{memory}{fewer}"


def worst(results: Sequence[Result], count: int = 10) -> str:
    """List the rows in which ours is furthest above the floor, worst first."""
    ratios = []
    for row in results:
        ours, floor = row.of(OURS), row.figures[0]
        if ours is not None and floor.samples:
            ratios.append((ours.ratio(floor)[0], f"{row.group}: {row.name}, {row.size}, {row.colour}"))
    rows = [f"- {ratio:.2f} x: {what}" for ratio, what in sorted(ratios, reverse=True)[:count]]
    return "\n".join(["### Furthest above the floor", "", *rows, ""])


def chart(results: Sequence[Result], path: Path) -> None:
    """Draw each group's wall ratios to the floor, on a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = list(dict.fromkeys(result.group for result in results))
    heights = [sum(result.group == group for result in results) for group in groups]
    figure, axes = pyplot.subplots(
        len(groups), 1, figsize=(10, 1.5 * len(groups) + 0.22 * sum(heights)), height_ratios=heights, squeeze=False
    )
    for group, ax in zip(groups, axes[:, 0], strict=True):
        rows = [result for result in results if result.group == group][::-1]
        for name in dict.fromkeys(figures.name for row in rows for figures in row.figures[1:]):
            points = [
                (found.ratio(row.figures[0])[0], place)
                for place, row in enumerate(rows)
                if (found := row.of(name)) is not None and row.figures[0].samples
            ]
            size = 46 if name == OURS else 22
            ax.scatter([x for x, _ in points], [y for _, y in points], s=size, label=name, zorder=3)
        ax.axvline(1, color="grey", linewidth=1)
        ax.set_xscale("log")
        ax.set_yticks(range(len(rows)), [f"{row.name}, {row.size}, {row.colour}" for row in rows], fontsize=7)
        ax.set_title(f"{group}: time as a multiple of {rows[0].figures[0].name}", fontsize=9, loc="left")
        ax.grid(axis="x", which="both", linewidth=0.3)
        ax.legend(fontsize=7, loc="best")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


README_GROUP, README_PEER = "Over HTTP, 5 ms added each way", "langchain-astradb"
README_ROWS = [
    "mset new",
    "mset existing",
    "mget",
    "mdelete",
    "keys",
    "get one",
    "set one existing",
    "get one, 64 at once",
]


def readme_chart(page: str, path: Path) -> None:
    """Draw the README's chart of the tables in docs/performance.md: times as multiples of the bare requests'."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    table = page.partition(f"### {README_GROUP}\n")[2].partition("\n### ")[0].splitlines()
    head, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table if line.startswith("|")]
    ours, peer = head.index(OURS), head.index(README_PEER)
    ratios = {}
    for row in rows:
        found = [re.search(r"\*\*([\d.]+)\*\*", row[place]) for place in (ours, peer)]
        if row[0] in README_ROWS and row[2] == "async" and found[0] and found[1]:
            ratios.setdefault(f"{row[0]}, {row[1]}", (float(found[0][1]), float(found[1][1])))
    figure, ax = pyplot.subplots(figsize=(7.2, 0.34 * len(ratios) + 1.1))
    for place, (name, colour) in enumerate([(OURS, "#1f77b4"), (README_PEER, "#ff7f0e")]):
        values = [pair[place] for pair in ratios.values()]
        heights = [row + (place - 0.5) * 0.38 for row in range(len(values))]
        bars = ax.barh(heights, values, height=0.36, label=name, color=colour)
        ax.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    ax.axvline(1, color="grey", linewidth=1)
    ax.set_yticks(range(len(ratios)), list(ratios), fontsize=8)
    ax.invert_yaxis()
    ax.set_title(f"{README_GROUP}, async: time as a multiple of the bare requests'", fontsize=8, loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=8, loc="center right")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def machine() -> str:
    """Say where and when this was measured."""
    import os
    import sqlite3

    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.system()},"
        f" Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )
