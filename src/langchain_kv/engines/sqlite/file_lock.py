"""One thread of one process at a time: a lock on a file beside the database.

SQLite before 3.51.3 can lose acknowledged rows when one connection checkpoints while another commits; under this lock
they never do so at once.

A process that writes without a pause gives the lock back for some microseconds only, which another one that looks now
and then would hit by luck, after minutes if a commit is slow. So on Linux there is a second lock, on a byte of the same
file, of who is next: whoever waits takes it first, and so must a process that has had the lock for ``TURN_S``.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final

from langchain_kv.engines.os_errors import failed, no_folder
from langchain_kv.errors import EngineBusyError, EngineError
from langchain_kv.limits import FILE_WAIT_S
from langchain_kv.runtime import threads

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["LOCK_WAIT_S", "NOTE_LENGTH", "FileLock"]

LOCK_WAIT_S: Final = FILE_WAIT_S
"""Seconds that a call waits for the lock before it gives up with EngineBusyError."""

FIRST_PAUSE_S: Final = 0.0002
LONGEST_PAUSE_S: Final = 0.002
"""Seconds between two attempts while another process holds the lock: about the length of a commit."""

TURN_S: Final = 0.01
"""Seconds after which a process that takes the lock again and again lets one that waits go first."""

QUEUE_S: Final = 1.0
"""Seconds after which one that waits may have the lock though another one is next, which may have been stopped."""

NOTE_LENGTH: Final = 32
"""Characters of a note in the lock file, ASCII."""

VANISHED_MAX: Final = 100
"""How often a lock file is made anew that is gone once it is locked."""

_HELD_BY_ANOTHER: Final = frozenset(
    # msvcrt says EACCES; for flock that would be a failure.
    (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES if sys.platform == "win32" else errno.EWOULDBLOCK)
)

_sleep: Final = threads.real("time", "sleep")  # other greenlets of this thread would come in by the same lock


class FileLock:
    """A mutual exclusion of threads and processes; a context manager. Not for a thread that holds it already.

    Ctrl-C may raise KeyboardInterrupt at any call in the main thread, also between taking the lock and the protection
    of a ``with`` or ``try``. Whoever must not leave it taken calls ``release`` once more: it gives back what this
    thread holds, if anything.

    Args:
        path: the lock file, ``PATH.lock`` of the database at PATH; made, if it is missing, for who may write that.
        wait_s: seconds to wait for it.

    Raises:
        EngineBusyError: (on entering) it was not free in time.
        EngineError: (on entering) the lock file cannot be made or locked.
    """

    def __init__(self, path: str, wait_s: float = LOCK_WAIT_S) -> None:
        self.path = path
        self._wait_s = wait_s
        self._threads = threads.RLock()  # reentrant only because it knows its owner, which release() asks for
        self._descriptor: int | None = None
        self._opened: tuple[int, int] | None = None  # which file the descriptor is of
        self._is_queued = False  # whether the lock of who is next may be held
        self._turn_ends = 0.0  # of time.monotonic

    def acquire(self, deadline: float | None = None, *, look: Callable[[], None] | None = None) -> None:
        """Take it. Where that fails, for whatever reason, it is not held.

        Args:
            deadline: until when to wait (of ``time.monotonic``); None: for ``wait_s``.
            look: run before the lock file is made, when the other threads of this process are excluded.
        """
        try:
            if deadline is None:
                deadline = time.monotonic() + self._wait_s
            if not self._threads.acquire(timeout=max(deadline - time.monotonic(), 0)):
                raise EngineBusyError(f"Another thread held {self.path} for {self._wait_s:g} s; try again later")
            if look is not None:
                look()
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
        return bool(self._threads.acquire(timeout=wait_s))

    def lock_file(self, deadline: float) -> None:
        """Exclude other processes until ``unlock_file``, waiting up to ``deadline`` (of ``time.monotonic``)."""
        pause_s, vanished = FIRST_PAUSE_S, 0
        began = time.monotonic()
        may_try = began < self._turn_ends
        try:
            while True:
                descriptor = self._open()
                if (may_try or self._queue(descriptor)) and self._try_to_lock(descriptor):
                    if self._is_current():
                        break
                    self.close()  # somebody removed the lock file: whoever comes next locks another one
                    vanished += 1
                    if vanished == VANISHED_MAX:
                        raise EngineError(
                            f"{self.path} was made {vanished} times, and was not there then; find out what removes it,"
                            " and keep the database on a file system of this machine"
                        )
                    continue
                now = time.monotonic()
                may_try = self._is_queued or now - began > QUEUE_S
                if now > deadline:
                    raise EngineBusyError(
                        f"Another process held {self.path} for {self._wait_s:g} s{self._holder()}; try again later"
                    )
                _sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - no secret: it keeps waiters out of step
                pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)
        finally:
            if self._is_queued:
                self._turn_ends = time.monotonic() + TURN_S
                self._leave_queue()

    def unlock_file(self) -> None:
        if self._descriptor is not None:
            if self._is_queued:  # Ctrl-C came
                self._leave_queue()
            try:
                _unlock(self._descriptor)
            except OSError:  # a call that did what it was to do does not fail by this: closing gives the lock back, too
                self.close()

    def close(self) -> None:
        """Give the descriptor back; the lock is free and can be used again. The threads' half is held."""
        descriptor, self._descriptor, self._opened = self._descriptor, None, None
        self._is_queued = False
        if descriptor is not None:
            try:  # noqa: SIM105 - Ctrl-C at the entry of ``suppress`` would leave it open
                os.close(descriptor)
            except OSError:  # nothing was written by it; it is gone all the same
                pass

    def remove(self) -> None:
        """Remove the lock file if this process made or used it, and nobody holds it. The threads' half is held.

        Whoever waits for it sees that it is gone, and makes another.
        """
        if self._descriptor is not None:
            with suppress(OSError, EngineError):
                if self._try_to_lock(self._descriptor) and self._is_current():
                    os.unlink(self.path)

    def after_fork_in_child(self) -> None:
        """Start anew: the inherited descriptor is the parent's lock itself; kept open, it would outlive the parent."""
        self._threads = threads.RLock()
        self.close()

    # A note for whoever holds the lock next.

    def note(self) -> str:
        """Return the note in the lock file, empty where there is none. The lock is held."""
        descriptor = self._open()
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            note = os.read(descriptor, NOTE_LENGTH).decode("ascii", "replace")
        except OSError as error:
            raise self._failed("read", error) from error
        return note if len(note) == NOTE_LENGTH else ""

    def set_note(self, note: str) -> None:
        """Leave a note of NOTE_LENGTH characters in the lock file, or none if there is no room. The lock is held."""
        descriptor = self._open()
        try:
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
        except OSError as error:
            raise self._failed("write to", error) from error
        with suppress(OSError):  # such as a full disk's; a part of a note counts as none
            os.write(descriptor, note.encode("ascii"))
            os.fsync(descriptor)

    def _open(self) -> int:
        descriptor = self._descriptor
        if descriptor is None:
            try:
                descriptor = self._open_or_make()
                self._opened = _identity(os.fstat(descriptor))
            except FileNotFoundError as error:
                raise no_folder(self.path) from error
            except OSError as error:
                self.close()
                raise self._failed("create or open", error, _rights_to_give(self.path)) from error
        return descriptor

    def _open_or_make(self) -> int:
        """Open the lock file. Its descriptor is kept at once: an interrupt in between would leave it open for ever."""
        while True:
            with suppress(FileNotFoundError):
                # Without O_CREAT, which in a directory like /tmp is refused for the file of another user.
                descriptor = self._descriptor = os.open(self.path, os.O_RDWR, 0o600)
                return descriptor
            with suppress(FileExistsError):
                descriptor = self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                _admit_writers(self.path.removesuffix(".lock"), descriptor)
                return descriptor

    def _queue(self, descriptor: int) -> bool:
        """Return whether this is the next to have the lock; True, too, where the system has no queue."""
        self._is_queued = True  # first: were it interrupted in between, nobody would leave it
        self._is_queued = _queue(descriptor)
        return self._is_queued

    def _leave_queue(self) -> None:
        if self._descriptor is not None:
            _leave_queue(self._descriptor)
        self._is_queued = False

    def _try_to_lock(self, descriptor: int) -> bool:
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno in _HELD_BY_ANOTHER:
                return False
            raise self._failed("lock", error, "keep the database on a file system of this machine") from error
        return True

    def _is_current(self) -> bool:
        """Return whether what was locked is still the file of that name."""
        try:
            return _identity(os.stat(self.path)) == self._opened
        except FileNotFoundError:
            return False
        except OSError as error:
            self.unlock_file()
            raise self._failed("look at", error) from error

    def _holder(self) -> str:
        """Return which process holds the lock, for a message; empty where the system does not say."""
        with suppress(OSError), open("/proc/locks", encoding="ascii", errors="replace") as locks:
            inode = f":{self._opened[1]}" if self._opened else ":"
            for line in locks:  # "7: FLOCK ADVISORY WRITE 4242 fe:00:131 0 EOF"; of who waits it has "->"
                words = line.split()
                if words[1] == "FLOCK" and words[5].endswith(inode) and words[4].isdecimal():
                    return f", at the end process {words[4]}"
        return ""

    def _failed(
        self, what: str, error: OSError, advice: str = "the database's directory must be one that this process may use"
    ) -> EngineError:
        return failed(f"Cannot {what} {self.path}", error, advice)


def _admit_writers(database: str, descriptor: int) -> None:
    """Give a lock file that was just made to those who may write the database, as SQLite does with its own files.

    Never one that was there already: it could be a link to any file of this process's user.
    """
    with suppress(OSError):
        found = os.stat(database)
        if os.name == "posix":
            os.fchown(descriptor, found.st_uid if os.geteuid() == 0 else -1, found.st_gid)
            os.fchmod(descriptor, 0o600 | (found.st_mode & 0o022) * 3)  # writing stands for reading, too


def _rights_to_give(path: str) -> str:
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return "the database's directory must be one that this process may write to"
    return f"its mode is {mode:04o}: give it the rights of the database, or close all programs that use that"


def _identity(found: os.stat_result) -> tuple[int, int]:
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


if sys.platform == "linux":
    # struct flock: kind, whence, start, length, process (0 here); of a byte that the file does not have.
    _TAKEN, _GIVEN_BACK = (
        struct.pack("hhqqi4x", kind, os.SEEK_SET, 1 << 40, 1, 0) for kind in (fcntl.F_WRLCK, fcntl.F_UNLCK)
    )

    def _queue(descriptor: int) -> bool:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _TAKEN)
        except OSError as error:  # a file system without such locks has no queue
            return error.errno not in _HELD_BY_ANOTHER
        return True

    def _leave_queue(descriptor: int) -> None:
        with suppress(OSError):  # as there
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _GIVEN_BACK)

else:

    def _queue(descriptor: int) -> bool:
        return True

    def _leave_queue(descriptor: int) -> None:
        pass
