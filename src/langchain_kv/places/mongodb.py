"""``mongodb:`` and ``mongodb+srv:``, a MongoDB deployment; and a client of pymongo that a program has already."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote

from langchain_kv.errors import ConfigError
from langchain_kv.places.base import BackendOptions, Place
from langchain_kv.places.environment import url_of_environment
from langchain_kv.places.extras import require
from langchain_kv.places.forms import MONGODB_FORM
from langchain_kv.runtime.forks import importing
from langchain_kv.values.keys import type_name
from langchain_kv.values.secret import masked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymongo import AsyncMongoClient, MongoClient

    from langchain_kv.backends.base import Backend
    from langchain_kv.backends.mongodb import MongoDBBackend

__all__ = ["MongoDBClientPlace", "MongoDBPlace", "parse_mongodb_url"]

_URL: Final = re.compile(r"(?i:(mongodb(?:\+srv)?))://(?:([^@/?#]*)@)?([^@/?#]+)(?:/([^?#]*))?(\?.*)?", re.DOTALL)

_HOST: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]+)(:\d{1,5})?")

_SECRET_OPTIONS: Final = re.compile(r"(?i:authMechanismProperties|tlsCertificateKeyFilePassword)=[^&]*&?")


@dataclass(frozen=True)
class MongoDBPlace(Place):
    """A MongoDB deployment; each store on it makes a client of its own, at its first use, and closes it.

    Attributes:
        url: as pymongo takes it, with user and password; never shown.
        shown: the URL without these.
        keyspace: the database, where the URL names one in its path.
        client_options: further arguments of pymongo's ``MongoClient``.
    """

    url: str = field(repr=False)
    shown: str = ""
    keyspace: str = ""
    client_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def open(self, options: BackendOptions) -> Backend:
        """Return a new backend on a new ``MongoClient``, which connects with its first use.

        Raises:
            ConfigError: pymongo is not installed, or refuses the URL.
        """
        require("pymongo", "mongodb", "mongodb: URLs")
        with importing.lock:
            import pymongo
            import pymongo.errors

            from langchain_kv.backends.mongodb import MongoDBBackend

        waits = dict.fromkeys(("connectTimeoutMS", "socketTimeoutMS"), options.request_timeout_s * 1000)
        waits["serverSelectionTimeoutMS"] = options.deadline_s * 1000
        # A lone server acknowledges, if not asked for more, what its end within 0.1 s would lose. A replica set's
        # majority has it in its journals anyway. (Source: MongoDB's manual, "Write Concern".)
        chosen: dict[str, Any] = {"appName": "langchain-kv", "journal": True, **waits}
        named = self.url.partition("?")[2].lower()
        own = {name: value for name, value in chosen.items() if f"{name.lower()}=" not in named}
        if re.search(r"(^|&)w=0(&|$)", named) or self.client_options.get("w") == 0:
            del own["journal"]  # nothing is acknowledged, as was asked for
        try:
            client: MongoClient[Any] = pymongo.MongoClient(self.url, **{"connect": False, **own, **self.client_options})
        except (pymongo.errors.PyMongoError, ValueError, TypeError) as error:
            # Their texts name options and their limits, not user and password, which are percent-decoded before.
            raise ConfigError(
                f"pymongo does not take the URL {self.shown} with its options ({type(error).__name__}): write"
                f" {MONGODB_FORM}, with @ : / ? # % in user and password percent-encoded."
            ) from None
        return MongoDBBackend(client, options.keyspace, options.collection, owned=True)

    def collections(self, options: BackendOptions) -> list[str]:
        """Return the names of the database's collections, sorted."""
        with closing(cast("MongoDBBackend", self.open(options))) as backend:
            return backend.collections()

    def drop(self, options: BackendOptions) -> None:
        """Remove the collection, with all in it. A missing one is no error."""
        with closing(cast("MongoDBBackend", self.open(options))) as backend:
            backend.drop()

    def facts(self, options: BackendOptions) -> dict[str, object]:
        """Return the server's version."""
        with closing(cast("MongoDBBackend", self.open(options))) as backend:
            return {"mongodb_version": backend.version()}

    def without_secrets(self) -> MongoDBPlace:
        """Return this place without user and password."""
        query = _SECRET_OPTIONS.sub("", self.url.partition("?")[2]).rstrip("&")
        return replace(self, url=f"{self.shown}?{query}" if query else self.shown, client_options={})

    def with_secrets(self) -> MongoDBPlace:
        """Return this place with the login of the environment's URL, where that is the same URL."""
        url = url_of_environment()
        same = parse_mongodb_url(url) if url.lower().startswith("mongodb") else None
        return same if same and same.without_secrets() == self else self


@dataclass(frozen=True)
class MongoDBClientPlace(Place):
    """A client that the program has: its stores share it, and never close it.

    A ``MongoClient`` serves plain calls itself, and coroutines in threads. An ``AsyncMongoClient`` serves coroutines
    itself on the event loop that uses it first, and plain calls from other threads there.

    Attributes:
        client: pymongo's ``MongoClient`` or ``AsyncMongoClient``.
        database: the database's name; empty takes the store's ``keyspace=``.

    Example:
        >>> store = KVStore("kv", MongoDBClientPlace(MongoClient(), "app"))  # doctest: +SKIP
    """

    client: MongoClient[Any] | AsyncMongoClient[Any] = field(repr=False)
    database: str = ""

    @property
    def keyspace(self) -> str:  # type: ignore[override]
        """The database."""
        return self.database

    @property
    def shown(self) -> str:
        """The kind of the client, and the database."""
        return f"mongodb:({type(self.client).__name__})/{self.database}"

    def open(self, options: BackendOptions) -> Backend:
        """Return a new backend on the client.

        Raises:
            ConfigError: it is no client of pymongo.
        """
        require("pymongo", "mongodb", "clients of MongoDB")
        with importing.lock:
            from pymongo import AsyncMongoClient, MongoClient

            from langchain_kv.backends.mongodb import AsyncMongoDBBackend, MongoDBBackend

        if isinstance(self.client, AsyncMongoClient):
            return AsyncMongoDBBackend(self.client, options.keyspace, options.collection)
        if isinstance(self.client, MongoClient):
            return MongoDBBackend(self.client, options.keyspace, options.collection)
        raise ConfigError(f"client must be pymongo's MongoClient or AsyncMongoClient, got {type_name(self.client)}.")


def parse_mongodb_url(url: str) -> MongoDBPlace:
    """Return the deployment that ``mongodb://...`` or ``mongodb+srv://...`` names.

    Raises:
        ConfigError: it has another form; the text does not show the URL, which may hold a password.
    """
    found = _URL.fullmatch(url)
    # Behind the hosts, or as a port, stands what is left of a password that has a / or ? in it.
    hosts, path, query = found.groups("")[2:] if found else ("", "@", "")
    if found is None or "@" in path + query or not all(map(_HOST.fullmatch, hosts.split(","))):
        raise ConfigError(
            f"A mongodb: URL has the form {MONGODB_FORM}, with @ : / ? # % in user and password percent-encoded."
        )
    shown = f"{found[1].lower()}://{hosts}/{path}"
    return MongoDBPlace(masked(url), shown, unquote(path), {})
