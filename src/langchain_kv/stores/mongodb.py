"""langchain-community's stores on MongoDB: their names, constructors and layouts, read and written by both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.documents import Document

from langchain_kv.documents.store import DocumentStore, Parent
from langchain_kv.errors import ConfigError
from langchain_kv.places.base import BackendOptions
from langchain_kv.places.mongodb import parse_mongodb_url
from langchain_kv.stores.base import KVBaseStore, KVByteStore
from langchain_kv.stores.life import Options
from langchain_kv.stores.setup import SetupMode
from langchain_kv.values.secret import masked

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection

__all__ = ["MongoDBByteStore", "MongoDBStore"]

V = TypeVar("V")


class _MongoDBBaseStore(KVBaseStore[V]):
    """What both share."""

    def __init__(
        self,
        connection_string: str,
        db_name: str,
        collection_name: str,
        *,
        client_kwargs: Mapping[str, Any] | None = None,
        ttl_s: float | None = None,
    ) -> None:
        """Make a client; nothing is sent before the first call.

        Args:
            connection_string: ``mongodb://...`` or ``mongodb+srv://...``.
            db_name: the database.
            collection_name: the collection; its first document makes it.
            client_kwargs: further arguments of pymongo's ``MongoClient``.
            ttl_s: seconds after which what is written expires, unless the call says otherwise; None for ever.

        Raises:
            ConfigError: an argument is empty or wrong (a ValueError), or pymongo is not installed.
        """
        connection_string = masked(connection_string)
        names = {"connection_string": connection_string, "db_name": db_name, "collection_name": collection_name}
        for name, value in names.items():
            if not value or not isinstance(value, str):
                raise ConfigError(f"{name} must be provided.")
        url = connection_string if "://" in connection_string else masked(f"mongodb://{connection_string}")
        place = replace(parse_mongodb_url(url), keyspace=db_name, client_options=dict(client_kwargs or {}))
        backend_options = BackendOptions(collection_name, db_name)
        self._start(place, backend_options, Options(ttl_s), SetupMode.OFF, pre_delete=False)

    @property
    def client(self) -> MongoClient[Any]:
        """pymongo's client, which ``close`` closes."""
        client: MongoClient[Any] = self._connection.backend.client  # type: ignore[attr-defined]
        return client

    @property
    def collection(self) -> Collection[Any]:  # type: ignore[override]
        """pymongo's collection."""
        return self.client[self._backend_options.keyspace][self._backend_options.collection]

    def yield_keys(self, prefix: str | None = None) -> Iterator[str]:
        """As ``KVStore.yield_keys``; the prefix is literal, and may be given without its name."""
        return super().yield_keys(prefix=prefix)

    async def ayield_keys(self, prefix: str | None = None) -> AsyncIterator[str]:
        """As ``yield_keys``."""
        async with aclosing(super().ayield_keys(prefix=prefix)) as keys:  # type: ignore[type-var]
            async for key in keys:
                yield key


class MongoDBByteStore(_MongoDBBaseStore[bytes], KVByteStore):
    """Keeps bytes by key in a collection, each as ``{"_id": key, "value": bytes}``: at most 16 MiB with its key.

    Example:
        >>> store = MongoDBByteStore("mongodb://localhost:27017", "app", "blobs")  # doctest: +SKIP
        >>> store.mset([("a", b"1")])  # doctest: +SKIP
        >>> store.mget(["a", "x"])  # doctest: +SKIP
        [b'1', None]
    """


class MongoDBStore(_MongoDBBaseStore[Document], DocumentStore):
    """Keeps Documents by key in a collection: ``DocumentStore`` with upstream's name, constructor and layout.

    Example:
        >>> store = MongoDBStore("mongodb://localhost:27017", "app", "parents")  # doctest: +SKIP
        >>> store.mset([("a", Document("A text."))])  # doctest: +SKIP
    """

    def encode_value(self, value: Document | Parent | None) -> Any:
        """Return the document as ``DocumentStore`` keeps it, with upstream's field ``type``."""
        return None if value is None else {**super().encode_value(value), "type": "Document"}
