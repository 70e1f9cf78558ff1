"""``redis:``, ``rediss:`` and ``valkey:``, a Redis, a cluster of it or a Valkey; and a client object of redis-py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from langchain_kv.errors import ConfigError
from langchain_kv.places.base import BackendOptions, Place, collections_of_keys, identity_of_url, keys_prefix
from langchain_kv.places.environment import url_of_environment
from langchain_kv.places.extras import require
from langchain_kv.places.forms import REDIS_FORM
from langchain_kv.runtime.forks import importing

if TYPE_CHECKING:
    from langchain_kv.backends.base import Backend

__all__ = ["RedisClientPlace", "RedisPlace", "parse_redis_url"]

_WHAT: Final = "redis: URLs and RedisStore"


@dataclass(frozen=True)
class RedisPlace(Place):
    """A Redis that a URL names; each backend makes a client of its own and closes it.

    Attributes:
        url: as redis-py takes it.
        is_cluster: whether it is a cluster.
        options: further arguments of the client.
        prefix: the text before every key; None makes one of the collection's name.
    """

    url: str = field(repr=False)
    is_cluster: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    prefix: str | None = None

    @property
    def shown(self) -> str:
        """The URL without user, password and parameters."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def url_shown(self) -> str:
        """As ``shown``; whether it is a cluster is said, too."""
        return f"{self.shown}?cluster=true" if self.is_cluster else self.shown

    @property
    def identity(self) -> str:
        """With the parameters, of which ``db=`` is the database."""
        return identity_of_url(self.shown, self.url)

    def open(self, options: BackendOptions) -> Backend:
        """Return a backend with a client of its own, which has not connected yet, unless it is a cluster's.

        Raises:
            ConfigError: redis-py is not installed, or takes no such URL.
        """
        require("redis", "redis", _WHAT)
        with importing.lock:
            from langchain_kv.backends.redis import backend_of, check_client, make_client

        waits = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), options.request_timeout_s)
        client = make_client(self.url, is_cluster=self.is_cluster, **{**waits, **self.options})
        check_client(client)
        return backend_of(client, keys_prefix(self.prefix, options), shown=self.shown, owned=True)

    def collections(self, options: BackendOptions) -> list[str]:
        """Return the names of the collections that have a key, sorted. All keys of the database are listed for it."""
        return collections_of_keys(replace(self, prefix="").open(options), options.keyspace)

    def without_secrets(self) -> Self:
        """Return this place without user, password and parameters, and without the client's further arguments."""
        return replace(self, url=self.shown, options={})

    def with_secrets(self) -> RedisPlace:
        """Return this place with what the environment's URL has, where that names the same server."""
        url = url_of_environment()
        same = parse_redis_url(url) if url.partition(":")[0].lower() in _SCHEMES else None
        return replace(same, prefix=self.prefix) if same and same.shown == self.shown else self


@dataclass(frozen=True)
class RedisClientPlace(Place):
    """A client object of redis-py that the user has, and closes.

    Attributes:
        client: a ``Redis`` or ``RedisCluster`` of ``redis`` or of ``redis.asyncio``, for bytes.
        prefix: the text before every key; None makes one of the collection's name.
    """

    client: Any
    prefix: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no such client."""
        require("redis", "redis", _WHAT)
        with importing.lock:
            from langchain_kv.backends.redis import check_client

        check_client(self.client)

    @property
    def shown(self) -> str:
        """The client's class."""
        return f"redis:{type(self.client).__name__}"

    def open(self, options: BackendOptions) -> Backend:
        """Return a backend that uses the client."""
        with importing.lock:
            from langchain_kv.backends.redis import backend_of

        return backend_of(self.client, keys_prefix(self.prefix, options), shown=self.shown, owned=False)


_SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis"}


def parse_redis_url(url: str) -> RedisPlace:
    """Return the server that a URL names: ``redis://USER:PASSWORD@HOST:PORT/DATABASE``, ``rediss:``, ``valkey:``.

    Args:
        url: parameters are redis-py's, and ``cluster=true`` for a cluster.

    Raises:
        ConfigError: it names no host, or a parameter is wrong.
    """
    try:
        parts = urlsplit(url)
        host = parts.port is None or parts.hostname  # a port that is none raises
        if "@" in parts.path or "@" in parts.query.partition("=")[0]:
            raise ValueError("what is taken for a host is the beginning of a password")
    except ValueError:
        raise ConfigError(
            f"The URL of the Redis has no good host or port: write {REDIS_FORM}, with @ : / ? # % in user and password"
            " percent-encoded."
        ) from None
    if parts.scheme.lower() not in _SCHEMES or not host or not parts.netloc:
        raise ConfigError(f"The URL of a Redis needs redis:, rediss: or valkey: and a host: write {REDIS_FORM}.")
    query = parse_qsl(parts.query, keep_blank_values=True)
    flags = [value.lower() for name, value in query if name == "cluster"]
    if set(flags) - {"true", "false"}:
        raise ConfigError("cluster= of a redis: URL must be true or false.")
    rest = urlencode([each for each in query if each[0] != "cluster"])
    plain = urlunsplit((_SCHEMES[parts.scheme.lower()], parts.netloc, parts.path, rest, ""))
    return RedisPlace(plain, "true" in flags)
