"""From settings to the backend that serves them. Engines are shared by the stores of one target and closed with the
last."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from langchain_kv.backends.base import Backend
from langchain_kv.limits import DEFAULT_KEYSPACE
from langchain_kv.places.targets import Settings, Target
from langchain_kv.runtime.sharing import Shared

if TYPE_CHECKING:
    from langchain_kv.engines.base import Engine

__all__ = ["acquire_engine", "open_backend", "release_engine"]

_engines: Shared[Engine] = Shared()


def open_backend(settings: Settings) -> Backend:
    """Return a backend for the settings. Nothing is opened or sent before its first use."""
    target = settings.target
    if target.kind == "dataapi":
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
    from langchain_kv.backends.engine import EngineBackend
    from langchain_kv.engines.base import CollectionName

    if target.cluster is not None:
        target = replace(target, cluster=replace(target.cluster, deadline_s=settings.deadline_s))
    engine = acquire_engine(target)
    if target.kind == "cassandra":
        from langchain_kv.backends.cluster import ClusterBackend
        from langchain_kv.engines.cassandra.engine import CassandraEngine

        return ClusterBackend(
            cast(CassandraEngine, engine),
            CollectionName(settings.keyspace, settings.collection),
            on_close=lambda: release_engine(target, engine),
        )
    return EngineBackend(
        engine,
        CollectionName(settings.keyspace, settings.collection),
        create_keyspace=settings.keyspace != DEFAULT_KEYSPACE,
        on_close=lambda: release_engine(target, engine),
    )


def acquire_engine(target: Target) -> Engine:
    """Return the engine of an embedded target, the same for every user of it in this process."""
    return _engines.acquire(target, lambda: _make_engine(target))


def release_engine(target: Target, engine: Engine) -> None:
    """End one use of the engine; the last one closes it."""
    last = _engines.release(target, engine)
    if last is not None:
        last.close()


def _make_engine(target: Target) -> Engine:
    if target.kind == "sqlite":
        from langchain_kv.engines.sqlite.engine import SQLiteEngine

        return SQLiteEngine(target.location, synchronous=target.synchronous)
    if target.cluster is not None:
        from langchain_kv.engines.cassandra.driver import require_driver

        require_driver()
        from langchain_kv.engines.cassandra.engine import CassandraEngine

        return CassandraEngine(target.cluster)
    from langchain_kv.engines.memory import memory_engine

    return memory_engine(target.location)
