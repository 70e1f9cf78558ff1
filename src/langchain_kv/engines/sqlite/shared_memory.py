"""SQLite's view of a ``-shm``, which all connections of this process to one file share.

The first connection decides whether the view may be written. One that only reads opens it for reading, and as long as
that view lives every write of this process fails, whatever this user may do ("attempt to write a readonly database").
So what only reads lets go of the file before the first connection that writes is opened, and shares that one's view.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from langchain_kv.errors import EngineBusyError
from langchain_kv.runtime import threads
from langchain_kv.runtime.forks import renew_in_child

__all__ = ["SharedMemory", "shared_memory"]

T = TypeVar("T")


class Reader(Protocol):
    """Connections to a file that only read it."""

    def let_go(self, shared: SharedMemory, deadline: float) -> bool:
        """Close the connections that share this, as their calls end; return whether no more was open at ``deadline``,
        which is of ``time.monotonic``.
        """


class SharedMemory:
    """That of one file. It has to be kept for as long as connections that only read are open.

    Weak references are without callbacks, here and below: Ctrl-C in one of these would be lost.
    """

    def __init__(self) -> None:
        self._opening = threads.Mutex()
        self._readers: list[weakref.ref[Reader]] = []

    def open_to_read(self, reader: Reader, connect: Callable[[], T]) -> T:
        """Return what ``connect`` makes, which belongs to ``reader`` by then."""
        with self._opening:
            if reader not in self._those_alive():
                self._readers = [weakref.ref(each) for each in (*self._those_alive(), reader)]
            return connect()

    def open_to_write(self, path: str, connect: Callable[[], T], deadline: float) -> T:
        """Return what ``connect`` makes while no connection that only reads is open.

        Raises:
            EngineBusyError: one was in use until ``deadline``.
        """
        with self._opening:
            if not all(reader.let_go(self, deadline) for reader in self._those_alive()):
                raise EngineBusyError(
                    f"{path} was being read by a store of this process that only reads, all the time that this call"
                    " waits, and cannot be opened for writing before that ends; try again later"
                )
            return connect()

    def _those_alive(self) -> list[Reader]:
        return [reader for each in self._readers if (reader := each()) is not None]


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
