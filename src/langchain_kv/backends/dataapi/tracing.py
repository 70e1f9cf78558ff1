"""What the logger ``langchain_kv`` says at DEBUG of requests on their way: names and numbers, no key, value or token.

Keys may name people, so only how many there were is said; an error is said by its class: its words may quote keys.
"""

from __future__ import annotations

import logging
import re
from time import monotonic
from typing import Final

from langchain_kv.errors import BadReplyError, DataAPIError, StoreError

__all__ = ["Trace", "trace"]

_CODE: Final = re.compile(r"[A-Z0-9_]{1,80}")
"""A code as the Data API has them: any other text that a service sends is not repeated."""

_log = logging.getLogger("langchain_kv")


class Trace:
    """One request and its tries, in the log.

    Args:
        what: the command and what it is on.
        count: how many keys it is about; 0 where it names none.
    """

    __slots__ = ("_began", "_count", "_tries", "_what")

    def __init__(self, what: str, count: int) -> None:
        self._what = what
        self._count = count
        self._tries = 0
        self._began = monotonic()

    def sends(self) -> None:
        """Count a try, which begins now; say how long it waited for its turn, where that was noticeable."""
        now = monotonic()
        if now - self._began >= 0.001 and not self._tries:
            _log.debug("%s: waited %.0f ms for its turn", self._what, (now - self._began) * 1_000)
        self._tries += 1
        self._began = now

    def answered(self, status: int | None) -> None:
        """Say that a try succeeded."""
        _log.debug("%s%s: HTTP %s in %.1f ms, try %d", self._what, self._keys(), status, self._ms(), self._tries)

    def failed(self, status: int | None, error: StoreError) -> None:
        """Say that a try failed, and with what."""
        cause = type(error).__name__
        if isinstance(error, DataAPIError) and _CODE.fullmatch(error.code):
            cause = f"{cause} {error.code}"
        if status is None and isinstance(error, BadReplyError):
            status = error.http_status
        answer = "no answer" if status is None else f"HTTP {status}"
        _log.debug(
            "%s%s: %s (%s) after %.1f ms, try %d", self._what, self._keys(), answer, cause, self._ms(), self._tries
        )

    def overloaded(self, width: int) -> None:
        """Say that the service is overloaded, and how many requests may be under way now."""
        _log.debug("%s: the service is overloaded; at most %d requests at once from now on", self._what, width)

    def waits(self, delay_s: float) -> None:
        """Say that the request is sent again, and when."""
        _log.debug("%s: sent again in %.0f ms", self._what, delay_s * 1_000)

    def _keys(self) -> str:
        return f", {self._count} key{'' if self._count == 1 else 's'}" if self._count else ""

    def _ms(self) -> float:
        return (monotonic() - self._began) * 1_000


def trace(what: str, count: int) -> Trace | None:
    """Return what logs a request, None where nobody listens: then a request costs one look."""
    return Trace(what, count) if _log.isEnabledFor(logging.DEBUG) else None
