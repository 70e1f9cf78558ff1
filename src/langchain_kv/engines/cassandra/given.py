"""A session of the driver that the user has: his consistency, his policies and his rows, and never closed by us."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.cassandra.cluster import DDL_TIMEOUT_S, Row, Session, Statement
from langchain_kv.engines.cassandra.failures import translated
from langchain_kv.engines.cassandra.settings import ClusterSettings

__all__ = ["GivenSession"]


class GivenSession(Session):
    """As a ``Session``, which has execution profiles of its own. This one has those of the user.

    Args:
        session: the driver's.
        settings: of which only the deadline matters.
    """

    def __init__(self, session: Any, settings: ClusterSettings) -> None:
        self.settings = settings
        self.is_ending = False
        self._given = session
        self._session = self

    def prepare(self, cql: str, collection: CollectionName) -> Statement:
        """Prepare a statement, whose answer comes whole; blocks."""
        try:
            statement = self._given.prepare(cql)
        except Exception as error:
            raise translated(error, collection, writes=False) from None
        statement.fetch_size = None
        return statement

    def execute(
        self, cql: str, values: Sequence[Any] = (), collection: CollectionName | None = None, *, changes: bool = False
    ) -> list[Row]:
        """As a Session's; blocks."""
        try:
            return list(self._given.execute(cql, values or None, timeout=DDL_TIMEOUT_S))
        except Exception as error:
            raise translated(error, collection, writes=changes) from None

    def execute_async(self, statement: Statement, values: Sequence[Any], execution_profile: str) -> Any:
        """Send a statement, by the user's default profile; for a Window."""
        return self._given.execute_async(statement, values)

    def close(self) -> None:
        """Do nothing: the user's own program ends his session."""
