"""What a cache of embeddings has done, counted by all its threads."""

from __future__ import annotations

from typing import NamedTuple

from langchain_kv.runtime import threads
from langchain_kv.runtime.forks import renew_in_child

__all__ = ["EmbeddingStatistics", "Tally"]


class EmbeddingStatistics(NamedTuple):
    """What an ``EmbeddingCache`` has done since it was made. A text that a call was given twice counts once.

    Attributes:
        hits: texts whose vector was in the cache, or in the older one that is read through.
        misses: texts whose vector was in neither.
        embedded: texts that the model was asked for and answered.
        joined: texts that another call of this process was getting already; they count neither as hits nor as misses.
        read_through: those of the hits that were in the older cache.
        store_failures: calls of the store that failed and were passed over.
        read_bytes: bytes of vectors that were read from stores.
        written_bytes: bytes of vectors that were written.
    """

    hits: int = 0
    misses: int = 0
    embedded: int = 0
    joined: int = 0
    read_through: int = 0
    store_failures: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


class Tally:
    """Adds up. A copy, a pickle and a forked child begin with nothing.

    Attributes:
        statistics: the numbers so far.
    """

    def __init__(self) -> None:
        self._after_fork_in_child()
        renew_in_child(self)

    def _after_fork_in_child(self) -> None:
        self._lock = threads.Mutex()
        self._has_failed = False
        self.statistics = EmbeddingStatistics()

    def add(self, change: EmbeddingStatistics) -> None:
        """Add to the numbers."""
        with self._lock:
            self.statistics = EmbeddingStatistics(*map(sum, zip(self.statistics, change, strict=True)))

    def is_first_failure(self) -> bool:
        """Return whether this was not asked before."""
        with self._lock:
            is_first, self._has_failed = not self._has_failed, True
            return is_first

    def __reduce__(self) -> tuple[type[Tally], tuple[()]]:
        return Tally, ()
