"""Where pages of searches ended, so that the next page of a search need not be looked for from the beginning."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, NamedTuple

from langchain_kv.runtime import threads
from langchain_kv.runtime.clock import now_ms

__all__ = ["Pages", "Ranking"]

PAGES_MAX: Final = 64
"""Ends of pages that are remembered."""

KEYS_MAX: Final = 200_000
"""Keys that are remembered, of all of them together."""

KEPT_MS: Final = 60_000
"""How long an end is remembered: what is new in the meantime is not on the pages after it."""


class Ranking(NamedTuple):
    """All that a search has found.

    Attributes:
        keys: the records' keys, in order.
        scores: of each its score; empty where nothing was compared.
    """

    keys: list[str]
    scores: list[float | None]


class _End(NamedTuple):
    ranking: Ranking
    at: int
    until_ms: int


class Pages:
    """The ends, each for one use: a page that is asked for again is looked for anew."""

    def __init__(self) -> None:
        self._lock = threads.Mutex()
        self._ends: OrderedDict[tuple[Hashable, int], _End] = OrderedDict()

    def take(self, signature: Hashable, offset: int) -> tuple[Ranking, int] | None:
        """Return the ranking of a search and where in it the page of an offset begins; None where that is not known."""
        with self._lock:
            end = self._ends.pop((signature, offset), None)
        return None if end is None or end.until_ms < now_ms() else (end.ranking, end.at)

    def keep(self, signature: Hashable, offset: int, ranking: Ranking, at: int) -> None:
        """Remember where the page of an offset begins, unless there is too much after it."""
        if len(ranking.keys) > KEYS_MAX:
            return
        with self._lock:
            self._ends[signature, offset] = _End(ranking, at, now_ms() + KEPT_MS)
            self._ends.move_to_end((signature, offset))
            while len(self._ends) > PAGES_MAX or self._size() > KEYS_MAX:
                self._ends.popitem(last=False)

    def _size(self) -> int:
        return sum({id(end.ranking): len(end.ranking.keys) for end in self._ends.values()}.values())
