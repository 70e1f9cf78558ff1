"""One flight a key: of those in this process who want the same at a time and may wait for each other, one gets it.

A caller opens a ``Flight`` and claims keys: each is its own, or another's who was there first. It lands its own keys
with their values, or fails them, and only then waits for the others', so that no two wait for each other. Where the
other gave up, whoever waits claims the key anew.

Plain calls wait for plain calls, which have a thread each. Coroutines wait for these, and for those of their own loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, Self

from langchain_kv.runtime import threads
from langchain_kv.runtime.forks import renew_in_child

__all__ = ["Flight"]


class _Sky:
    """The flights that are under way, by where their keys belong. A forked child has none."""

    def __init__(self) -> None:
        self._after_fork_in_child()
        renew_in_child(self)

    def _after_fork_in_child(self) -> None:
        self.lock = threads.Mutex()
        self.flights: dict[Hashable, set[Flight]] = {}


_sky: Final = _Sky()
_aboard: ContextVar[tuple[Flight, ...]] = ContextVar("langchain_kv_flights", default=())


class _Failure(NamedTuple):
    keys: frozenset[str]
    error: Exception


class Flight:
    """One caller's, from its first claim to the end of its ``with``.

    Args:
        where: what the keys belong to; equal keys of different places have nothing to do with each other.
        loop: the caller's event loop; None for a plain call.
    """

    def __init__(self, where: Hashable, loop: asyncio.AbstractEventLoop | None) -> None:
        self._where = where
        self._loop = loop
        self._open: set[str] = set()
        self._wanted: dict[str, Any] = {}  # by others: the value once it is there
        self._failures: dict[str, _Failure] = {}
        self._waiting: list[tuple[Set[str], Callable[[], object]]] = []

    def __enter__(self) -> Self:
        with _sky.lock:
            _sky.flights.setdefault(self._where, set()).add(self)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._end()
        except BaseException:  # Ctrl-C: a key that stayed open would be waited for for ever
            self._end()
            raise

    def _end(self) -> None:
        self._close(frozenset(self._open))
        with _sky.lock:
            flights = _sky.flights.get(self._where, set())
            flights.discard(self)
            if not flights:
                _sky.flights.pop(self._where, None)

    # -- its own keys -------------------------------------------------------------------------------------------------

    def claim(self, keys: Sequence[str]) -> dict[str, Flight]:
        """Take the keys that nobody has; return the others with the flight that has each.

        One that may never land while this caller waits is not waited for: that of a caller further up, and that of a
        coroutine on another loop. Such a loop may have been stopped, or the caller may hold it up: by its thread, or by
        threads of its executor, which the coroutine needs. Both get such a key for themselves, and each lands its own.
        """
        aboard = (*_aboard.get(), self)
        elsewhere: dict[str, Flight] = {}
        with _sky.lock:
            for flight in _sky.flights.get(self._where, ()):
                if flight in aboard or flight._loop not in (None, self._loop):
                    continue
                for key in flight._open.intersection(keys):
                    flight._wanted.setdefault(key)
                    elsewhere[key] = flight
            self._open.update([key for key in keys if key not in elsewhere] if elsewhere else keys)
        return elsewhere

    def land(self, keys: Sequence[str], values: Sequence[Any]) -> None:
        """Give the values of keys, which are not None, to who waits for them."""
        self._close(keys, values)

    @contextmanager
    def answering(self, keys: Iterable[str]) -> Iterator[None]:
        """Fail those of the keys that are still open where an error ends what is done here for them.

        It is raised to those who wait for all of them, as it would have been had they been first. Who waits for some
        tries for itself: what is wrong may be another key.
        """
        try:
            yield
        except Exception as error:
            failure = _Failure(frozenset(keys), error)
            self._failures.update(dict.fromkeys(failure.keys, failure))
            self._close(failure.keys)
            raise

    @contextmanager
    def aboard(self) -> Iterator[None]:
        """Have what is called here not wait for this flight."""
        before = _aboard.get()
        _aboard.set((*before, self))
        try:
            yield
        finally:
            _aboard.set(before)

    def _close(self, keys: Iterable[str], values: Sequence[Any] = ()) -> None:
        """End what is open of the keys. What is cut short in it can be done again."""
        with _sky.lock:
            if self._wanted:
                wanted = self._wanted.keys() & self._open
                self._wanted.update((key, value) for key, value in zip(keys, values, strict=False) if key in wanted)
            self._open.difference_update(keys)
            for waiter in [each for each in self._waiting if each[0].isdisjoint(self._open)]:
                with suppress(Exception):  # such as of a loop that was closed meanwhile: nobody waits there any more
                    waiter[1]()
                self._waiting.remove(waiter)

    # -- for those who wait -------------------------------------------------------------------------------------------

    def wait(self, keys: Set[str]) -> None:
        """Wait until none of the keys is open."""
        done = threads.taken_lock()
        if self._tell(keys, done.release):
            done.wait()

    async def await_(self, keys: Set[str]) -> None:
        """As ``wait``. A waiter that is cancelled leaves the flight as it is."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def settle() -> None:
            if not done.done():
                done.set_result(None)

        if self._tell(keys, lambda: loop.call_soon_threadsafe(settle)):
            await done

    def _tell(self, keys: Set[str], tell: Callable[[], object]) -> bool:
        """Have ``tell`` called when none of the keys is open; return False where none is."""
        with _sky.lock:
            is_open = not keys.isdisjoint(self._open)
            if is_open:
                self._waiting.append((keys, tell))
            return is_open

    def result(self, key: str, keys: Set[str]) -> Any:
        """Return the value of a key that was waited for, None where it has none: it is to be claimed anew.

        Args:
            key: one of the keys.
            keys: all that the caller waited for.

        Raises:
            Exception: what ended the attempt at this key and others, of which the caller wants every one.
        """
        value = self._wanted.get(key)
        failure = self._failures.get(key)
        if value is None and failure is not None and failure.keys <= keys:
            raise failure.error
        return value
