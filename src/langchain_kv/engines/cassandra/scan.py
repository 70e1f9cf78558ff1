"""Going through a table by token ranges, several at a time, with memory bounded by a few pages."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple

from langchain_kv.engines.base import DocId
from langchain_kv.engines.cassandra.cluster import Row, Statement, token_of
from langchain_kv.engines.cassandra.operation import Operation
from langchain_kv.engines.cassandra.rows import BadRow, body_of, doc_id_of, key_of, serialized
from langchain_kv.engines.cassandra.shredding import containing
from langchain_kv.engines.cassandra.work import reading
from langchain_kv.engines.ids import check_text
from langchain_kv.engines.pages import PAGE_BYTES, PAGE_DOCUMENTS, body_bytes, cut
from langchain_kv.limits import PAGE_SIZE

__all__ = ["Found", "Listed", "Scan", "count_rows", "page"]

Found = tuple[DocId | None, bytes | BadRow | None]
"""What a scan meets: an id, None where the row's key is none of the Data API's; the body, None where none is read."""

Listed = tuple[str, str]
"""A field that a collection indexes, and a text that is in it."""

FIRST_TOKEN: Final = -(2**63) + 1
LAST_TOKEN: Final = 2**63 - 1

RANGES_AT_ONCE: Final = 8
RANGES_MAX: Final = 64

FIRST_DOCUMENTS: Final = 5
"""Rows of the first statement of a Scan that reads bodies: only rows can be asked for, and their size is not known."""

GROWTH: Final = 4
"""The next statements read at most so many times the rows of the last ones, which need not be like those."""

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
        listed: a field that the collection indexes, and a text: only rows whose field is that text, or an array with
            it. No others are read.
    """

    def __init__(self, *, prefix: str, with_bodies: bool, limit: int, listed: Listed | None = None) -> None:
        check_text([prefix])
        self._prefix = prefix
        self._listed = listed
        self._with_bodies = with_bodies
        self._limit = limit
        self._rows_at_once = FIRST_DOCUMENTS if with_bodies else RANGES_AT_ONCE * limit
        self._rows_a_statement = min(limit, self._rows_at_once)
        self._ranges = deque([_Range(FIRST_TOKEN, LAST_TOKEN)])
        self._is_split = False
        self._pages: deque[list[Row]] = deque()

    async def next_page(self, operation: Operation) -> list[Found] | None:
        """Return what the next rows keep, at least one; None at the end. After an error it goes on from there."""
        while not self._pages:
            if not self._ranges:
                return None
            await self._fetch(operation)
        return [_found(row, self._with_bodies) for row in self._pages.popleft()]

    async def _fetch(self, operation: Operation) -> None:
        statement, entry = await _scanning(operation, self._with_bodies, self._listed)
        count = self._rows_a_statement
        width = min(RANGES_AT_ONCE, len(self._ranges), max(1, self._rows_at_once // count))
        ranges = [self._ranges.popleft() for _ in range(width)]
        calls = [(statement, (*entry, part.start, part.end, count)) for part in ranges]
        try:
            answers = await reading(operation, calls, RANGES_AT_ONCE)
        except BaseException:
            self._ranges.extendleft(reversed(ranges))  # the next call goes on from here
            raise
        least = 1  # more than a statement answers where that was nothing new: many rows at one token
        for part, rows in zip(reversed(ranges), reversed(answers), strict=True):
            new = part.rest(rows)
            if len(rows) == count:
                self._ranges.appendleft(part.behind(rows[-1]) if new else part)
            least = max(least, 1 if new or not rows else 2 * count)
            self._keep(new)
        if self._ranges and not self._is_split:
            self._split()
        if self._with_bodies and any(answers):
            read = [row for rows in answers for row in rows]
            self._rows_at_once = min(_fitting(read, PAGE_BYTES), GROWTH * count * width)
        self._rows_a_statement = max(least, 2, min(self._limit, self._rows_at_once // RANGES_AT_ONCE))

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


async def _scanning(
    operation: Operation, with_bodies: bool, listed: Listed | None
) -> tuple[Statement, tuple[str, ...]]:
    """Return the statement of a scan, and the values that come before the range of tokens and the number of rows."""
    name = "scan" if with_bodies else "scan_ids"
    if listed is None:
        return await operation.statement(name), ()
    return await operation.statement(f"{name}_of"), (containing(*listed),)


def _has_prefix(row: Row, prefix: str) -> bool:
    tag, text = row[0]
    return tag == 1 and text is not None and text.startswith(prefix)


def _fitting(rows: list[Row], size_bytes: int) -> int:
    """Return how many rows like these have so many bytes of bodies, going by characters."""
    found_bytes = sum(len(row[1] or "") for row in rows)
    return len(rows) * size_bytes // max(1, found_bytes)


async def page(
    operation: Operation,
    *,
    after: DocId | None,
    prefix: str,
    limit: int,
    size_bytes: int | None,
    with_bodies: bool,
    listed: Listed | None = None,
) -> list[Found]:
    """Return the next rows in the order of tokens; rows of keys that are none of the Data API's are left out.

    Args:
        operation: what this is part of.
        after: only rows behind this id's, whether it still exists or not; None starts at the beginning.
        prefix: with a non-empty prefix, only text ids that start with it.
        limit: at most this many; fewer mean that there are no more, unless ``size_bytes`` ended the page.
        size_bytes: the page ends with the row whose body makes so many bytes; None: it does not.
        with_bodies: whether ``doc_json`` is read, too.
        listed: see Scan.
    """
    check_text([prefix] if after is None else [prefix, after])
    statement, entry = await _scanning(operation, with_bodies, listed)
    found: list[Found] = []
    left_bytes = size_bytes
    part: _Range | None = _Range(FIRST_TOKEN, LAST_TOKEN)
    key = None if after is None else key_of(after)
    if key is not None:
        part = _Range(FIRST_TOKEN, LAST_TOKEN).behind((key,))
    # One more than is missing, for the row at ``after`` itself. Where a prefix leaves most rows out, many.
    most = STATEMENT_ROWS_MAX if not with_bodies else PAGE_SIZE + 1 if size_bytes else PAGE_DOCUMENTS
    least = most if prefix else 2
    while part is not None and len(found) < limit and (left_bytes is None or left_bytes > 0):
        count = max(least, min(limit - len(found) + 1, most))
        (rows,) = await reading(operation, [(statement, (*entry, part.start, part.end, count))], 1)
        new = part.rest(rows)
        wanted = [_found(row, with_bodies) for row in new if _is_wanted(row, prefix)]
        if left_bytes is not None:
            wanted = cut(wanted, left_bytes)
            left_bytes -= body_bytes(wanted)
            most = max(2, min(PAGE_DOCUMENTS, _fitting(rows, size_bytes or 0)))
            least = most if prefix else 2
        found += wanted
        if not new:  # a page of rows at one token
            least = 2 * count
        if len(rows) < count:
            part = None
        elif new:
            part = part.behind(rows[-1])
    return found[: max(limit, 0)]


async def count_rows(operation: Operation, limit: int | None) -> int:
    """Return the number of rows, counting no further than ``limit``."""
    most = STATEMENT_ROWS_MAX if limit is None else max(1, min(limit, STATEMENT_ROWS_MAX))
    scan = Scan(prefix="", with_bodies=False, limit=most)
    counted = 0
    while limit is None or counted < limit:
        found = await scan.next_page(operation)
        if found is None:
            return counted
        counted += len(found)
    return max(0, limit)


def _found(row: Row, with_bodies: bool) -> Found:
    return doc_id_of(row[0]), body_of(*row) if with_bodies else None


def _is_wanted(row: Row, prefix: str) -> bool:
    key: Any = row[0]
    return _has_prefix(row, prefix) if prefix else doc_id_of(key) is not None
