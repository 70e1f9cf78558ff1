"""A connection to a cluster: statements sent many at once, with one wake-up of who waits a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple

import cassandra.cluster as driver
from cassandra.metadata import Murmur3Token

from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.cassandra.connect import connect
from langchain_kv.engines.cassandra.failures import translated
from langchain_kv.engines.cassandra.settings import ClusterSettings
from langchain_kv.errors import ConfigError, StoreError

__all__ = ["Batch", "Call", "Outcome", "Row", "Session", "Statement", "token_of"]

Statement = Any
"""A prepared statement of the driver."""

Call = tuple[Statement, Sequence[Any]]
"""A statement and its values."""

Row = tuple[Any, ...]
Outcome = list[Row] | StoreError
"""What a statement answered."""

DDL_TIMEOUT_S: Final = 120.0
"""Seconds for a change of the schema: eight indexes take ten on a small machine."""

ERRORS_MAX: Final = 16
"""Failed statements of one batch after which no further ones are sent: the cluster has gone, and each would wait."""

BYTES_ON_WAY: Final = 8 * 1024 * 1024
"""Bytes of documents that are written at once: a node refuses or stalls above a part of its heap."""


class Batch(NamedTuple):
    """Statements to be run, ``width`` at a time.

    Attributes:
        calls: statements and their values.
        manner: ``read``; ``write`` (a statement with a condition: never repeated by the driver); ``serial`` (a read
            that first completes whatever write is on its way); ``nearest`` (a read by an index of vectors).
        width: how many are on their way at once.
        sizes_bytes: of each statement, where they may be large; together at most BYTES_ON_WAY are on their way, or one.
    """

    calls: Sequence[Call]
    manner: Literal["read", "write", "serial", "nearest"]
    width: int
    sizes_bytes: Sequence[int] = ()


token_of: Callable[[bytes], int] = Murmur3Token.hash_fn
"""Return the token of a serialized key."""


class Session:
    """A connection to a cluster, of the process that made it: it must not be used, nor closed, in a forked child.

    Raises:
        AuthError: the cluster does not accept the login.
        ConnectError: no node answers.
        ConfigError: the cluster has another partitioner.
    """

    def __init__(self, settings: ClusterSettings) -> None:
        self.settings = settings
        self.is_ending = False
        """Whether it is about to be closed: no operation is to wait for another try."""
        self._cluster, self._session = connect(settings)
        partitioner = str(self._cluster.metadata.partitioner)
        if not partitioner.endswith("Murmur3Partitioner"):
            self._cluster.shutdown()
            raise ConfigError(
                f"The cluster at {settings.shown()} uses {partitioner}: the Murmur3Partitioner is needed."
            )

    def prepare(self, cql: str, collection: CollectionName) -> Statement:
        """Prepare a statement; blocks."""
        try:
            return self._session.prepare(cql)
        except Exception as error:
            raise translated(error, collection, writes=False) from None

    def execute(
        self, cql: str, values: Sequence[Any] = (), collection: CollectionName | None = None, *, changes: bool = False
    ) -> list[Row]:
        """Run one statement about the schema (``changes``: one that changes it); blocks."""
        profile = "write" if changes else "read"
        timeout_s = DDL_TIMEOUT_S if changes else self.settings.request_timeout_s
        try:
            return list(self._session.execute(cql, values or None, execution_profile=profile, timeout=timeout_s))
        except Exception as error:
            raise translated(error, collection, writes=changes) from None

    def default_replication(self) -> dict[str, Any]:
        """Return the replication of a new keyspace: 3 replicas in the local data centre, or one on each node."""
        hosts = list(self._cluster.metadata.all_hosts())
        local = self.settings.local_dc or self._local_dc()
        count = self.settings.replication or min(3, max(1, sum(host.datacenter == local for host in hosts)))
        return {"class": "NetworkTopologyStrategy", local: count}

    def _local_dc(self) -> str:
        ((name,),) = self.execute("SELECT data_center FROM system.local")
        return str(name)

    def window(self, batch: Batch, collection: CollectionName | None, when_done: Callable[[], None]) -> Window:
        """Return what sends statements about a collection once it is told to."""
        return Window(self._session, batch, collection, when_done)

    def close(self) -> None:
        """End the connections."""
        self._cluster.shutdown()

    def forget(self) -> None:
        """Take back what the driver would do with an inherited connection when a forked child ends."""
        driver._discard_cluster_shutdown(self._cluster)


class Window:
    """The statements of a batch, so many on their way at once. Answers come on the driver's thread, which sends on."""

    def __init__(
        self, session: Any, batch: Batch, collection: CollectionName | None, when_done: Callable[[], None]
    ) -> None:
        self.outcomes: list[Any] = [None] * len(batch.calls)
        self._session = session
        self._batch = batch
        self._collection = collection
        self._when_done = when_done
        self._lock = threading.Lock()
        self._next = 0  # the first statement that was not sent
        self._on_way = 0
        self._bytes_on_way = 0
        self._failed = 0
        self._stopped: StoreError | None = None  # why no more are sent
        self._pumping = True  # whether some thread is sending

    def taken(self) -> list[Outcome]:
        """Return what came of each statement, and keep nothing: the driver's futures, in a cycle, refer to this."""
        outcomes, self.outcomes = self.outcomes, []
        return outcomes

    def stop(self) -> None:
        """Send no further statements: nobody waits any more."""
        with self._lock:
            self._stopped = StoreError("the operation was given up")

    def send(self) -> None:
        """Send what may be sent; ``when_done`` is called, on whatever thread, after the last answer."""
        while True:
            with self._lock:
                is_over = self._stopped is not None or self._next == len(self.outcomes)
                if is_over or self._is_full:
                    self._pumping = False
                    is_done = is_over and not self._on_way
                    break
                at = self._next
                self._next += 1
                self._on_way += 1
                self._bytes_on_way += self._size(at)
            self._send(at)
        if is_done:
            self._finish()

    @property
    def _is_full(self) -> bool:
        if self._on_way >= self._batch.width:
            return True
        return self._on_way > 0 and self._bytes_on_way + self._size(self._next) > BYTES_ON_WAY

    def _size(self, at: int) -> int:
        return self._batch.sizes_bytes[at] if self._batch.sizes_bytes else 0

    def _send(self, at: int) -> None:
        statement, values = self._batch.calls[at]
        try:
            future = self._session.execute_async(statement, values, execution_profile=self._batch.manner)
        except Exception as error:  # the values do not fit, or the session was closed
            self._settle(at, translated(error, self._collection, writes=False))
            return
        future.add_callbacks(self._arrived, self._failed_at, callback_args=(at,), errback_args=(at,))

    def _arrived(self, rows: list[Row] | None, at: int) -> None:
        taken = list(rows or ())
        if rows:
            rows.clear()  # the driver's future is part of a cycle: it would keep them until the garbage collector comes
        self._settle(at, taken)

    def _failed_at(self, error: BaseException, at: int) -> None:
        self._settle(at, translated(error, self._collection, writes=self._batch.manner == "write"))

    def _settle(self, at: int, outcome: Outcome) -> None:
        self.outcomes[at] = outcome
        with self._lock:
            self._on_way -= 1
            self._bytes_on_way -= self._size(at)
            if isinstance(outcome, StoreError):
                self._failed += 1
                if self._failed >= ERRORS_MAX and self._stopped is None:
                    self._stopped = outcome
            if self._pumping:  # the sender sees it
                return
            self._pumping = True
        self.send()

    def _finish(self) -> None:
        for at in range(self._next, len(self.outcomes)):
            self.outcomes[at] = _not_sent(self._stopped)
        self._when_done()


def _not_sent(cause: StoreError | None) -> StoreError:
    error = StoreError(
        f"It was not sent, because {ERRORS_MAX} statements of the batch had failed, the last with: {cause}"
    )
    error.applied = False
    error.retryable = cause is not None and cause.retryable
    return error
