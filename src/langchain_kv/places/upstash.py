"""``upstash+https:``, an Upstash Redis by its REST interface, or any other server of that interface."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from langchain_kv.errors import ConfigError
from langchain_kv.places.base import BackendOptions, Place, collections_of_keys, keys_prefix
from langchain_kv.places.endpoints import parse_endpoint
from langchain_kv.places.forms import UPSTASH_FORM
from langchain_kv.runtime.forks import importing

if TYPE_CHECKING:
    from langchain_kv.backends.base import Backend

__all__ = ["TOKEN_VARIABLE", "UpstashPlace", "parse_upstash_url"]

TOKEN_VARIABLE: Final = "UPSTASH_REDIS_REST_TOKEN"  # noqa: S105 - the name of a variable, no secret


@dataclass(frozen=True)
class UpstashPlace(Place):
    """An Upstash Redis.

    Attributes:
        endpoint: its URL without a trailing slash.
        prefix: the text before every key; None makes one of the collection's name.
        client: an ``upstash_redis.Redis`` that the user had, and whose address this is; it is not used.
    """

    endpoint: str
    prefix: str | None = None
    client: Any = field(default=None, repr=False, compare=False)

    token_variable: ClassVar[str] = TOKEN_VARIABLE

    @property
    def shown(self) -> str:
        """The endpoint, which holds no secret."""
        return f"upstash:{self.endpoint}"

    @property
    def url_shown(self) -> str:
        """The URL of the endpoint."""
        return f"upstash+{self.endpoint}"

    def open(self, options: BackendOptions) -> Backend:
        """Return a new backend, which speaks HTTP."""
        with importing.lock:
            from langchain_kv.backends.upstash import UpstashBackend

        return UpstashBackend(
            self.endpoint,
            keys_prefix(self.prefix, options),
            token=options.token,
            user_agent=options.user_agent,
            headers=options.headers,
            ca_file=options.ca_file,
            request_timeout_s=options.request_timeout_s,
            deadline_s=options.deadline_s,
        )

    def collections(self, options: BackendOptions) -> list[str]:
        """Return the names of the collections that have a key, sorted. All keys of the database are listed for it."""
        return collections_of_keys(replace(self, prefix="").open(options), options.keyspace)

    def without_secrets(self) -> UpstashPlace:
        """Return this place without the client, which has a token."""
        return replace(self, client=None)


def parse_upstash_url(url: str) -> UpstashPlace:
    """Return the Redis that ``upstash+https://HOST`` or ``upstash+http://HOST`` names; ``upstash+`` may be left out.

    Raises:
        ConfigError: it names none; the text says what to write.
    """
    if url.partition(":")[0].lower().removeprefix("upstash+") not in ("https", "http"):
        raise ConfigError(
            "The URL of an Upstash Redis begins with https:, as its console shows it, or is"
            f" {UPSTASH_FORM}: write that."
        )
    return UpstashPlace(parse_endpoint(url, "an Upstash Redis"))
