"""``https:`` and ``http:``, Astra DB or any Data API."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, cast
from urllib.parse import urlsplit

from langchain_kv.errors import ConfigError
from langchain_kv.places.base import BackendOptions, Place
from langchain_kv.places.endpoints import parse_endpoint
from langchain_kv.places.environment import TOKEN_VARIABLE
from langchain_kv.runtime.forks import importing

if TYPE_CHECKING:
    from langchain_kv.backends.base import Backend
    from langchain_kv.backends.dataapi.backend import DataAPIBackend

__all__ = ["ASTRA_HOST", "DataAPIPlace", "parse_http_url"]

ASTRA_HOST: Final = re.compile(r"[0-9a-f-]{36}-[a-z0-9-]+\.apps\.astra(-dev|-test)?\.datastax\.com", re.IGNORECASE)

_ASTRA_ENVIRONMENTS = {"": "prod", "-dev": "dev", "-test": "test"}
_ASTRA_PATH = "/api/json"


@dataclass(frozen=True)
class DataAPIPlace(Place):
    """A Data API.

    Attributes:
        endpoint: its URL without a trailing slash.
    """

    endpoint: str

    token_variable: ClassVar[str] = TOKEN_VARIABLE

    @property
    def shown(self) -> str:
        """The endpoint, which holds no secret."""
        return f"dataapi:{self.endpoint}"

    @property
    def url_shown(self) -> str:
        """The endpoint."""
        return self.endpoint

    def open(self, options: BackendOptions) -> Backend:
        """Return a new backend, which speaks HTTP."""
        is_astra = self.is_astra(options)
        with importing.lock:
            from langchain_kv.backends.collections import CollectionForm
            from langchain_kv.backends.dataapi.backend import DataAPIBackend

        return DataAPIBackend(
            self.endpoint,
            collection=options.collection,
            keyspace=options.keyspace,
            token=options.token,
            path_prefix=self.path_prefix(options),
            user_agent=options.user_agent,
            headers=options.headers,
            ca_file=options.ca_file,
            request_timeout_s=options.request_timeout_s,
            deadline_s=options.deadline_s,
            wake_timeout_s=options.wake_timeout_s,
            is_astra=is_astra,
            form=CollectionForm(options.namespaced, options.atomic, options.dimension),
        )

    def collections(self, options: BackendOptions) -> list[str]:
        """Return the names of the keyspace's collections, sorted."""
        with closing(cast("DataAPIBackend", self.open(options))) as backend:
            return backend.collections()

    def drop(self, options: BackendOptions) -> None:
        """Remove the collection, with all in it. A missing one is no error."""
        with closing(cast("DataAPIBackend", self.open(options))) as backend:
            backend.drop()

    def is_astra(self, options: BackendOptions) -> bool:
        """Return whether the service is Astra DB, whose databases hibernate.

        Raises:
            ConfigError: the user's environment contradicts the endpoint.
        """
        astra = ASTRA_HOST.fullmatch(urlsplit(self.endpoint).hostname or "")
        found = _ASTRA_ENVIRONMENTS[(astra.group(1) or "").lower()] if astra else None
        name = options.environment
        if found and name and found != name:
            raise ConfigError(
                f"environment={name!r} contradicts the endpoint, which is Astra DB's {found!r}: leave environment out."
            )
        return (name or found) in _ASTRA_ENVIRONMENTS.values()

    def path_prefix(self, options: BackendOptions) -> str:
        """Return what stands between the endpoint and ``/v1``."""
        if options.path_prefix is not None:
            return options.path_prefix
        return _ASTRA_PATH if self.is_astra(options) else ""

    def without_secrets(self) -> DataAPIPlace:
        """Return this place."""
        return self


def parse_http_url(url: str) -> DataAPIPlace:
    """Return the Data API that ``https://HOST`` or ``http://HOST`` names.

    Raises:
        ConfigError: it names none; the text says what to write.
    """
    endpoint = parse_endpoint(url, "a Data API")
    host = (urlsplit(endpoint).hostname or "").lower()
    if host.endswith(".upstash.io"):
        raise ConfigError(f"{host} is no Data API, but Upstash's Redis: write upstash+{endpoint}.")
    return DataAPIPlace(endpoint)
