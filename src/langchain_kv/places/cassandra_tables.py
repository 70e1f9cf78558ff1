"""A keyspace with tables of langchain-community's ``CassandraByteStore``: by a session of the driver, or by a URL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_kv.engines.cassandra.settings import ClusterSettings
from langchain_kv.places.base import BackendOptions, Place
from langchain_kv.runtime.forks import importing

if TYPE_CHECKING:
    from langchain_kv.backends.base import Backend
    from langchain_kv.engines.cassandra.cluster import Session

__all__ = ["CassandraTablesPlace"]


@dataclass(frozen=True)
class CassandraTablesPlace(Place):
    """A keyspace with such tables.

    Attributes:
        keyspace: its name, as it is in the cluster.
        session: the driver's, which is never closed; None makes one of ``settings``.
        settings: how to reach the cluster where there is no session.
    """

    keyspace: str
    session: Any = field(default=None, repr=False)
    settings: ClusterSettings = field(default_factory=lambda: ClusterSettings(()))

    @property
    def shown(self) -> str:
        """The keyspace, and the hosts where they are known."""
        return f"cassandra:{self.settings.shown() if self.session is None else '(Session)'}/{self.keyspace}"

    def open(self, options: BackendOptions) -> Backend:
        """Return a new backend, which connects with its first use.

        Raises:
            ConfigError: the driver is not installed.
        """
        with importing.lock:
            from langchain_kv.engines.cassandra.driver import require_driver

            require_driver()
            from langchain_kv.backends.cassandra_bytes import CassandraBytesBackend
            from langchain_kv.engines.base import CollectionName
            from langchain_kv.engines.cassandra.cluster import Session
            from langchain_kv.engines.cassandra.given import GivenSession

        settings = self.settings.patient_for(options.deadline_s)

        def connect() -> Session:
            return Session(settings) if self.session is None else GivenSession(self.session, settings)

        return CassandraBytesBackend(connect, CollectionName(options.keyspace, options.collection))
