"""From settings to the backend that serves them. Engines are shared by the stores of one target and closed with the
last."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from langchain_kv.backends.base import Backend
from langchain_kv.errors import StoreError
from langchain_kv.limits import DEFAULT_KEYSPACE
from langchain_kv.sharing import Shared, importing
from langchain_kv.targets import Settings, Target

if TYPE_CHECKING:
    from langchain_kv.engines.base import Engine

__all__ = ["acquire_engine", "open_backend", "release_engine"]

_logger = logging.getLogger("langchain_kv")


def _close_unused(engine: Engine) -> None:
    try:
        engine.close()
    except StoreError as error:  # none of whoever happens to come by; the process's end tries again
        _logger.warning("A store that was not closed: %s", error)


_engines: Shared[Engine] = Shared(_close_unused)


def open_backend(settings: Settings) -> Backend:
    """Return a backend for the settings. Nothing is opened or sent before its first use."""
    target = settings.target
    with importing.lock:
        import msgspec  # noqa: F401 - which the codecs import at their first use
        import orjson  # noqa: F401
    if target.kind == "dataapi":
        with importing.lock:
            from langchain_kv.backends.dataapi.backend import DataAPIBackend

        return DataAPIBackend(
            target.location,
            collection=settings.collection,
            keyspace=settings.keyspace,
            token=settings.token,
            path_prefix=settings.path_prefix,
            user_agent=settings.user_agent,
            headers=settings.headers,
            ca_file=settings.ca_file,
            request_timeout_s=settings.request_timeout_s,
            deadline_s=settings.deadline_s,
            wake_timeout_s=settings.wake_timeout_s,
            is_astra=settings.is_astra,
        )
    with importing.lock:
        from langchain_kv.backends.engine import EngineBackend
        from langchain_kv.engines.base import CollectionName

    if target.cluster is not None:
        target = replace(target, cluster=replace(target.cluster, deadline_s=settings.deadline_s))
    if target.kind == "sqlite":
        target = replace(target, wait_s=settings.deadline_s)
    engine = acquire_engine(target)
    collection = CollectionName(settings.keyspace, settings.collection)
    use = _Use(engine)
    if target.kind == "cassandra":
        with importing.lock:
            from langchain_kv.backends.cluster import ClusterBackend
            from langchain_kv.engines.cassandra import CassandraEngine

        return ClusterBackend(cast(CassandraEngine, engine), collection, on_close=use.end)
    return EngineBackend(engine, collection, create_keyspace=settings.keyspace != DEFAULT_KEYSPACE, on_close=use.end)


class _Use:
    """A backend's use of an engine: until ``end``, or until the backend is collected as garbage, and this with it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._at_collection = _engines.release_with(self, engine)

    def end(self) -> None:
        if self._at_collection.detach() is not None:
            release_engine(self._engine)


def acquire_engine(target: Target) -> Engine:
    """Return the engine of an embedded target, the same for every user of it in this process."""
    # Links may have come to lead elsewhere since another user's engine was made.
    place = os.path.realpath(target.location) if target.kind == "sqlite" else None
    return _engines.acquire((target, place), lambda: _make_engine(target))


def release_engine(engine: Engine) -> None:
    """End one use of the engine; the last one closes it."""
    last = _engines.release(engine)
    if last is not None:
        last.close()


def _make_engine(target: Target) -> Engine:
    if target.kind == "sqlite":
        with importing.lock:
            from langchain_kv.engines.sqlite import SQLiteEngine

        return SQLiteEngine(
            target.location, synchronous=target.synchronous, read_only=target.read_only, wait_s=target.wait_s
        )
    if target.cluster is not None:
        with importing.lock:
            from langchain_kv.engines.cassandra_driver import require_driver

            require_driver()
            from langchain_kv.engines.cassandra import CassandraEngine

        return CassandraEngine(target.cluster)
    with importing.lock:
        from langchain_kv.engines.memory import memory_engine

    return memory_engine(target.location)
