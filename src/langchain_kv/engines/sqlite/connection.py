"""A connection to a file of SQLite, which whoever opens it can close in any case."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from langchain_kv.engines.base import CollectionName, Settings
from langchain_kv.engines.vectors import Matrix

__all__ = ["Connection", "File", "Synchronous", "lend"]

T = TypeVar("T")

Synchronous = Literal["full", "normal"]


class File:
    """What this process remembers of one file while it has it open. A file that takes its name is another one.

    Attributes:
        identity: what tells it from that other file.
        tables: the numbers of its collections' tables, as once committed.
        settings: those of the collections, by these numbers: they are as old as the table, and never change.
        columns: how a row is selected; None until it is known that nothing will change that any more.
        matrices: the vectors of collections that were searched, by these numbers, the one searched last at the end.
    """

    def __init__(self, identity: tuple[int, int] | None) -> None:
        self.identity = identity
        self.tables: dict[CollectionName, int] = {}
        self.settings: dict[int, Settings] = {}
        self.columns: str | None = None
        self.matrices: dict[int, Matrix] = {}


class Connection(sqlite3.Connection):
    """A connection to a file.

    Args:
        opened: it adds itself to these before Ctrl-C can come between, for its maker to close it in any case: the
            collector would do it at a time of its own, without the file lock.
        path: the file.
        mode: of SQLite's URIs, and what else stands there behind it.
        timeout_s: how long to wait for SQLite's own locks.

    Attributes:
        file: which one it is of, where that is one of ours.
    """

    file: File

    def __init__(self, opened: list[Connection], path: str, mode: str, timeout_s: float = 5.0) -> None:
        opened += (self,)
        try:
            uri = f"{Path(path).as_uri()}?mode={mode}"
            sqlite3.Connection.__init__(
                self, uri, timeout=timeout_s, isolation_level=None, check_same_thread=False, uri=True
            )
        except BaseException:
            try:  # not ``is_open``: Ctrl-C at the entry of that would leave it there
                _ = self.in_transaction
            except sqlite3.ProgrammingError:  # it is not open, and cannot be closed
                opened.remove(self)
            raise

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and not closed since."""
        try:
            _ = self.in_transaction
        except sqlite3.ProgrammingError:
            return False
        return True


def lend(path: str, mode: str, work: Callable[[Connection], T], timeout_s: float = 5.0) -> T:
    """Return what ``work`` answers about a connection of its own, which is closed then in any case.

    No context manager: whoever keeps the traceback of an interrupt on the way into one keeps what it had opened.

    Args:
        path: the file.
        mode: as of ``Connection``.
        work: gets the connection.
        timeout_s: as of ``Connection``.
    """
    opened: list[Connection] = []
    try:
        return work(Connection(opened, path, mode, timeout_s))
    finally:
        for connection in opened:
            connection.close()
