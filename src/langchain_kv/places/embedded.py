"""Places whose documents an engine of this process keeps, which the stores of one place share until the last closes."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from langchain_kv.errors import StoreError
from langchain_kv.limits import DEFAULT_KEYSPACE
from langchain_kv.places.base import BackendOptions, Place
from langchain_kv.runtime.forks import importing, keep_for_ever
from langchain_kv.runtime.sharing import Shared

if TYPE_CHECKING:
    from langchain_kv.backends.base import Backend
    from langchain_kv.engines.base import Engine

__all__ = ["EmbeddedPlace", "release_engine"]

_logger = logging.getLogger("langchain_kv")


def _close_unused(engine: Engine) -> None:
    try:
        engine.close()
    except StoreError as error:  # none of whoever happens to come by; the process's end tries again
        _logger.warning("A store that was not closed: %s", error)


_engines: Shared[Engine] = Shared(_close_unused)
keep_for_ever(_engines)  # collected as the interpreter ends, connections that nobody closed would complain


class EmbeddedPlace(Place):
    """A place with an engine, which the local server can offer, too. Equal places have one engine: they are hashable.

    A subclass writes ``shown`` and ``make_engine``.
    """

    @abstractmethod
    def make_engine(self) -> Engine:
        """Return a new engine for this place. Nothing is opened or sent before its first use."""

    def with_options(self, options: BackendOptions) -> Self:
        """Return the place whose engine a store with these options uses."""
        return self

    def sharing_key(self) -> Hashable:
        """Return what is equal for all that share an engine."""
        return self

    def make_backend(self, engine: Engine, options: BackendOptions, *, on_close: Callable[[], None]) -> Backend:
        """Return a backend for one collection of the engine."""
        with importing.lock:
            from langchain_kv.backends.engine import EngineBackend
            from langchain_kv.engines.base import CollectionName

        collection = CollectionName(options.keyspace, options.collection)
        create_keyspace = collection.keyspace != DEFAULT_KEYSPACE
        return EngineBackend(engine, collection, create_keyspace=create_keyspace, on_close=on_close)

    def open(self, options: BackendOptions) -> Backend:
        """Return a new backend on the engine that all stores of this place share."""
        engine = self.with_options(options).acquire_engine()
        use = _Use(engine)
        return self.make_backend(engine, options, on_close=use.end)

    @contextmanager
    def engine_for(self, options: BackendOptions) -> Iterator[Engine]:
        """Use the engine of this place for as long as the block runs."""
        engine = self.with_options(options).acquire_engine()
        try:
            yield engine
        finally:
            release_engine(engine)

    def collections(self, options: BackendOptions) -> list[str]:
        """Return the names of the keyspace's collections, sorted."""
        with self.engine_for(options) as engine:
            return sorted(engine.collections(options.keyspace))

    def drop(self, options: BackendOptions) -> None:
        """Remove the collection, with all in it. A missing one is no error."""
        with importing.lock:
            from langchain_kv.engines.base import CollectionName

        with self.engine_for(options) as engine:
            engine.drop_collection(CollectionName(options.keyspace, options.collection))

    def acquire_engine(self) -> Engine:
        """Return the engine, the same for every user of it in this process, until ``release_engine``."""
        return _engines.acquire(self.sharing_key(), self.make_engine)


class _Use:
    """A backend's use of an engine: until ``end``, or until the backend is collected as garbage, and this with it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._at_collection = _engines.release_with(self, engine)

    def end(self) -> None:
        if self._at_collection.detach() is not None:
            release_engine(self._engine)


def release_engine(engine: Engine) -> None:
    """End one use of the engine; the last one closes it."""
    last = _engines.release(engine)
    if last is not None:
        last.close()
