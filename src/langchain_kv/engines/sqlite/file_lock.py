"""One thread of one process at a time: a lock on a file beside the database.

SQLite before 3.51.3 can lose acknowledged rows when one connection checkpoints while another commits; under this lock
they never do so at once. It also shares out the turns of writers more evenly than SQLite's own waiting does.
"""

from __future__ import annotations

import errno
import os
import random
import sys
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Final

from langchain_kv.errors import EngineBusyError, EngineError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["LOCK_WAIT_S", "FileLock"]

LOCK_WAIT_S: Final = 30.0
"""Seconds that a call waits for the lock before it gives up with EngineBusyError."""

FIRST_PAUSE_S: Final = 0.0002
LONGEST_PAUSE_S: Final = 0.002
"""Seconds between two attempts while another process holds the lock: about the length of a commit."""

_HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class FileLock:
    """A mutual exclusion of threads and processes; a context manager. Not for a thread that holds it already.

    Ctrl-C may raise KeyboardInterrupt at any call in the main thread, also between taking the lock and the protection
    of a ``with`` or ``try``. Whoever must not leave it taken calls ``release`` once more: it gives back what this
    thread holds, if anything.

    Args:
        path: the lock file; made with mode 0600 where it is missing, never removed.
        wait_s: seconds to wait for it.

    Raises:
        EngineBusyError: (on entering) it was not free in time.
        EngineError: (on entering) the lock file cannot be made or locked.
    """

    def __init__(self, path: str, wait_s: float = LOCK_WAIT_S) -> None:
        self.path = path
        self._wait_s = wait_s
        self._threads = threading.RLock()  # reentrant only because it knows its owner, which release() asks for
        self._descriptor: int | None = None
        self._opened: tuple[int, int] | None = None  # which file the descriptor is of

    def acquire(self) -> None:
        """Take it. Where that fails, for whatever reason, it is not held."""
        try:
            deadline = time.monotonic() + self._wait_s
            if not self._threads.acquire(timeout=self._wait_s):
                raise EngineBusyError(f"Another thread held {self.path} for {self._wait_s:g} s; try again later")
            self.lock_file(deadline)
        except BaseException:
            self.release()
            raise

    def give_back(self) -> None:
        """Release it where this thread holds it, once: what ``release`` does, in less time."""
        self.unlock_file()
        self._threads.release()

    def release(self) -> None:
        """Give back what this thread holds of it; do nothing where that is nothing, as in a child forked meanwhile."""
        if not self._threads.acquire(blocking=False):
            return  # another thread's
        try:
            self.unlock_file()
        finally:
            with suppress(RuntimeError):  # raised when it is no longer held
                while True:
                    self._threads.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    # The two halves apart, for a fork, which holds the threads of this process off while it happens.

    def lock_threads(self, wait_s: float) -> bool:
        """Exclude this process's other threads; return whether that was possible in time."""
        return self._threads.acquire(timeout=wait_s)

    def unlock_threads(self) -> None:
        self._threads.release()

    def lock_file(self, deadline: float) -> None:
        """Exclude other processes until ``unlock_file``, waiting up to ``deadline`` (of ``time.monotonic``)."""
        pause_s = FIRST_PAUSE_S
        while True:
            descriptor = self._open()
            if self._try_to_lock(descriptor):
                if _identity(self.path) == self._opened:
                    return
                self.close()  # somebody removed the lock file: whoever comes next locks another one
                continue
            if time.monotonic() > deadline:
                raise EngineBusyError(f"Another process held {self.path} for {self._wait_s:g} s; try again later")
            time.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - no secret: it keeps waiters out of step
            pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)

    def unlock_file(self) -> None:
        if self._descriptor is not None:
            _unlock(self._descriptor)

    def close(self) -> None:
        """Give the descriptor back; the lock is free and can be used again. The threads' half is held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def after_fork_in_child(self) -> None:
        """Start anew: the inherited descriptor is the parent's lock itself; kept open, it would outlive the parent."""
        self._threads = threading.RLock()
        self.close()

    def _open(self) -> int:
        if self._descriptor is None:
            try:
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
                self._opened = _identity(self._descriptor)
            except FileNotFoundError as error:
                folder = os.path.dirname(self.path)
                raise EngineError(f"The directory {folder} does not exist; create it first") from error
            except OSError as error:
                raise EngineError(
                    f"Cannot create or open {self.path}: {error.strerror}; the database's directory"
                    " must be one that this process may write to"
                ) from error
        return self._descriptor

    def _try_to_lock(self, descriptor: int) -> bool:
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno in _HELD_BY_ANOTHER:
                return False
            raise EngineError(
                f"Cannot lock {self.path}: {error.strerror}; keep the database on a file system of this machine"
            ) from error
        return True


def _identity(file: str | int) -> tuple[int, int] | None:
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return None
    return (found.st_dev, found.st_ino)


if sys.platform == "win32":  # not tested

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        with suppress(OSError):  # it is not locked
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
