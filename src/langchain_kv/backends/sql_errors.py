"""What is raised for what a transaction of a SQL database raised, by what the database says and how far it came."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import exc
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from langchain_kv.backends.sql_rows import ChangeError, RacedError, Rows
from langchain_kv.errors import (
    ConfigError,
    ConnectError,
    DataAPIError,
    EngineError,
    InvalidKeyError,
    StoreError,
    TransportError,
)

__all__ = ["TRANSLATED", "TRIES", "Try", "raised_for"]

TRIES: Final = 20
"""How often a transaction is run that others win against; each time one of them went on."""

WAITS: Final = 2
"""How often a transaction waits for a lock, at least; on a file of SQLite for WAITED_S while others write."""

WAITED_S: Final = 30.0
"""For how long, about, a transaction goes on waiting for a lock where others write."""

LOCKED_S: Final = 0.1
"""How long a transaction that was refused a lock has waited for it, at least; less is a race that was lost."""

STALE_S: Final = 1.0
"""Within which time a connection shows that it had broken before it was used; later it broke in its work."""

# What databases say: SQLSTATEs, and numbers of MySQL.
_RACED: Final[set[object]] = {"40001", "40P01", 1020, 1213}
_LOCKED: Final[set[object]] = {"55P03", 1205}
# What a transaction may be told by, where its connection broke.
_READS: Final = ("get", "page", "keys_by_ending", "count", "names", "check_table")
_ONCE: Final = ("add", "update", "merge")
_NO_TABLE: Final[set[object]] = {"42P01", 1146}
_TOO_LONG: Final[set[object]] = {"54000"}
_NO_ENTRY: Final[set[object]] = {"28P01", "28000", 1044, 1045, 1698}

_OF_CALLS: Final = (TypeError, ValueError, AttributeError, LookupError)
_REFUSED: Final = re.compile(r"invalid (\w+ value|port number)|could not parse network address")  # what libpq was given

TRANSLATED: Final = (SQLAlchemyError, OSError, RuntimeError, RacedError, ChangeError, *_OF_CALLS)
"""What ``raised_for`` is asked about."""


@dataclass
class Try:
    """How far a transaction came.

    Attributes:
        work: the name of what it does.
        file: the path of the file of SQLite that it writes to; None where it is none.
        number: which try it is, from 1.
        since: when it had a connection; None where there was none.
        is_ending: whether its statements were answered, and it is being committed.
        waits: how often it has waited for a lock in vain.
        broke: what would have been raised for an earlier try, whose connection had broken before it was used.
    """

    work: str
    file: str | None = None
    number: int = 0
    since: float | None = None
    is_ending: bool = False
    waits: int = 0
    broke: TransportError | None = None
    _waited_s: float = 0.0
    _file_was: list[tuple[int, int]] = field(default_factory=list)

    def begin(self) -> None:
        """Begin the first try, or the next one."""
        self.number, self.since, self.is_ending = self.number + 1, None, False
        if self.waits:
            self._file_was = _state_of(self.file)

    def is_held_up(self) -> bool:
        """Count a lock that was refused; tell whether one other transaction holds it all the time.

        SQLite has no queue for its lock: who waits long looks for it ten times a second, and those who come new are
        ahead. So a transaction is run again where others have changed the file meanwhile.
        """
        waited_s = 0.0 if self.since is None else time.monotonic() - self.since
        if waited_s < LOCKED_S:
            return False  # it did not wait: a race that was lost
        self.waits += 1
        self._waited_s += waited_s
        return self.waits >= WAITS and _state_of(self.file) == self._file_was

    @property
    def may_go_on(self) -> bool:
        """Whether there is to be another try, where others are only faster."""
        return self.number < TRIES and (self.waits < WAITS or self._waited_s < WAITED_S)

    def is_stale(self, told: TransportError) -> bool:
        """Tell whether a connection broke that is to be replaced unseen: once in a call, and where repeating is safe.

        A server closes connections that rest, or is started anew, and a pool does not see it. To ask the server before
        each call would be a round trip of each.
        """
        is_prompt = self.since is not None and time.monotonic() - self.since < STALE_S
        return is_prompt and bool(told.retryable) and self.broke is None


def raised_for(error: Exception, rows: Rows, shown: str, this: Try) -> BaseException | None:
    """Return what is raised for what a transaction raised; None where it is run again.

    Args:
        error: what it raised.
        rows: whose statements.
        shown: the place, in messages.
        this: how far it came.
    """
    if isinstance(error, ChangeError):
        return error.__cause__
    if isinstance(error, _OF_CALLS):  # of the driver, which was called with a wrong parameter; or of ours
        # A TypeError names arguments, others may have a value in their text.
        text = str(error) if isinstance(error, TypeError) else type(error).__name__
        return _not_taken(text, shown) if this.since is None else error
    if isinstance(error, RuntimeError) and this.since is not None:
        return error  # before, it is what asyncmy raises where a server ends while it is connected to
    told = _failure(error, rows, shown, this)
    if isinstance(told, TransportError) and this.is_stale(told):
        this.broke = told
        return None
    if told is not None and this.broke is not None and this.broke.applied is None:
        return this.broke  # what the first try may have done stays unknown, whatever the second one met
    return told


def _failure(error: Exception, rows: Rows, shown: str, this: Try) -> StoreError | None:
    """Return the error for one of the database's, the driver's or SQLAlchemy's; None where it lost a race."""
    codes, text = _told(error)
    if this.since is None and not codes and (isinstance(error, exc.ProgrammingError) or _REFUSED.search(text)):
        return _not_taken(text, shown)  # by the driver: no server was asked
    is_refused = bool(codes & _LOCKED) or "database is locked" in text
    if this.since is not None and (isinstance(error, RacedError) or codes & _RACED or is_refused):
        is_held = is_refused and this.is_held_up()
        if not is_held and this.may_go_on:
            return None
        told: StoreError = EngineError(
            f"{shown}: another transaction holds what this call writes ({text}): is one of this program's open? End"
            " it, and repeat the call."
            if is_held
            else f"{shown}: others write all the time: repeat the call later."
        )
        told.retryable = True
    elif codes & _NO_ENTRY or "password authentication failed" in text:
        told = DataAPIError.of("UNAUTHORIZED_ACCESS", f"{shown} does not let us in: {text}. Check user and password.")
    elif isinstance(error, exc.TimeoutError):
        told = ConnectError(
            f"All connections of {shown} were in use for too long, and nothing was sent: give its engine more of them"
            " (pool_size, max_overflow) or more time (pool_timeout), or make fewer calls at once."
        )
    elif this.since is None:
        told = ConnectError(f"No connection to {shown}: {text}. Check that the server runs, and host and port.")
    elif codes & _NO_TABLE or "no such table" in text:
        told = rows.missing()
    elif not isinstance(error, DBAPIError) or error.connection_invalidated:
        told = _broken(f"The connection to {shown} broke: {text}.", this)
    elif codes & _TOO_LONG:
        told = InvalidKeyError(
            f"{shown} refused a key of the call, which is too long for the table's index: {text}. Nothing of the"
            " call was stored: use a hash of it as key."
        )
    else:
        told = EngineError(f"{shown} refused it: {text}. Nothing of the call was stored.")
    return told


def _broken(text: str, this: Try) -> TransportError:
    is_unsure = this.work in _ONCE and this.is_ending
    told = TransportError(
        f"{text} It may have been carried out: read the key before you repeat it."
        if is_unsure
        else f"{text} Repeating the call is safe."
    )
    if is_unsure:
        told.retryable = False
    elif this.work in (*_READS, *_ONCE):  # without its end a transaction changes nothing
        told.applied = False
    return told


def _not_taken(text: str, shown: str) -> ConfigError:
    """Return what is raised for what a driver raised that was called with something wrong, such as a parameter."""
    return ConfigError(f"The driver does not take the URL of {shown} with its parameters: {text}.")


def _state_of(file: str | None) -> list[tuple[int, int]]:
    """Return what a commit that changes something in a file of SQLite changes, in whichever mode its journal is."""
    found = []
    for path in (file, f"{file}-wal") if file else ():
        with suppress(OSError):
            state = os.stat(path)
            found.append((state.st_mtime_ns, state.st_size))
    return found


def _told(error: Exception) -> tuple[set[object], str]:
    """Return the database's codes of an error, and the first line of its text: a later one may hold values."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    args = cause.args
    is_numbered = len(args) > 1 and isinstance(args[0], int)
    lines = str(args[1] if is_numbered else cause).splitlines()
    text = lines[0].rstrip(".")[:300] if lines else type(cause).__name__
    return {getattr(cause, "sqlstate", None), args[0] if is_numbered else None} - {None}, text
