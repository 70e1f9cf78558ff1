"""langchain_community's ``RedisStore``: its constructor, its attributes, and what it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from langchain_kv import limits
from langchain_kv.errors import ConfigError
from langchain_kv.places.base import BackendOptions, Place
from langchain_kv.places.redis import RedisClientPlace, RedisPlace, parse_redis_url
from langchain_kv.stores.raw import RawByteStore, checked_seconds, prefix_of

__all__ = ["RedisStore"]


class RedisStore(RawByteStore):
    """Keeps bytes by key in Redis, a cluster of it or Valkey, as langchain_community's class of this name does.

    Both may be used on the same keys. A prefix of ``yield_keys`` is literal here.

    Example::

        store = RedisStore(redis_url="redis://localhost:6379", namespace="cache")
        store.mget(["a", "x"])  # [b'1', None]

    Attributes:
        namespace: the text before the key and a slash, or None; a text, and no method as of other stores.
        ttl: seconds after which what is written expires, or None.
    """

    def __init__(
        self,
        *,
        client: Any = None,
        redis_url: str | None = None,
        client_kwargs: Mapping[str, Any] | None = None,
        ttl: int | None = None,
        namespace: str | None = None,
    ) -> None:
        """Open a store. Nothing is sent before its first use, but by a cluster's client.

        Args:
            client: a Redis or RedisCluster of redis-py, or of ``redis.asyncio``, without ``decode_responses``; it is
                never closed here.
            redis_url: ``redis://...``, ``rediss://...`` or ``valkey://...``, with ``?cluster=true`` for a cluster, of
                which the store makes a client of its own, and closes it.
            client_kwargs: further arguments of that client.
            ttl: seconds after which what is written expires; None for ever.
            namespace: is put before every key, with a slash. ``a`` with the key ``b/c`` is ``a/b`` with the key ``c``.

        Raises:
            ConfigError: both or none of client and redis_url, or one that cannot be used (a ValueError).
            InvalidValueTypeError: client is no client of redis-py, or ttl no integer (a TypeError).
        """
        if client is not None and (redis_url or client_kwargs):
            raise ConfigError(
                "Either a Redis client or a redis_url with optional client_kwargs must be provided, but not both."
            )
        if client is None and not redis_url:
            raise ConfigError("Either a Redis client or a redis_url must be provided.")
        seconds = checked_seconds(ttl)
        place = _place(client, redis_url, client_kwargs, prefix_of(namespace))
        self._start_raw(place, BackendOptions("redis", limits.DEFAULT_KEYSPACE), seconds, namespace)

    @property
    def client(self) -> Any:
        """The client of redis-py that is used."""
        return cast(Any, self._connection.backend).client


def _place(client: Any, url: str | None, arguments: Mapping[str, Any] | None, prefix: str) -> Place:
    if client is not None:
        return RedisClientPlace(client, prefix)
    named = parse_redis_url(str(url))
    return RedisPlace(named.url, named.is_cluster, dict(arguments or {}), prefix)
