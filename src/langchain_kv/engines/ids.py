"""The order of ids: text by code point, then the others by byte; what a prefix covers, and a list that stays sorted."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from itertools import chain
from typing import Final, Generic, TypeVar

from langchain_kv.engines.base import DocId
from langchain_kv.errors import InvalidKeyError

__all__ = ["SortedIds", "check_text", "lone_surrogate", "prefix_end"]

Id = TypeVar("Id", str, bytes)

BLOCK_LENGTH: Final = 1_000
"""Ids of a block of SortedIds when it is built; an insertion moves at most twice as many."""


def check_text(ids: Iterable[DocId]) -> None:
    """Raise InvalidKeyError if a text among ``ids`` cannot be written as UTF-8."""
    texts = [text for text in ids if isinstance(text, str)]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        for text in texts:
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise lone_surrogate(text) from None
        raise


def lone_surrogate(text: str) -> InvalidKeyError:
    """Make the error for an id, prefix or name that holds a lone surrogate."""
    return InvalidKeyError(
        f"{text[:100]!a} holds a lone surrogate (half of a UTF-16 pair), which UTF-8 cannot write; use another key"
    )


def prefix_end(prefix: str) -> str | None:
    """Return the least text greater than every text that starts with ``prefix``; None where there is none."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return None
    # The code points of surrogates stand in no text: the one after U+D7FF is U+E000.
    following = 0xE000 if kept[-1] == "\ud7ff" else ord(kept[-1]) + 1
    return kept[:-1] + chr(following)


class SortedIds(Generic[Id]):
    """A set of ids that is read in order, page by page; neither a page nor an insertion costs a sort of the whole.

    New ids wait unsorted until the next page is asked for, so that filling costs little; then many are merged by one
    sort, few are inserted into their blocks. Not safe from several threads by itself.
    """

    def __init__(self) -> None:
        self._blocks: list[list[Id]] = []  # sorted, and none is empty
        self._lasts: list[Id] = []  # the last id of each block
        self._waiting: set[Id] = set()
        self._settled = 0  # ids in the blocks

    def add(self, ids: Iterable[Id]) -> None:
        """Add ids that are not in the set yet."""
        self._waiting.update(ids)

    def remove(self, doc_id: Id) -> None:
        """Remove an id that is in the set."""
        if doc_id in self._waiting:
            self._waiting.remove(doc_id)
            return
        at = bisect_left(self._lasts, doc_id)
        block = self._blocks[at]
        del block[bisect_left(block, doc_id)]
        self._settled -= 1
        if block:
            self._lasts[at] = block[-1]
        else:
            del self._blocks[at], self._lasts[at]

    def page(self, *, start: Id | None, after: Id | None, end: Id | None, limit: int) -> list[Id]:
        """Return the next ids in order.

        Args:
            start: only this id and greater ones; None has no such bound.
            after: only ids greater than this one; None has no such bound.
            end: only ids less than this one; None has no such bound.
            limit: at most this many.
        """
        self._settle()
        found: list[Id] = []
        low = max((bound for bound in (start, after) if bound is not None), default=None)
        at = 0 if low is None else bisect_left(self._lasts, low)
        while at < len(self._blocks) and len(found) < limit:
            block = self._blocks[at]
            first = 0
            if low is not None:
                first = bisect_right(block, low) if low == after else bisect_left(block, low)
            last = len(block) if end is None else bisect_left(block, end)
            found += block[first : min(last, first + limit - len(found))]
            if last < len(block):
                break
            at += 1
            low = None  # every later block is greater
        return found

    def _settle(self) -> None:
        if len(self._waiting) * 8 > self._settled:
            ids = sorted(chain(chain.from_iterable(self._blocks), self._waiting))
            self._blocks = [ids[at : at + BLOCK_LENGTH] for at in range(0, len(ids), BLOCK_LENGTH)]
            self._lasts = [block[-1] for block in self._blocks]
            self._settled = len(ids)
        else:
            for doc_id in self._waiting:
                self._insert(doc_id)
        self._waiting.clear()

    def _insert(self, doc_id: Id) -> None:
        at = min(bisect_left(self._lasts, doc_id), len(self._blocks) - 1)
        block = self._blocks[at]
        insort(block, doc_id)
        self._settled += 1
        if len(block) > 2 * BLOCK_LENGTH:
            self._blocks[at : at + 1] = [block[:BLOCK_LENGTH], block[BLOCK_LENGTH:]]
            self._lasts.insert(at, block[BLOCK_LENGTH - 1])
            at += 1
        self._lasts[at] = self._blocks[at][-1]
