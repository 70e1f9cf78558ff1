"""SQLite's view of a ``-shm``, which all connections of this process to one file share.

The first connection decides whether the view may be written. One that only reads opens it for reading, and as long as
that view lives every write of this process fails, whatever this user may do ("attempt to write a readonly database").
So what only reads lets go of the file before the first connection that writes is opened, and shares that one's view.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol, TypeVar

from langchain_kv.engines.sqlite.connection import Connection
from langchain_kv.errors import EngineBusyError
from langchain_kv.runtime import threads
from langchain_kv.runtime.forks import renew_in_child

__all__ = ["SharedMemory", "shared_memory"]

T = TypeVar("T")

HOLD_S: Final = 0.1
"""Seconds for which a connection that writes keeps reads from beginning at a time, and then lets them go on."""

PAUSE_S: Final = 0.02
"""Seconds for which it lets them go on."""


class Reader(Protocol):
    """Connections to a file that only read it."""

    def let_go(self, shared: SharedMemory, deadline: float) -> bool:
        """Close the connections that share this, as their calls end; return whether no more was open at ``deadline``,
        which is of ``time.monotonic``.
        """


class SharedMemory:
    """That of one file. It has to be kept for as long as connections to the file are open that it knows of.

    Weak references are without callbacks, here and below: Ctrl-C in one of these would be lost.
    """

    def __init__(self) -> None:
        self._opening = threads.Mutex()
        self._readers: list[weakref.ref[Reader]] = []
        self._writing: list[weakref.ref[Connection]] = []

    def open_to_read(self, path: str, reader: Reader, connect: Callable[[], object], deadline: float) -> bool:
        """Have ``connect`` make a connection, which belongs to ``reader`` by then.

        Returns:
            Whether it shares a view that may be written, and so stands in nobody's way.

        Raises:
            EngineBusyError: others opened connections all the time until ``deadline``.
        """
        return self._alone(path, lambda: self._open_to_read(reader, connect), deadline)

    def _open_to_read(self, reader: Reader, connect: Callable[[], object]) -> bool:
        if reader not in _alive(self._readers):
            self._readers = [weakref.ref(each) for each in (*_alive(self._readers), reader)]
        before = self._those_writing()
        connect()
        return any(each in before for each in self._those_writing())  # one kept the view all the time

    def open_to_write(self, path: str, connect: Callable[[], Connection], deadline: float) -> Connection:
        """Return the connection that ``connect`` makes while none is open that would keep it from writing.

        Raises:
            EngineBusyError: one was in use all the time until ``deadline``.
        """
        while (connection := self._alone(path, lambda: self._open_to_write(connect, deadline), deadline)) is None:
            if time.monotonic() > deadline:
                raise EngineBusyError(
                    f"{path} was being read by a store of this process that only reads, all the time that this call"
                    " waits, and cannot be opened for writing before that ends; try again later"
                )
            time.sleep(PAUSE_S)
        return connection

    def _open_to_write(self, connect: Callable[[], Connection], deadline: float) -> Connection | None:
        until = min(time.monotonic() + HOLD_S, deadline)
        if not self._those_writing() and not all(each.let_go(self, until) for each in _alive(self._readers)):
            return None
        connection = connect()
        self._writing = [weakref.ref(each) for each in (*self._those_writing(), connection)]
        return connection

    def _alone(self, path: str, work: Callable[[], T], deadline: float) -> T:
        """Return what ``work`` answers while nobody else of this process opens the file."""
        try:
            if not self._opening.acquire(timeout=max(deadline - time.monotonic(), 0)):
                raise EngineBusyError(
                    f"{path} was being opened by others of this process all the time; try again later"
                )
            answer = work()
            self._done()
            return answer
        except BaseException:
            self._done()  # also where Ctrl-C came in the middle of that
            raise

    def _done(self) -> None:
        with suppress(RuntimeError):  # it was not taken
            self._opening.release()

    def _those_writing(self) -> list[Connection]:
        return [each for each in _alive(self._writing) if each.is_open]


def _alive(references: Sequence[weakref.ref[T]]) -> list[T]:
    return [found for each in references if (found := each()) is not None]


class _Files:
    """The shared memories of this process. A forked child has none."""

    def __init__(self) -> None:
        self._after_fork_in_child()
        renew_in_child(self)

    def _after_fork_in_child(self) -> None:
        self.mutex = threads.Mutex()
        self.shared: dict[tuple[int, int], weakref.ref[SharedMemory]] = {}


_files: Final = _Files()


def shared_memory(identity: tuple[int, int]) -> SharedMemory:
    """Return that of the file of this identity."""
    with _files.mutex:
        kept = {each: found for each, one in _files.shared.items() if (found := one()) is not None}
        shared = kept.setdefault(identity, SharedMemory())
        _files.shared = {each: weakref.ref(found) for each, found in kept.items()}
        return shared
