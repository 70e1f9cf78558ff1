"""How large a page of a scan is: by bytes, the same for whoever scans, whatever keeps the documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

__all__ = ["PAGE_BYTES", "PAGE_DOCUMENTS", "body_bytes", "cut", "is_last"]

Row = TypeVar("Row", bound=Sequence[Any])

PAGE_BYTES: Final = 1024 * 1024
"""Bytes of bodies after which a page ends: what is scanned takes no more memory than this and one document."""

PAGE_DOCUMENTS: Final = 500
"""The most documents of one, where they are short."""


def cut(rows: Iterable[Row], size_bytes: int | None) -> list[Row]:
    """Return the first rows, up to the one whose body (the second column) makes ``size_bytes``; None: all of them."""
    if size_bytes is None:
        return list(rows)
    page: list[Row] = []
    left = size_bytes
    for row in rows:
        page.append(row)
        body = row[1]
        left -= len(body) if isinstance(body, bytes) else 0
        if left <= 0:
            break
    return page


def body_bytes(rows: Iterable[Sequence[Any]]) -> int:
    """Return how many bytes of bodies rows have; what others put there in the place of bytes counts as none."""
    return sum([len(row[1]) for row in rows if isinstance(row[1], bytes)])


def is_last(page: Sequence[Sequence[Any]], limit: int, size_bytes: int) -> bool:
    """Tell whether no document can come after a page that was asked for with these bounds."""
    return len(page) < limit and body_bytes(page) < size_bytes
