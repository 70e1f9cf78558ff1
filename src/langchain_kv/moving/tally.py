"""What became of the values on their way, and how fast they may go."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from langchain_kv.errors import StoreError
from langchain_kv.values.keys import shown

__all__ = ["FAILURES_MAX", "Pace", "Tally"]

FAILURES_MAX: Final = 1_000
"""Values that fail, after which nothing more is tried: a target that takes none of them is not worth the reading."""

_REASONS: Final = 10


@dataclass
class Tally:
    """How many values, of all that were read.

    Attributes:
        read: all of them.
        written: whose keys were not there before.
        replaced: whose keys were there, with something else.
        same: which were there already, equal, and were left.
        skipped: whose keys were there with something else, which was left; and which expired on their way.
        failed: that could not be read, or that the target refuses.
        reasons: why, for the first of these, by key.
        failed_before: of ``failed`` those of earlier attempts, which is gone on from.
    """

    read: int = 0
    written: int = 0
    replaced: int = 0
    same: int = 0
    skipped: int = 0
    failed: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    failed_before: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """The numbers, by their names."""
        return {name: getattr(self, name) for name in ("read", "written", "replaced", "same", "skipped", "failed")}

    def go_on_from(self, failed: int, reasons: Mapping[str, str]) -> None:
        """Take over what failed in earlier attempts, which is not looked at again."""
        self.failed = self.failed_before = failed
        self.reasons.update(reasons)

    def fail(self, key: str, reason: str) -> None:
        """Note that a value failed.

        Raises:
            StoreError: too many did.
        """
        self.failed += 1
        if len(self.reasons) < _REASONS:
            self.reasons[key] = reason
        if self.failed - self.failed_before == FAILURES_MAX:
            raise StoreError(
                f"{FAILURES_MAX:,} values failed, and nothing more is tried; of the key {shown(key)}: {reason}"
            )


class Pace:
    """Holds up whoever is faster than a rate.

    Args:
        per_s: items a second; None for no bound.
        clock: seconds, of whatever beginning.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        per_s: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._per_s = per_s
        self._clock = clock
        self._sleep = sleep
        self._free_at = 0.0

    @property
    def batch_max(self) -> int | None:
        """How many items may go together: what a second takes, None for no bound."""
        return None if self._per_s is None else max(1, int(self._per_s))

    def wait(self, items: int) -> None:
        """Return when so many more may go. The pause after them is the next call's."""
        if self._per_s is None:
            return
        now = self._clock()
        if self._free_at > now:
            self._sleep(self._free_at - now)
        self._free_at = max(now, self._free_at) + items / self._per_s
