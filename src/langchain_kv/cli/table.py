"""Tables and texts for people: what others stored can do nothing to a terminal but stand there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final
from unicodedata import east_asian_width

__all__ = ["fact_lines", "lines_of", "printable", "terminal_columns"]

_LOOKED_AT: Final = 200
"""Rows whose widths make the columns': those that follow are printed as they come."""


def lines_of(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a table; none where there are no rows.

    Args:
        rows: the fields of each, by name.
        columns: the names of the columns.
    """
    left = iter(rows)
    first = list(islice(left, _LOOKED_AT))
    if not first:
        return
    most = terminal_columns() // len(columns)
    widths = [min(most, max(_width(name), *(_width(_cell(row.get(name))) for row in first))) for name in columns[:-1]]
    widths.append(max(1, terminal_columns() - sum(widths) - 2 * len(widths)))
    yield _line([name.replace("_", " ").upper() for name in columns], widths)
    for row in chain(first, left):
        yield _line([_cell(row.get(name)) for name in columns], widths)


def fact_lines(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line a field, and those of a field of fields below it."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield f"{name.replace('_', ' ')}:"
            yield from (f"  {line}" for line in fact_lines(value))
        else:
            yield f"{name.replace('_', ' ') + ':':{width + 1}} {_cell(value)}"


def terminal_columns() -> int:
    """Return how wide the terminal is, 80 where that is not known."""
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def printable(text: str, *, keep: str = "") -> str:
    """Return a text in which all that would move a terminal's cursor, or be invisible, is escaped.

    Args:
        text: anybody's.
        keep: characters that stay all the same, such as line ends.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in keep else repr(character)[1:-1] for character in text
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(_fitted(cell, width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _fitted(text: str, width: int) -> str:
    """Return a text in just so many columns, cut with an ellipsis where it is longer."""
    if text.isascii() and len(text) <= width:
        return text.ljust(width)
    taken = _width(text)
    if taken <= width:
        return text + " " * (width - taken)
    kept, taken = "", 0
    for character in text:
        taken += _width(character)
        if taken > width - 1:
            break
        kept += character
    return f"{kept}…".ljust(width) if kept.isascii() else f"{kept}…" + " " * (width - 1 - _width(kept))


def _width(text: str) -> int:
    return len(text) if text.isascii() else sum(1 + (east_asian_width(character) in "WF") for character in text)
