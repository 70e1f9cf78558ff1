"""One operation's patience: its deadline, its token, and when a failed request is sent again. No HTTP here."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, TypeVar

from langchain_kv.errors import (
    AuthError,
    BadReplyError,
    ConfigError,
    ConnectError,
    DataAPIError,
    PartialWriteError,
    RequestTimeoutError,
    StoreError,
    TransportError,
)

__all__ = ["ONCE", "Attempt", "Call", "TokenSource"]

T = TypeVar("T")
TokenSource = str | Callable[[], str | None] | None

FIRST_DELAY_S: Final = 0.1
"""Half the longest wait before the first retry; it doubles with each try. The wait is random below it (full jitter)."""

DELAY_MAX_S: Final = 5.0
"""The longest wait between two tries that the service did not ask for."""

ONCE: Final = frozenset({"UNEXPECTED_SERVER_ERROR", "UNEXPECTED_DRIVER_ERROR", "INTERNAL_SERVER_ERROR"})
"""Codes of unforeseen faults: mostly they come back with the same request, so it is sent once more only."""

_log = logging.getLogger("langchain_kv")


class Attempt:
    """One try of one request.

    Attributes:
        timeout_s: the seconds it may take.
        retry_after_s: set by the try: the seconds that the service asks to wait before another.
    """

    __slots__ = ("retry_after_s", "timeout_s")

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.retry_after_s: float | None = None


class Call:
    """One operation of a backend: all of its requests share a deadline and a token.

    The deadline bounds how long an operation goes on without success: each request that succeeds starts it anew, so
    that
    a large batch ends well however long it takes, and one that gets nowhere ends in time.

    Made in the caller's thread, because the token may come from the caller's function.
    """

    __slots__ = (
        "_announced",
        "_deadline",
        "_deadline_s",
        "_is_astra",
        "_source",
        "_timeout_s",
        "_writes",
        "refusal",
        "token",
    )

    def __init__(
        self, source: TokenSource, *, deadline_s: float, timeout_s: float, writes: bool, is_astra: bool = False
    ) -> None:
        self._source = source
        self._deadline_s = deadline_s
        self._timeout_s = timeout_s
        self._writes = writes
        self._is_astra = is_astra
        self._announced = False
        self._deadline = monotonic() + deadline_s
        self.token = _ask(source)
        self.refusal: AuthError | None = None

    def renew(self, error: StoreError) -> bool:
        """Ask for a fresh token where the old one was refused; tell whether another run makes sense.

        To be called in the caller's thread, once an operation.
        """
        refused = (
            error.errors and all(isinstance(each, AuthError) for each in error.errors.values())
            if isinstance(error, PartialWriteError)
            else isinstance(error, AuthError)
        )
        if not refused or not callable(self._source):
            return False
        self.token = _ask(self._source)
        return True

    def restart(self) -> None:
        """Begin the deadline anew: a request succeeded, or the consumer of a scan asked for another page."""
        self._deadline = monotonic() + self._deadline_s

    async def persist(self, attempt: Callable[[Attempt], Awaitable[T]], *, timeout_s: float | None = None) -> T:
        """Repeat ``attempt`` until it succeeds, fails for good, or the deadline ends; return its result.

        Args:
            attempt: sends one request and reads its answer. Safe to repeat: every operation is idempotent by key.
            timeout_s: seconds for one try, in place of the usual; the deadline is at least as far away.
        """
        started = monotonic()
        least = started + (timeout_s or 0.0)
        tries, uncertain, unforeseen = 0, False, 0
        usual_s = self._timeout_s if timeout_s is None else timeout_s
        error: StoreError | None = None
        while True:
            left_s = max(self._deadline, least) - monotonic()
            if left_s <= 0:
                raise _never_sent(self._deadline_s) if error is None else _told(error, tries, monotonic() - started)
            one = Attempt(min(usual_s, left_s))
            tries += 1
            try:
                result = await attempt(one)
                self.restart()
                return result
            except StoreError as caught:
                uncertain = uncertain or (caught.applied is None and self._writes)
                # A try that the deadline cut short says less than the one before it.
                was_cut = one.timeout_s < usual_s and isinstance(caught, ConnectError | RequestTimeoutError)
                error = error if was_cut and error is not None else caught
            # An earlier try may have been carried out, whatever the last one says.
            error.applied = None if uncertain else False
            is_unforeseen = isinstance(error, DataAPIError) and error.code in ONCE
            unforeseen += is_unforeseen
            is_passing = error.retryable or (is_unforeseen and unforeseen == 1)
            delay_s = _delay_s(error, tries, one.retry_after_s) if is_passing else None
            deadline = max(self._deadline, least)
            if delay_s is None or monotonic() + delay_s >= deadline:
                raise _told(error, tries, monotonic() - started)
            self._announce(error, deadline)
            await asyncio.sleep(delay_s)

    def _announce(self, error: StoreError, deadline: float) -> None:
        if self._is_astra and not self._announced and isinstance(error, BadReplyError) and error.http_status == 503:
            self._announced = True
            _log.warning(
                "The Astra database is hibernated or starting (HTTP 503): waiting up to %.0f s for it.",
                deadline - monotonic(),
            )


def _delay_s(error: StoreError, tries: int, asked_s: float | None) -> float:
    """Return the seconds to wait after the given number of tries."""
    if asked_s is not None:
        return asked_s
    if tries == 1 and type(error) is TransportError:
        return 0.0  # most likely an idle connection that the server had closed
    return random.uniform(0, min(DELAY_MAX_S, FIRST_DELAY_S * 2.0 ** min(tries, 16)))  # noqa: S311


def _ask(source: TokenSource) -> str | None:
    token = source() if callable(source) else source
    if token is None or token == "":
        return None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise ConfigError("The token is not printable ASCII text: check where it comes from.")
    return token


def _never_sent(deadline_s: float) -> StoreError:
    error = RequestTimeoutError(
        f"The operation's deadline of {deadline_s:.3g} s ended before this part of it was sent: raise deadline_s, or"
        " use smaller batches."
    )
    error.applied = False
    return error


def _told(error: StoreError, tries: int, elapsed_s: float) -> StoreError:
    if tries > 1:
        error.args = (f"{error.args[0] if error.args else ''} ({tries} tries in {elapsed_s:.1f} s)", *error.args[1:])
    return error
