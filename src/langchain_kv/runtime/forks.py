"""What a fork must know: what it waits for, what its child leaves alone, and what starts anew there.

Every hook of this package is registered here, by ``_register``. Before a fork the last registered comes first, after it
the first one: what was taken last is given back first. So a fork takes the locks of engines (``HeldAcrossForks``), lets
those rest that watch forks, and takes the lock of imports last, because who holds one of the others may import.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - it has forks wait for it: imported in a fork's midst, it says so amiss
import ctypes
import logging
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from langchain_kv.errors import StoreError
from langchain_kv.runtime import threads

__all__ = [
    "FORK_WAIT_S",
    "ForkWatcher",
    "HeldAcrossForks",
    "importing",
    "keep_for_ever",
    "renew_in_child",
    "watch_forks",
]

FORK_WAIT_S: Final = 10.0
"""Seconds that a fork waits for what other threads are at to end."""

_logger = logging.getLogger("langchain_kv")


def _register(before: Callable[[], None], in_parent: Callable[[], None], in_child: Callable[[], None]) -> None:
    """Have each fork run these; neither an error nor Ctrl-C in one of them keeps the others from their turn."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


class HeldAcrossForks:
    """A reentrant lock that a fork waits for, so that a child has nothing half done of what it guards.

    Attributes:
        lock: the lock itself; another one in a forked child.
    """

    def __init__(self) -> None:
        self.lock = threads.Mutex()
        self._forking: int | None = None  # the thread that holds it across a fork
        _register(self._before_fork, self._after_fork, self._after_fork_in_child)

    def _before_fork(self) -> None:
        if self.lock.acquire(timeout=FORK_WAIT_S):
            self._forking = threads.get_ident()

    def _after_fork(self) -> None:
        if self._forking == threads.get_ident():  # another thread's fork may be waiting for it
            self._forking = None
            self.lock.release()

    def _after_fork_in_child(self) -> None:
        self._forking = None
        self.lock = threads.Mutex()


importing: Final = HeldAcrossForks()
"""Held by whoever imports inside a function: a child that is forked meanwhile would have a module whose import never
ends, and wait for it for ever."""


def keep_for_ever(inherited: object) -> None:
    """Keep what a forked child inherited from being collected, also when the interpreter ends and clears its modules.

    Collecting it would close it, and take it away from the parent.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


class Renewed(Protocol):
    """What has locks, threads or connections that a forked child must not use."""

    def _after_fork_in_child(self) -> None:
        """Start anew; leave what was inherited as it is. Idempotent."""


class ForkWatcher(Protocol):
    """What has to rest while this process is forked. Ctrl-C may have a method called again: all are idempotent."""

    def before_fork(self) -> None:
        """Wait until other threads are done with it, FORK_WAIT_S seconds at most, and hold them off."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Start anew; leave what was inherited as it is."""


_renewed: Final[weakref.WeakSet[Renewed]] = weakref.WeakSet()
_watchers: Final[weakref.WeakSet[ForkWatcher]] = weakref.WeakSet()


def renew_in_child(one: Renewed) -> None:
    """Have this start anew in every child that is forked as long as it lives."""
    _renewed.add(one)


def watch_forks(one: ForkWatcher) -> None:
    """Have this told of every fork as long as it lives. Waits for a fork that is under way."""
    with _beginning.lock:
        _watchers.add(one)


class _Fork(threads.Local):  # type: ignore[misc] # it is threading.local
    """What a thread that forks knows of it: what it told to rest, and keeps alive meanwhile."""

    resting: Sequence[ForkWatcher] = ()


_fork: Final = _Fork()


def _before_fork() -> None:
    _fork.resting = list(_watchers)
    _call_all([one.before_fork for one in _fork.resting])


def _after_fork_in_parent() -> None:
    _call_all([one.after_fork_in_parent for one in _fork.resting])
    _fork.resting = ()


def _after_fork_in_child() -> None:
    _fork.resting = ()
    _call_all([*(one.after_fork_in_child for one in _watchers), *(one._after_fork_in_child for one in _renewed)])


def _call_all(hooks: list[Callable[[], None]]) -> None:
    """Call all of them, the last first, whatever is raised in between."""
    try:
        while hooks:
            try:
                hooks[-1]()
            except StoreError as error:  # the child is told so, should it use the thing
                _logger.debug("%r failed at a fork: %s", hooks[-1], error)
            except BaseException:  # Ctrl-C among them, which Python ignores at a fork: it is the others' turn
                _logger.exception("%r failed at a fork.", hooks[-1])
            hooks.pop()
    finally:
        if hooks:
            _call_all(hooks)


_register(_before_fork, _after_fork_in_parent, _after_fork_in_child)
_beginning: Final = HeldAcrossForks()
"""Held while something begins to watch forks. It is registered last, so a fork takes it first and gives it back last:
nothing begins to between what is done before a fork and what is done after it."""
