"""Which file the connections are of. One that is removed or replaced under them is noticed, and they are given up."""

from __future__ import annotations

import os
import threading

from langchain_kv.engines.sqlite_file import Connection, File, Translated, closes_safely, exists, identity
from langchain_kv.errors import EngineError
from langchain_kv.sharing import keep_for_ever

__all__ = ["OpenFile", "Threads"]


class Threads(threading.local):
    """What each thread has for itself."""

    transaction: Connection | None = None


class OpenFile:
    """The connections to the file that has a name, and those to files that had it before, until they are closed.

    Every call looks whether it still is the same file. Connections to one that has lost the name are given up, and the
    file that has it then is opened as if for the first time.

    Args:
        path: the database file; links are followed, once.

    Attributes:
        path: the absolute path, links resolved: two names of one file would have two locks.
        was_lost: whether the file was removed, or moved away, while it was open, and no other one was opened yet.
    """

    def __init__(self, path: str) -> None:
        self._name = os.path.abspath(path)
        self.path = os.path.realpath(path)
        self.was_lost = False
        self._translated = Translated(self.path)
        self._mutex = threading.Lock()
        self._start_with_nothing_open()

    def _start_with_nothing_open(self) -> None:
        self._threads = Threads()
        self._file = File(None)  # which one the connections are of
        self._open: list[Connection] = []  # all of them
        self._given_up: list[Connection] = []  # those of a file that has lost its name, until they are closed
        self._writer: Connection | None = None
        self._readers: list[Connection] = []
        self._quick: Connection | None = None  # the one whose calls wait for nobody
        self._using: dict[object, Connection | None] = {}  # by reading call in flight; None: being opened

    def has_file(self, *, look: bool = True) -> bool:
        """Return whether there is a database.

        Args:
            look: whether to look if an open file still is the one that has the name; ``change`` does so itself.
        """
        if not self._open:
            return exists(self.path)
        if look and self._threads.transaction is None and identity(self._name) != self._file.identity:
            self._give_up()
            return exists(self.path)
        return True

    def _give_up(self) -> None:
        """Give up the connections, unless they are of the file that has the name now."""
        if os.path.realpath(self._name) != self.path:
            raise EngineError(
                f"{self._name} led to {self.path} when it was opened, and leads elsewhere by now: open a new store, or"
                " restart the server"
            )
        with self._mutex:
            found = identity(self.path)
            if self._open and found != self._file.identity:
                self.was_lost = found is None
                self._give_up_all()

    def _give_up_all(self) -> None:
        self._given_up += self._open
        self._open, self._readers, self._writer, self._quick = [], [], None, None

    def _close_connections(self) -> None:
        """Close all of them; the file lock is held and no call is in flight."""
        with self._mutex:
            self._give_up_all()
        self._close_given_up()

    def _close_given_up(self) -> None:
        """Close those that no call uses any more; the file lock is held."""
        with self._mutex:
            in_use = list(self._using.values())
            unused = [connection for connection in self._given_up if connection not in in_use]
            self._given_up = [connection for connection in self._given_up if connection in in_use]
        found = identity(self.path) if unused else None
        for connection in unused:
            if closes_safely(connection, found):
                with self._translated:
                    connection.close()
            else:
                keep_for_ever(connection)
