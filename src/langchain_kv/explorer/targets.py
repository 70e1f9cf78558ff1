"""What the explorer looks at: the collections of a target, and a backend for each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final, NamedTuple

from langchain_kv.backends.base import Backend
from langchain_kv.engines.base import CollectionName, Engine
from langchain_kv.errors import StoreClosedError, StoreError
from langchain_kv.limits import DEFAULT_KEYSPACE
from langchain_kv.places.base import BackendOptions, Place
from langchain_kv.places.embedded import EmbeddedPlace
from langchain_kv.places.options import checked_name
from langchain_kv.runtime import threads

__all__ = ["Backends", "Target", "target_of_engine", "target_of_place"]

BACKENDS_MAX: Final = 8
"""Backends that stay open although nobody uses them: over a network each has connections of its own."""


class Target(NamedTuple):
    """What is looked at.

    Attributes:
        shown: how it is named on the page; never a password.
        url: by which a Python line of another program reaches it; None: that of the page.
        keyspace: in which a collection is looked for that is only named.
        collections: returns the collections that there are; blocks.
        open: returns a new backend for one; makes no collection.
    """

    shown: str
    url: str | None
    keyspace: str
    collections: Callable[[], list[CollectionName]]
    open: Callable[[CollectionName], Backend]


def target_of_engine(place: EmbeddedPlace, engine: Engine) -> Target:
    """Return what an engine of this process keeps.

    Args:
        place: of the engine.
        engine: the caller closes it.
    """

    def collections() -> list[CollectionName]:
        return [CollectionName(space, name) for space in engine.keyspaces() for name in engine.collections(space)]

    def open_backend(name: CollectionName) -> Backend:
        options = BackendOptions(name.name, name.keyspace)
        return place.make_backend(engine, options, on_close=lambda: None)

    return Target(place.shown, None, place.keyspace or DEFAULT_KEYSPACE, collections, open_backend)


def target_of_place(place: Place, options: BackendOptions, names: Sequence[str] = ()) -> Target:
    """Return what a place holds in the keyspace of the options.

    Args:
        place: of any kind.
        options: those of each backend, but for its collection.
        names: of the collections that are listed; none: those that the place tells.
    """

    def collections() -> list[CollectionName]:
        return [CollectionName(options.keyspace, name) for name in names or place.collections(options)]

    def open_backend(name: CollectionName) -> Backend:
        keyspace = checked_name("keyspace", name.keyspace)
        return place.open(replace(options, keyspace=keyspace, collection=checked_name("collection", name.name)))

    return Target(place.shown, place.url_shown, options.keyspace, collections, open_backend)


class _Use:
    """A backend, and how many use it."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.users = 0


class Backends:
    """The backends that are open: one for each collection, those beyond ``BACKENDS_MAX`` only while they are used.

    Args:
        open_backend: see ``Target``.
    """

    def __init__(self, open_backend: Callable[[CollectionName], Backend]) -> None:
        self._open = open_backend
        self._lock = threads.Mutex()
        self._uses: OrderedDict[CollectionName, _Use] = OrderedDict()  # the one used last comes last
        self._closed = False

    @contextmanager
    def using(self, name: CollectionName) -> Iterator[Backend]:
        """Use the backend of a collection for the length of a block.

        Raises:
            StoreClosedError: after ``close``.
        """
        with self._lock:
            if self._closed:
                raise StoreClosedError("The explorer has ended.")
            use = self._uses.get(name)
            if use is None:
                use = self._uses[name] = _Use(self._open(name))
            self._uses.move_to_end(name)
            use.users += 1
        try:
            yield use.backend
        finally:
            with self._lock:
                use.users -= 1
            self._close_unused(BACKENDS_MAX)

    def close(self) -> None:
        """Close them all; those that are in use when their users are done. Idempotent."""
        self._closed = True
        self._close_unused(0)

    def _close_unused(self, most: int) -> None:
        with self._lock:
            most = 0 if self._closed else most
            idle = [name for name, use in self._uses.items() if not use.users]
            surplus = max(0, len(self._uses) - most)
            closing = [self._uses.pop(name) for name in idle[:surplus]]
        for use in closing:
            with suppress(StoreError):  # what was read of it was read
                use.backend.close()
