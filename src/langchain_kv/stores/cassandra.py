"""langchain-community's store of bytes on Apache Cassandra: its name, constructor and table, for both to use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_kv.errors import ConfigError
from langchain_kv.places.base import BackendOptions
from langchain_kv.places.cassandra_tables import CassandraTablesPlace
from langchain_kv.places.clusters import parse_cluster_url
from langchain_kv.runtime.forks import importing
from langchain_kv.stores.base import KVByteStore
from langchain_kv.stores.life import Options
from langchain_kv.stores.setup import AnySetupMode, SetupMode
from langchain_kv.values.secret import masked

if TYPE_CHECKING:
    from cassandra.cluster import Session

__all__ = ["CassandraByteStore"]


class CassandraByteStore(KVByteStore):
    """Keeps bytes by key in a table ``(row_id text PRIMARY KEY, body_blob blob)``.

    ``add`` and ``update`` are not there, because the table is written without conditions, by the archived class, too:
    ``KVByteStore("name", "cassandra://...")`` has them. Expiry is the cluster's own, in whole seconds, rounded up.

    Example:
        >>> store = CassandraByteStore("blobs", session=cluster.connect(), keyspace="app")  # doctest: +SKIP
        >>> store.mset([("a", b"1")])  # doctest: +SKIP
    """

    def __init__(
        self,
        table: str,
        *,
        session: Session | None = None,
        keyspace: str | None = None,
        setup_mode: AnySetupMode = SetupMode.SYNC,
        url: str | None = None,
        ttl_s: float | None = None,
    ) -> None:
        """Open a store; in SetupMode.SYNC its table is there on return. Its keyspace must exist.

        Args:
            table: the table's name, as it is in the cluster: the archived class made small letters of it there.
            session: a session of cassandra-driver, which stays open; None takes the ``url``, else cassio's.
            keyspace: the keyspace's name, in the same way; None takes the URL's, else cassio's.
            setup_mode: when the table is made: SYNC, ASYNC or OFF, as a member or as its name.
            url: ``cassandra://...``, in the place of a session.
            ttl_s: seconds after which what is written expires, unless the call says otherwise; None for ever.

        Raises:
            ConfigError: an argument is missing or wrong (a ValueError).
        """
        url = masked(url)
        if url is not None:
            if session is not None:
                raise ConfigError("session= and url= are two ways to the cluster: give one.")
            cluster = parse_cluster_url(url)
            place = CassandraTablesPlace(_name(keyspace or cluster.keyspace), settings=cluster.settings)
        else:
            if session is None or keyspace is None:
                session, keyspace = _of_cassio(session, keyspace)
            place = CassandraTablesPlace(_name(keyspace), session)
        backend_options = BackendOptions(_name(table), place.keyspace)
        self._start(place, backend_options, Options(ttl_s), setup_mode, pre_delete=False)

    @property
    def session(self) -> Session | None:
        """The driver's session; None where a URL was given."""
        session: Session | None = self._place.session  # type: ignore[attr-defined]
        return session

    @property
    def keyspace(self) -> str:
        """The keyspace's name."""
        return self._backend_options.keyspace

    @property
    def table(self) -> str:
        """The table's name."""
        return self._backend_options.collection


def _name(name: str) -> str:
    """Return a name without the quotes in which it may be written."""
    if not isinstance(name, str) or not name.strip('"'):
        raise ConfigError("table and keyspace must be names: give table= and keyspace= as they are in the cluster.")
    return name[1:-1].replace('""', '"') if name[0] == name[-1] == '"' else name


def _of_cassio(session: Any, keyspace: str | None) -> tuple[Any, str]:
    try:
        with importing.lock:
            from cassio.config import check_resolve_keyspace, check_resolve_session
    except ImportError:
        raise ConfigError(
            "CassandraByteStore needs to know the cluster: give session= and keyspace=, or url='cassandra://...'."
        ) from None
    return session or check_resolve_session(), check_resolve_keyspace(keyspace)
