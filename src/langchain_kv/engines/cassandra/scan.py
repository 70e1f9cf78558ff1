"""Going through a table by token ranges, several at a time, with memory bounded by a few pages."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple

from langchain_kv.engines.base import DocId
from langchain_kv.engines.cassandra.cluster import Row, Work, token_of
from langchain_kv.engines.cassandra.rows import BadRow, body_of, doc_id_of, key_of, serialized
from langchain_kv.engines.cassandra.tables import Table
from langchain_kv.engines.cassandra.work import reading
from langchain_kv.engines.ids import check_text

__all__ = ["Found", "Scan", "page"]

Found = tuple[DocId | None, bytes | BadRow | None]
"""What a scan meets: an id, None where the row's key is none of the Data API's; the body, None where none is read."""

FIRST_TOKEN: Final = -(2**63) + 1
LAST_TOKEN: Final = 2**63 - 1

RANGES_AT_ONCE: Final = 8
RANGES_MAX: Final = 64

PAGE_BYTES: Final = 256 * 1024
"""Bytes of documents that one statement is meant to answer."""

FIRST_DOCUMENTS: Final = 20
DOCUMENTS_MAX: Final = 500
STATEMENT_ROWS_MAX: Final = 5_000


class _Range(NamedTuple):
    """Part of the ring of tokens.

    Attributes:
        start: its first token.
        end: its last token.
        after: of the rows at the first token, only those whose serialized keys are greater than this.
    """

    start: int
    end: int
    after: bytes = b""

    def rest(self, rows: list[Row]) -> list[Row]:
        """Leave out the rows that an earlier page held: those at the first token, up to ``after``."""
        at = 0
        while at < len(rows):
            key = serialized(rows[at][0])
            if token_of(key) != self.start or key > self.after:
                break
            at += 1
        return rows[at:] if at else rows

    def behind(self, row: Row) -> _Range:
        """Return the part behind a row."""
        key = serialized(row[0])
        return _Range(token_of(key), self.end, key)


class Scan:
    """A walk through a whole table, in no promised order: each row that is there all the while is met once.

    Args:
        prefix: with a non-empty prefix, only text ids that start with it.
        with_bodies: whether ``doc_json`` is read, too.
        limit: rows of a page, at most.
    """

    def __init__(self, *, prefix: str, with_bodies: bool, limit: int) -> None:
        check_text([prefix])
        self._prefix = prefix
        self._with_bodies = with_bodies
        self._limit = limit
        self._rows_a_statement = min(limit, FIRST_DOCUMENTS) if with_bodies else limit
        self._ranges = deque([_Range(FIRST_TOKEN, LAST_TOKEN)])
        self._is_split = False
        self._pages: deque[list[Row]] = deque()

    def next_page(self, table: Table) -> Work[list[Found] | None]:
        """Return what the next rows keep, at least one; None at the end. After an error it goes on from there."""
        while not self._pages:
            if not self._ranges:
                return None
            yield from self._fetch(table)
        return [_found(row) for row in self._pages.popleft()]

    def _fetch(self, table: Table) -> Work[None]:
        statement = yield from table.statement("scan" if self._with_bodies else "scan_ids")
        ranges = [self._ranges.popleft() for _ in range(min(RANGES_AT_ONCE, len(self._ranges)))]
        count = self._rows_a_statement
        calls = [(statement, (part.start, part.end, count)) for part in ranges]
        try:
            answers = yield from reading(calls, RANGES_AT_ONCE)
        except BaseException:
            self._ranges.extendleft(reversed(ranges))  # the next call goes on from here
            raise
        least = 1  # more than a statement answers where that was nothing new: many rows at one token
        size_bytes = sum(len(row[1] or "") for rows in answers for row in rows) if self._with_bodies else 0
        for part, rows in zip(reversed(ranges), reversed(answers), strict=True):
            new = part.rest(rows)
            if len(rows) == count:
                self._ranges.appendleft(part.behind(rows[-1]) if new else part)
            least = max(least, 1 if new or not rows else 2 * count)
            self._keep(new)
        if self._ranges and not self._is_split:
            self._split()
        if self._with_bodies:
            found = sum(map(len, answers))
            fitting = found * PAGE_BYTES // max(1, size_bytes)
            count = max(2, min(self._limit, DOCUMENTS_MAX, fitting))
        self._rows_a_statement = max(least, count if self._with_bodies else self._limit)

    def _keep(self, rows: list[Row]) -> None:
        if self._prefix:
            rows = [row for row in rows if _has_prefix(row, self._prefix)]
        if rows:
            self._pages.append(rows)

    def _split(self) -> None:
        """Split what is left of the ring into as many ranges as it seems to have pages."""
        self._is_split = True
        (left,) = self._ranges
        passed = max(1, left.start - FIRST_TOKEN)
        parts = max(1, min(RANGES_MAX, (left.end - left.start) // passed + 1))
        width = (left.end - left.start) // parts
        if parts == 1 or width < 1:
            return
        starts = [left.start + width * number for number in range(parts)]
        ends = [start - 1 for start in starts[1:]] + [left.end]
        self._ranges = deque(
            _Range(start, end, left.after if number == 0 else b"")
            for number, (start, end) in enumerate(zip(starts, ends, strict=True))
        )


def _has_prefix(row: Row, prefix: str) -> bool:
    tag, text = row[0]
    return tag == 1 and text is not None and text.startswith(prefix)


def page(table: Table, *, after: DocId | None, prefix: str, limit: int, with_bodies: bool) -> Work[list[Found]]:
    """Return the next rows in the order of tokens; rows of keys that are none of the Data API's are left out.

    Args:
        table: what to look through.
        after: only rows behind this id's, whether it still exists or not; None starts at the beginning.
        prefix: with a non-empty prefix, only text ids that start with it.
        limit: at most this many; fewer mean that there are no more.
        with_bodies: whether ``doc_json`` is read, too.
    """
    check_text([prefix] if after is None else [prefix, after])
    statement = yield from table.statement("scan" if with_bodies else "scan_ids")
    found: list[Row] = []
    part: _Range | None = _Range(FIRST_TOKEN, LAST_TOKEN)
    key = None if after is None else key_of(after)
    if key is not None:
        part = _Range(FIRST_TOKEN, LAST_TOKEN).behind((key,))
    # One more than is missing, for the row at ``after`` itself. Where a prefix leaves most rows out, many.
    least = 2 if not prefix else DOCUMENTS_MAX if with_bodies else STATEMENT_ROWS_MAX
    while part is not None and len(found) < limit:
        count = max(least, min(limit - len(found) + 1, STATEMENT_ROWS_MAX))
        (rows,) = yield from reading([(statement, (part.start, part.end, count))], 1)
        new = part.rest(rows)
        found += [row for row in new if _is_wanted(row, prefix)]
        if not new:  # a page of rows at one token
            least = 2 * count
        if len(rows) < count:
            part = None
        elif new:
            part = part.behind(rows[-1])
    return [_found(row) for row in found[: max(limit, 0)]]


def _found(row: Row) -> Found:
    return doc_id_of(row[0]), body_of(*row) if len(row) > 1 else None


def _is_wanted(row: Row, prefix: str) -> bool:
    key: Any = row[0]
    return _has_prefix(row, prefix) if prefix else doc_id_of(key) is not None
