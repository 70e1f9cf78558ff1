"""A statement of SQLite that may take minutes, and that a signal ends all the same."""

from __future__ import annotations

import sqlite3

from langchain_kv.runtime import threads

__all__ = ["Aside"]


class Aside:
    """A statement that may take minutes, run in a thread of its own: a signal would have to wait for its end."""

    def __init__(self, connection: sqlite3.Connection, statement: str) -> None:
        self._connection = connection
        self._statement = statement
        self._may_begin = threads.Event()
        self._has_ended = threads.Event()
        self._is_off = False
        self._answer: object = None
        self._error: BaseException | None = None

    def answer(self) -> object:
        """Return the first value of its first row, None where there is none.

        Whatever is raised here by a signal, its thread has ended then.
        """
        try:
            threads.start(self._run, "langchain-kv check")
            self._may_begin.set()
            # Not join(), which takes a thread for ended once a signal has come (3.11). In turns, because a signal that
            # comes in the moment before a wait begins does not end it.
            while not self._has_ended.is_set():
                self._has_ended.wait(0.5)
        finally:
            self._is_off = True
            if not self._may_begin.is_set():
                self._may_begin.set()  # whenever the thread begins, there is nothing to do
            else:
                while not self._has_ended.is_set():
                    self._connection.interrupt()
                    self._has_ended.wait(0.05)
        if self._error is not None:
            raise self._error
        return self._answer

    def _run(self) -> None:
        self._may_begin.wait()
        try:
            if not self._is_off:
                row = self._connection.execute(self._statement).fetchone()
                self._answer = None if row is None else row[0]
        except BaseException as error:  # it is the caller's
            self._error = error
        finally:
            self._has_ended.set()
