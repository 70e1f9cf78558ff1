"""One operation's patience: its deadline, its token, and when a failed request is sent again. No HTTP here."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final, Self, TypeVar, cast

from langchain_kv import limits
from langchain_kv.backends.dataapi.flow import Flow, is_overload
from langchain_kv.backends.dataapi.tracing import trace
from langchain_kv.errors import (
    AuthError,
    BadReplyError,
    ConfigError,
    ConnectError,
    DataAPIError,
    PartialWriteError,
    RequestTimeoutError,
    StoreError,
    UnknownCollectionError,
)
from langchain_kv.runtime.work_queue import run_aside
from langchain_kv.values.secret import SecretSource, checked_token

__all__ = ["ONCE", "Attempt", "Call", "TokenSource"]

T = TypeVar("T")
TokenSource = str | Callable[[], str | None] | None

FIRST_DELAY_S: Final = 0.1
"""Half the longest wait before the first retry; it doubles with each try. The wait is random below it (full jitter)."""

DELAY_MAX_S: Final = 5.0
"""The longest wait between two tries that the service did not ask for."""

FIRST_CONTACT_DELAY_MAX_S: Final = 0.5
"""The same while nothing listens yet: that costs nobody anything, and the patience is short."""

NEW_COLLECTION_DELAY_MAX_S: Final = 1.0
"""The same while a new collection is not there yet: such an answer costs the service little."""

ONCE: Final = frozenset({"UNEXPECTED_SERVER_ERROR", "INTERNAL_SERVER_ERROR"})
"""Codes of unforeseen faults: mostly they come back with the same request, so it is sent once more only."""

_log = logging.getLogger("langchain_kv")


class Attempt:
    """One try of one request: how long it may take, and what whoever sends it learnt.

    Attributes:
        timeout_s: the seconds it may take.
        retry_after_s: the seconds that the service asks to wait before another, or None.
        is_connected: whether it had a connection; without one nothing of it has left.
        is_first_on_connection: whether that connection was made for it.
        is_stale: whether it failed because a connection that had been kept was closed meanwhile.
        is_unreached: whether it was refused a connection where nothing has ever answered.
        status: the HTTP status of its answer, None as long as there is none.
    """

    __slots__ = (
        "is_connected",
        "is_first_on_connection",
        "is_stale",
        "is_unreached",
        "retry_after_s",
        "status",
        "timeout_s",
    )

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.retry_after_s: float | None = None
        self.is_connected = False
        self.is_first_on_connection = False
        self.is_stale = False
        self.is_unreached = False
        self.status: int | None = None


class Call:
    """One operation of a backend: all of its requests share a deadline and a token.

    The deadline bounds how long an operation goes on without success: each request that succeeds starts it anew, so
    that a large batch ends well however long it takes, and one that gets nowhere ends in time. Two faults have a
    patience of their own until something succeeds: a hibernated database, and an endpoint that never answered.

    Until ``new_until``, by the monotonic clock, a collection that does not exist is one that is just being made.

    ``begin`` comes before the first request: the token may come from a function of the user's.
    """

    __slots__ = (
        "_announced",
        "_deadline",
        "_deadline_s",
        "_first_contact_end",
        "_new_until",
        "_source",
        "_timeout_s",
        "_wake_end",
        "_wake_timeout_s",
        "_writes",
        "headers",
        "outcome",
        "token",
    )

    def __init__(
        self,
        source: TokenSource,
        *,
        deadline_s: float,
        timeout_s: float,
        writes: bool,
        wake_timeout_s: float | None = None,
        new_until: float = 0.0,
    ) -> None:
        self._source = source
        self._new_until = new_until
        self._deadline_s = deadline_s
        self._timeout_s = timeout_s
        self._writes = writes
        self._wake_timeout_s = wake_timeout_s
        self._wake_end: float | None = None
        self._first_contact_end: float | None = None
        self._announced: set[str] = set()
        self._deadline = monotonic() + deadline_s
        self.token: str | None = None
        self.headers: Mapping[str, str] | None = None  # made for the token, once
        self.outcome: Any = None  # what became of each key of a batch of writes

    async def begin(self) -> Self:
        """Get the token; return this call."""
        self.token = await _ask(self._source)
        return self

    async def renew(self, error: StoreError) -> bool:
        """Ask for a fresh token where the old one was refused; tell whether another run makes sense.

        What the token's source raises now becomes the cause of ``error``, which says how far the operation came.
        """
        refused = (
            error.errors and all(isinstance(each, AuthError) for each in error.errors.values())
            if isinstance(error, PartialWriteError)
            else isinstance(error, AuthError)
        )
        if not refused or not callable(self._source):
            return False
        try:
            self.token = await _ask(self._source)
        except Exception as problem:
            error.__cause__ = problem
            return False
        self.headers = None
        return True

    def restart(self) -> None:
        """Begin the deadline anew: a request succeeded, or the consumer of a scan asked for another page."""
        self._deadline = monotonic() + self._deadline_s
        self._wake_end = self._first_contact_end = None

    async def persist(
        self,
        attempt: Callable[[Attempt], Awaitable[T]],
        flow: Flow,
        *,
        timeout_s: float | None = None,
        what: str = "request",
        count: int = 0,
    ) -> T:
        """Repeat ``attempt`` until it succeeds, fails for good, or the deadline ends; return its result.

        Args:
            attempt: sends one request and reads its answer. Safe to repeat: every operation is idempotent by key.
            flow: gives the turns to send, and learns how the service keeps up.
            timeout_s: seconds for one try, in place of the usual; the deadline is at least as far away.
            what: the command and what it is on, for the log.
            count: how many keys it is about, for the log.
        """
        told = trace(what, count)
        started = monotonic()
        past: _Past | None = None
        least = started + (timeout_s or 0.0)
        usual_s = self._timeout_s if timeout_s is None else timeout_s
        while True:
            entered = await self._turn(flow, least)
            if entered is None:
                raise _never_sent(self._deadline_s) if past is None else past.told()
            one = Attempt(min(usual_s, max(0.0, self._end(least) - monotonic())))
            kept_up: bool | None = None
            if told:
                told.sends()
            try:
                result = await attempt(one)
                kept_up = True
                self.restart()
                if told:
                    told.answered(one.status)
                return result
            except StoreError as caught:
                # A try that the deadline cut short says less than the one before it.
                past = past or _Past(self._writes, started, self._new_until)
                was_cut = one.timeout_s < usual_s and isinstance(caught, ConnectError | RequestTimeoutError)
                kept_up = False if is_overload(caught) and not was_cut else None
                error = past.add(caught, one, was_cut=was_cut)
                if told:
                    told.failed(one.status, caught)
            finally:
                flow.leave(entered, kept_up=kept_up)
            if told and kept_up is False:
                told.overloaded(int(flow.width))
            if one.is_stale:
                continue
            self._be_patient(error, one)
            delay_s = past.delay_s(one)
            if delay_s is None or monotonic() + delay_s >= self._end(least):
                raise past.told(one.retry_after_s)
            self._announce(error, least)
            if told:
                told.waits(delay_s)
            await asyncio.sleep(delay_s)

    async def _turn(self, flow: Flow, least: float) -> int | None:
        """Wait for a turn to send; return None where the deadline ends first, which others' successes move."""
        while (left_s := self._end(least) - monotonic()) > 0:
            if flow.is_free:
                return await flow.enter()
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    entered = await flow.enter()
                if monotonic() < self._end(least):
                    return entered
                flow.leave(entered, kept_up=None)  # it came too late: nothing is sent, which is known
        return None

    def _end(self, least: float) -> float:
        if self._wake_end is not None:
            return max(self._wake_end, least)
        if self._first_contact_end is not None:
            return min(self._first_contact_end, self._deadline)
        return max(self._deadline, least)

    def _be_patient(self, error: StoreError, one: Attempt) -> None:
        if self._wake_timeout_s is not None and _is_hibernation(error) and self._wake_end is None:
            self._wake_end = monotonic() + self._wake_timeout_s
        if not one.is_unreached:
            self._first_contact_end = None
        elif self._first_contact_end is None:
            self._first_contact_end = monotonic() + limits.FIRST_CONTACT_S

    def _announce(self, error: StoreError, least: float) -> None:
        """Say once what is waited for where that takes long."""
        left_s = self._end(least) - monotonic()
        if self._wake_end is not None:
            self._log_once(
                "The Astra database is hibernated or starting (HTTP 503): waiting up to %.0f s for it.", left_s
            )
        elif self._first_contact_end is not None:
            self._log_once("%s Nothing ever answered there: trying for up to %.0f s.", error, left_s)

    def _log_once(self, text: str, *arguments: object) -> None:
        if text not in self._announced:
            self._announced.add(text)
            _log.warning(text, *arguments)


class _Past:
    """The tries of one request that failed.

    Attributes:
        error: what is to be raised if no other try follows.
    """

    def __init__(self, writes: bool, started: float, new_until: float) -> None:
        self.error: StoreError | None = None
        self._new_until = new_until
        self._writes = writes
        self._started = started
        self._tries = 0
        self._unforeseen = 0
        self._is_uncertain = False

    def add(self, caught: StoreError, one: Attempt, *, was_cut: bool) -> StoreError:
        """Count a try; return the error that now stands for all of them."""
        self._tries += not one.is_stale
        self._is_uncertain = self._is_uncertain or (caught.applied is None and self._writes)
        error = self.error if was_cut and self.error is not None else caught
        # An earlier try may have been carried out, whatever the last one says.
        error.applied = None if self._is_uncertain else False
        self._unforeseen += isinstance(error, DataAPIError) and error.code in ONCE
        self.error = error
        return error

    def delay_s(self, one: Attempt) -> float | None:
        """Return the seconds to wait before another try, None where there is to be none."""
        error = self.error
        if error is None or not self._is_passing(error):
            return None
        if one.retry_after_s:  # "at once" to all would be asking for more of the same
            return one.retry_after_s
        most_s = FIRST_CONTACT_DELAY_MAX_S if one.is_unreached else DELAY_MAX_S
        if isinstance(error, UnknownCollectionError):
            most_s = NEW_COLLECTION_DELAY_MAX_S
        return random.uniform(0, min(most_s, FIRST_DELAY_S * 2.0 ** min(self._tries, 16)))  # noqa: S311

    def _is_passing(self, error: StoreError) -> bool:
        if isinstance(error, UnknownCollectionError):
            return monotonic() < self._new_until
        is_unforeseen = isinstance(error, DataAPIError) and error.code in ONCE
        return error.retryable or (is_unforeseen and self._unforeseen == 1)

    def told(self, asked_s: float | None = None) -> StoreError:
        """Return the error with the tries, and the wait the service asked for, in its message."""
        error = self.error
        assert error is not None  # noqa: S101 - there was a try
        more = f" ({self._tries} tries in {monotonic() - self._started:.1f} s)" if self._tries > 1 else ""
        if asked_s and error.retryable:
            more += f" The service asks to wait {asked_s:.0f} s, longer than the deadline leaves: repeat the call then."
        if more:
            error.args = (f"{error.args[0] if error.args else ''}{more}", *error.args[1:])
        return error


def _is_hibernation(error: StoreError) -> bool:
    return isinstance(error, BadReplyError) and error.http_status == 503


async def _aside(source: Callable[[], T]) -> T:
    """Call a function on a thread of its own, with the context variables of here."""
    return await run_aside(partial(contextvars.copy_context().run, source), "langchain-kv token")


async def _ask(source: TokenSource) -> str | None:
    # The user's function may block, and may use a store of this package: so not on an event loop's own thread.
    token = checked_token(await _aside(source) if callable(source) else source)
    if isinstance(token, SecretSource):
        if token.discard():
            raise ConfigError(
                "get_token() is asynchronous: give an object whose get_token() returns the token itself. It is called"
                " in a thread, and may block."
            )
        raise ConfigError(f"get_token() must return a string or None, it returned {token.kind}.")
    return cast("str | None", token)


def _never_sent(deadline_s: float) -> StoreError:
    error = RequestTimeoutError(
        f"The operation's deadline of {deadline_s:.3g} s ended before this part of it was sent: raise deadline_s, or"
        " use smaller batches."
    )
    error.applied = False
    return error
