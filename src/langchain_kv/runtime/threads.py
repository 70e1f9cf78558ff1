"""Threads and locks of the operating system, also where gevent or eventlet put greenlets in their place.

What this package runs on threads of its own works beside the event loops of its callers. As a greenlet it would share
a thread with who waits for it, and neither would go on. So all of its threads and locks come from here: those of
``threading`` as they were before anybody patched them. None of this package's own code lets another greenlet run while
it holds such a lock; a greenlet that waits for a thread does (``taken_lock``).
"""

from __future__ import annotations

import _thread
import importlib
import sys
import threading
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from langchain_kv.errors import StoreClosedError, StoreError

__all__ = [
    "Condition",
    "Event",
    "Local",
    "Lock",
    "Mutex",
    "RLock",
    "TakenLock",
    "Thread",
    "get_ident",
    "is_patched",
    "real",
    "start",
    "taken_lock",
]


def real(module: str, name: str) -> Any:
    """Return what a module of the standard library calls ``name``, as it was before anybody patched it."""
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched(module.removeprefix("_")):
        return getattr(eventlet.original(module), name)
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None:
        return gevent.get_original(module, name)
    return getattr(importlib.import_module(module), name)


_SLICE_S: Final = 0.1

Lock: Final[Callable[[], threading.Lock]] = real("_thread", "allocate_lock")
_RLock: Final[Callable[[], Any]] = real("_thread", "RLock")
Local: Final[type[Any]] = real("_thread", "_local")
get_ident: Final[Callable[[], int]] = real("_thread", "get_ident")
_start_new_thread: Final[Callable[[Callable[[], None], tuple[()]], int]] = real("_thread", "start_new_thread")


def RLock() -> Any:
    """Return a lock that its thread may take several times."""
    return _RLock()


class _Mutex(_RLock):  # type: ignore[misc, valid-type]
    """A lock that ``with`` leaves free, whenever Ctrl-C comes: KeyboardInterrupt may be raised after any call of C.

    Up to Python 3.13 nothing comes between a lock's own ``__enter__`` and the protection of the ``with``. Since 3.14 an
    interrupt that arrives while ``__enter__`` runs is raised once it has returned, before that protection (seen with
    3.14.3). No such moment follows a function in Python, and what is called within it can be protected there.
    """

    if sys.version_info >= (3, 14):

        def __enter__(self) -> bool:
            try:
                return bool(self.acquire())
            except BaseException:
                with suppress(RuntimeError):  # it was not taken yet
                    self.release()
                raise


Mutex: Final[Callable[[], threading.Lock]] = _Mutex
"""Makes a lock for ``with``. Its thread may take it several times; no other thread can give it back."""


def is_patched() -> bool:
    """Return whether gevent or eventlet make greenlets of new threads by now."""
    return not isinstance(_thread.start_new_thread, types.BuiltinFunctionType)


class Thread(Protocol):
    """A daemon thread that was started."""

    @property
    def ident(self) -> int | None:
        """What ``get_ident`` returns in it."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, for at most so many seconds."""


def start(run: Callable[[], None], name: str) -> Thread:
    """Start a daemon thread.

    Raises:
        StoreClosedError: the interpreter is shutting down, and starts no threads any more.
        StoreError: this process, or its user, has as many threads as it may have.
    """
    try:
        if is_patched():
            return _RawThread(run)
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
    except RuntimeError as error:
        if "shutdown" in str(error):
            raise StoreClosedError("The interpreter is shutting down: finish before it ends.") from error
        if "new thread" not in str(error):  # Ctrl-C, within Thread.start, which then stumbled over a lock of its own
            raise (error.__context__ or error) from None
        failure = StoreError(
            f"This process cannot start a thread ({error}): end some of its threads, or raise the limit (ulimit -u),"
            " and try again."
        )
        failure.retryable = True
        raise failure from error
    return thread


class _RawThread:
    """A thread that ``threading`` does not know of, because there it would be a greenlet."""

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self._running = Lock()
        self._running.acquire()
        self.ident: int | None = _start_new_thread(self._main, ())

    def _main(self) -> None:
        try:
            self._run()
        finally:
            self._running.release()

    def join(self, timeout: float | None = None) -> None:
        if self._running.acquire(timeout=-1 if timeout is None else timeout):
            self._running.release()


class Condition:
    """What threads that hold a lock wait for, as ``threading.Condition``, which makes greenlets' locks when patched.

    Args:
        lock: held by whoever calls a method.
    """

    __slots__ = ("_lock", "_waiting")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._waiting: list[threading.Lock] = []

    def wait(self, timeout_s: float) -> None:
        """Give the lock back until ``notify_all``, for at most so many seconds; it is held again on return."""
        waiter = Lock()
        waiter.acquire()
        self._waiting.append(waiter)
        self._lock.release()
        try:
            waiter.acquire(timeout=timeout_s)
        finally:
            self._lock.acquire()
            with suppress(ValueError):
                self._waiting.remove(waiter)

    def notify_all(self) -> None:
        """Wake all that wait."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.release()


class Event:
    """What happens once, as ``threading.Event``, which makes greenlets' locks when patched."""

    __slots__ = ("_happened", "_lock")

    def __init__(self) -> None:
        self._happened = False
        self._lock = Lock()
        self._lock.acquire()

    def is_set(self) -> bool:
        """Return whether it happened."""
        return self._happened

    def set(self) -> None:
        """Let it happen. Called by one thread at a time."""
        if not self._happened:
            self._happened = True
            self._lock.release()

    def wait(self, timeout_s: float = -1) -> None:
        """Wait until it happens, for at most so many seconds where they are given."""
        if not self._happened and self._lock.acquire(timeout=timeout_s):
            self._lock.release()


# -- waiting for a thread ----------------------------------------------------------------------------------------------


class TakenLock(Protocol):
    """A lock that one side waits for, once, and another, on any thread, gives back, once."""

    def wait(self) -> None:
        """Wait, in the greenlet and thread that it was made in, until it is given back."""

    def release(self) -> None:
        """Give it back."""


def taken_lock() -> TakenLock:
    """Return a lock that is taken. Where this thread's greenlets take turns, one that waits for it lets others run."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return _gevent_lock()
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return _eventlet_lock()
    return _ThreadLock()


class _ThreadLock:
    """Wakes up now and then, because only who runs is interrupted by a signal that came in the wrong moment.

    One that arrives just before the thread sleeps, or that the system hands to another thread, wakes nobody: Ctrl-C
    would wait for the end of what the lock stands for. (On Windows no signal ends the wait for a lock.)
    """

    __slots__ = ("_lock", "release")

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()
        self.release = self._lock.release

    def wait(self) -> None:
        while not self._lock.acquire(timeout=_SLICE_S):
            pass


def _gevent_lock() -> TakenLock:
    import gevent
    from gevent.event import Event

    hub = gevent.get_hub()
    if gevent.getcurrent() is hub:  # it takes no turns itself
        return _ThreadLock()
    return _GeventLock(Event(), hub.loop.async_())


class _GeventLock:
    """Wakes the hub of the greenlet that made it."""

    def __init__(self, event: Any, watcher: Any) -> None:
        self._guard = Lock()
        self._event = event
        self._watcher = watcher
        watcher.start(event.set)

    def wait(self) -> None:
        try:
            self._event.wait()
        finally:
            with self._guard:
                self._watcher.close()
                self._watcher = None

    def release(self) -> None:
        with self._guard:
            if self._watcher is not None:
                self._watcher.send()


def _eventlet_lock() -> TakenLock:
    from eventlet.hubs import get_hub
    from greenlet import getcurrent

    # eventlet's own threads answer to one thread, the main one; elsewhere, and in the hub, there is none to let run.
    is_main = threading.get_native_id() == threading.main_thread().native_id
    return _EventletLock() if is_main and getcurrent() is not get_hub().greenlet else _ThreadLock()


class _EventletLock(_ThreadLock):
    """Is waited for by one of eventlet's threads."""

    __slots__ = ()

    def wait(self) -> None:
        from eventlet import tpool

        tpool.execute(super().wait)
