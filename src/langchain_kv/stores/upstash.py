"""langchain_community's ``UpstashRedisByteStore`` and ``UpstashRedisStore``: their constructors, and what they keep."""

from __future__ import annotations

from typing import Any, cast

from langchain_kv import limits
from langchain_kv.errors import ConfigError, InvalidValueError, InvalidValueTypeError
from langchain_kv.places.arguments import Token, resolve
from langchain_kv.places.upstash import TOKEN_VARIABLE, UpstashPlace, parse_upstash_url
from langchain_kv.stores.raw import RawByteStore, RawStore, V, checked_seconds, prefix_of
from langchain_kv.values.codecs import UndecodableError
from langchain_kv.values.keys import type_name
from langchain_kv.values.secret import masked

__all__ = ["UpstashRedisByteStore", "UpstashRedisStore"]


class _UpstashStore(RawStore[V]):
    def __init__(
        self,
        *,
        client: Any = None,
        url: str | None = None,
        token: Token | None = None,
        ttl: int | None = None,
        namespace: str | None = None,
    ) -> None:
        """Open a store. Nothing is sent before its first use.

        Args:
            client: an ``upstash_redis.Redis``, also of ``upstash_redis.asyncio``, of which URL and token are taken: it
                is not used itself, as it takes no bytes, and never closed.
            url: ``https://...``, as Upstash's console shows it.
            token: the token; None takes ``UPSTASH_REDIS_REST_TOKEN`` of the environment.
            ttl: seconds after which what is written expires; None for ever.
            namespace: is put before every key, with a slash. ``a`` with the key ``b/c`` is ``a/b`` with the key ``c``.

        Raises:
            ConfigError: client and url, or too little, or what cannot be used (a ValueError).
            InvalidValueTypeError: client is no client of upstash-redis, or ttl no integer (a TypeError).
        """
        token = masked(token)
        if client is not None and url:
            raise ConfigError("Either an Upstash Redis client or a url must be provided, not both.")
        if client is not None:
            url, token = _address(client)
        if not url:
            raise ConfigError("Either an Upstash Redis client or url and token must be provided.")
        seconds = checked_seconds(ttl)
        place = UpstashPlace(parse_upstash_url(url).endpoint, prefix_of(namespace), client)
        options = resolve("upstash", place, token=token, keyspace=limits.DEFAULT_KEYSPACE, component=self._component)
        if options.token is None:
            raise ConfigError(
                "Either an Upstash Redis client or url and token must be provided: the token is missing. Give token=,"
                f" or set {TOKEN_VARIABLE}."
            )
        self._start_raw(place, options, seconds, namespace)

    @property
    def client(self) -> Any:
        """The client that was given, or None."""
        return cast(UpstashPlace, self._place).client


class UpstashRedisStore(_UpstashStore[str]):
    """Keeps text by key in an Upstash Redis, by HTTP, as langchain_community's class of this name does.

    Both may be used on the same keys. A prefix of ``yield_keys`` is literal here. ``UpstashRedisByteStore`` keeps any
    bytes.

    Example::

        store = UpstashRedisStore(url="https://...upstash.io", token="...", namespace="cache")
        store.mget(["a", "x"])  # ["1", None]

    Attributes:
        namespace: the text before the key and a slash, or None; a text, and no method as of other stores.
        ttl: seconds after which what is written expires, or None.
    """

    def encode_value(self, value: str | None) -> Any:
        """Return the text's bytes."""
        if not isinstance(value, str):
            raise InvalidValueTypeError(
                f"The value must be text, got {type_name(value)}: keep bytes in UpstashRedisByteStore, JSON in KVStore."
            )
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise InvalidValueError("The text has a lone surrogate, which is no character: leave it out.") from None

    def decode_value(self, value: Any) -> str:
        """Return the text."""
        if not isinstance(value, bytes):
            raise UndecodableError("it is JSON, not text: read it with KVStore")
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise UndecodableError("it is no UTF-8: read it with UpstashRedisByteStore") from None


class UpstashRedisByteStore(_UpstashStore[bytes], RawByteStore):
    """Keeps bytes by key in an Upstash Redis, by HTTP, as langchain_community's class of this name does.

    Both may be used on the same keys; that one cannot read bytes that are no UTF-8. A prefix of ``yield_keys`` is
    literal here.

    Example::

        store = UpstashRedisByteStore(url="https://...upstash.io", token="...", namespace="cache")
        store.mget(["a", "x"])  # [b"1", None]

    Attributes:
        namespace: the text before the key and a slash, or None; a text, and no method as of other stores.
        ttl: seconds after which what is written expires, or None.
    """

    @property
    def underlying_store(self) -> UpstashRedisStore:
        """A store of the same keys whose values are text, which ends with this one."""
        self._check_open()
        result = object.__new__(UpstashRedisStore)
        result.__dict__.update(self.__dict__)
        result._use(self._connection, owned=False)
        return result


def _address(client: Any) -> tuple[str, Token]:
    """Return URL and token of a client of upstash-redis."""
    if not any(each.__module__.partition(".")[0] == "upstash_redis" for each in type(client).__mro__):
        raise InvalidValueTypeError(f"Expected Upstash Redis client, got {type_name(client)}: give one, or url=.")
    # It has no public way to tell them; what is looked up is said to stay, for another package of its makers.
    url, headers = getattr(client, "_url", None), getattr(client, "_headers", None)
    scheme, _, token = str((headers or {}).get("Authorization", "")).partition(" ")
    if not isinstance(url, str) or scheme != "Bearer" or not token:
        raise ConfigError("This version of upstash-redis does not tell its URL and token: give url= and token=.")
    return url, masked(token)
